"""gemma lens, against a few lines of torch: the table, its page, and what it refuses."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path
from typing import Any

import gemma_libtorch
import tiny
import torch
from gemma_libtorch.lens import LensModel
from test_activations import ok, refusal

TEXT = "When does the ferry leave?"
EXACT = ["--numerics", "exact"]


def likely(lens: LensModel, text: str) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """What each residual, [1 + layers, T, E], says -> probabilities and ids [1 + layers, T, 5]."""
    cache = lens.run_with_cache(text)[1]
    names = ["hook_embed", *(f"blocks.{i}.hook_resid_post" for i in range(lens.cfg.n_layers))]
    residual = torch.stack([cache[name][0] for name in names])
    logits = lens.ln_final(residual) @ lens.W_U
    cap = lens.cfg.output_logits_soft_cap
    logits = cap * torch.tanh(logits / cap) if cap else logits
    return (*logits.softmax(-1).topk(5), cache)


def check_rows(rows: Any, probabilities: torch.Tensor, ids: torch.Tensor) -> None:
    got = [[[one["id"] for one in cell] for cell in row["positions"]] for row in rows]
    assert got == ids.tolist()
    got = [[[one["probability"] for one in cell] for cell in row["positions"]] for row in rows]
    torch.testing.assert_close(torch.tensor(got), probabilities, rtol=1e-4, atol=1e-6)


def test_rows_are_what_torch_makes_of_the_residuals(lens: LensModel, tmp_path: Path) -> None:
    result = json.loads(ok(tmp_path, "lens", TEXT, "--json", *EXACT))
    probabilities, ids, _ = likely(lens, TEXT)
    assert [token["id"] for token in result["tokens"]] == lens.to_tokens(TEXT)[0].tolist()
    layers = range(lens.cfg.n_layers)
    assert [row["layer"] for row in result["rows"]] == ["embed", *map(str, layers)]
    check_rows(result["rows"], probabilities, ids)
    assert torch.equal(ids[-1, :, 0], lens(TEXT)[0].argmax(-1))


def test_the_table_fits_and_has_every_token(lens: LensModel, tmp_path: Path) -> None:
    text = "the name of the ferry " * 6
    lines = ok(tmp_path, "lens", text).splitlines()
    assert max(map(len, lines)) <= 100
    blocks = -(-lens.to_tokens(text).size(1) // 5)
    assert sum(line.startswith("layer ") for line in lines) == blocks
    assert len(lines) == blocks * (lens.cfg.n_layers + 3) - 1
    probabilities, ids, _ = likely(lens, text)
    last = lens.tokenizer.id_to_piece(ids[-1, 0, 0].item())[:8]
    assert lines[lens.cfg.n_layers + 1].split()[1].startswith(last)


class Page(html.parser.HTMLParser):
    """What a page refers to, and its data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.data = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["script"] and not self.data:
            self.data = data


def test_a_page_needs_nothing_else_and_has_the_patterns(lens: LensModel, tmp_path: Path) -> None:
    text = "the ferry & its 'name'"
    assert ok(tmp_path, "lens", text, "--html", "lens.html") == ""
    written = (tmp_path / "lens.html").read_text()
    page = Page(written)
    assert (page.links, page.tags.count("script")) == ([], 2)
    assert "://" not in written
    data = json.loads(page.data)
    assert [token["id"] for token in data["tokens"]] == lens.to_tokens(text)[0].tolist()
    probabilities, ids, cache = likely(lens, text)
    check_rows(data["rows"], probabilities, ids)
    length = ids.size(1)
    for layer, heads in enumerate(data["patterns"]):
        pattern = cache["pattern", layer][0]
        assert len(heads) == len(pattern)
        below = torch.ones(length, length).tril().bool()
        for got, want in zip(heads, pattern, strict=True):
            got = torch.tensor(list(bytes.fromhex(got))) / 255
            torch.testing.assert_close(got, want[below], rtol=0, atol=0.51 / 255)


def test_pieces_that_look_like_html_stay_text(tmp_path: Path) -> None:
    pieces = ["</script>", "<!--", "<b>"]
    tokenizer = tiny.tokenizer_with(tmp_path / "html.model", *pieces)
    fields = {**tiny.CONFIGS["gemma3"], "vocab_size": tiny.VOCAB_SIZE + 3, "tokenizer": str(tokenizer)}
    tiny.save_checkpoint(tiny.make_model(gemma_libtorch, fields, "float32"), tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    ok(tmp_path, "lens", "".join(pieces), "--html", "lens.html")
    page = Page((tmp_path / "lens.html").read_text())
    assert (page.tags.count("script"), page.tags.count("b")) == (2, 0)
    assert [token["piece"] for token in json.loads(page.data)["tokens"]][-3:] == pieces


def test_what_a_lens_cannot_show_is_told_in_a_line(lens: LensModel, tmp_path: Path) -> None:
    flags = ["--html", "lens.html"]
    assert "use --numerics exact" in refusal(tmp_path, "lens", "a", *flags, "--numerics", "fast")
    assert "a page shows 256 at most" in refusal(tmp_path, "lens", "a " * 300, *flags)
    assert "must be 1 to max_position_embeddings, 128" in refusal(tmp_path, "lens", "a " * 200)
    assert not (tmp_path / "lens.html").exists()
