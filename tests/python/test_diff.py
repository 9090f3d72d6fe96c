"""python -m gemma_libtorch.diff, beside models of this package and of transformers: a fault that is
planted into one module is found there.
"""

from __future__ import annotations

import html.parser
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import tiny
import torch
from gemma_libtorch.diff import Report, compare
from gemma_libtorch.diff.__main__ import main
from gemma_libtorch.diff.report_html import shade_of

TOLERANCE = 1e-5  # In float32 transformers sums in another order.
LAYER = 1
HERE = f"model.layers.{LAYER}"
NAMES = ("gemma1_mqa", "gemma2", "gemma3")


def ids_of(length: int = 9) -> torch.Tensor:
    return tiny.random_ids((2, length), tiny.VOCAB_SIZE)


def make(name: str, dtype: str = "float32", quant: bool = False) -> Any:
    return tiny.make_model(gemma_libtorch, tiny.CONFIGS[name], dtype, quant)


def changed_rows(report: Report, of: str = "fed") -> list[str]:
    return [row.name for row in report.rows if row.differs(of, report.tolerance)]


# --- a model of this package ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", tiny.DTYPES)
@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_a_model_is_equal_to_itself(name: str, dtype: str) -> None:
    model = make(name, dtype)
    report = compare(model, make(name, dtype), tiny.random_ids((2, 9), model.config.vocab_size))
    assert report.status == 0
    assert report.first("fed") is report.first("end_to_end") is None
    assert all(row.fed and row.fed.is_equal for row in report.rows)
    assert report.verdict == f"all {len(report.rows)} values are equal to the last bit"


def test_a_quantised_and_a_multimodal_model_are_equal_to_themselves() -> None:
    assert compare(make("gemma3", quant=True), make("gemma3", quant=True), ids_of()).status == 0
    model = tiny.make_multimodal(gemma_libtorch)
    assert compare(model, model, ids_of()).status == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_module_of_ours_has_a_row(name: str) -> None:
    model = make(name)
    rows = {row.name for row in compare(model, model, ids_of()).rows}
    lists = {"", "model", "model.layers"}  # Whose values are those of others.
    assert {path for path, _ in model.named_modules()} - lists - rows == set()


def plant(model: Any, name: str) -> Any:
    """Changes one number of a weight."""
    weight = model.get_parameter(f"{name}.weight")
    weight.view(-1)[weight.numel() // 2] += 0.1
    return model


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_weight_is_found_wherever_it_is(name: str) -> None:
    names = [path.removesuffix(".weight") for path, _ in make(name).named_parameters()]
    for module in names:
        report = compare(make(name), plant(make(name), module), torch.arange(451)[None, :120])
        first = report.first("fed")
        if module == "embedder":  # Of a token that is not in the text: the logits alone differ.
            assert first and first.name == "sampler"
            continue
        assert first and first.name == module
        assert changed_rows(report) == [module]
        assert report.status == 1


def test_a_difference_grows_end_to_end_and_stands_alone_when_modules_are_fed() -> None:
    report = compare(make("gemma3"), plant(make("gemma3"), "model.layers.2.mlp.up_proj"), ids_of())
    assert changed_rows(report) == ["model.layers.2.mlp.up_proj"]
    whole = {row.name: row.differs("end_to_end") for row in report.rows}
    outputs = [whole[f"model.layers.{i}"] for i in range(7)]
    assert outputs == [False, False, True, True, True, True, True]
    assert whole["sampler"]
    assert report.verdict == "the first that differs: model.layers.2.mlp.up_proj"


def test_a_token_that_differs_is_found_at_its_position_and_after_it() -> None:
    ours, theirs = make("gemma3"), make("gemma3")
    ids = torch.tensor([[2, 7, 11, 5]])
    theirs.embedder.weight[11] += 0.5
    report = compare(ours, theirs, ids)
    (embedder,) = [row for row in report.rows if row.name == "embedder"]
    assert embedder.fed is not None
    assert [value > 0 for value in embedder.fed.by_position] == [False, False, True, False]
    (layer,) = [row for row in report.rows if row.name == "model.layers.0"]
    assert layer.end_to_end is not None
    assert [value > 0 for value in layer.end_to_end.by_position] == [False, False, True, True]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_fast_numerics_pass_under_a_tolerance(name: str, dtype: str) -> None:
    fast, exact = make(name, dtype), make(name, dtype)
    fast.set_numerics("fast")
    tolerance = {"float32": 1e-5, "bfloat16": 0.05}[dtype]
    report = compare(fast, exact, ids_of(), tolerance=tolerance)
    assert report.status == 0, report.as_text()
    assert report.verdict.endswith(f"values are within {tolerance:g}")
    assert compare(fast, exact, ids_of()).status == 1
    notes = {row.name: row.note for row in report.rows}
    assert notes[f"{HERE}.mlp.gate_proj"] == "fused in fast numerics"
    assert notes[f"{HERE}.mlp"] == ""
    wrong = make(name, dtype)
    wrong.get_parameter(f"{HERE}.self_attn.o_proj.weight").neg_()
    found = compare(fast, wrong, ids_of(), tolerance=tolerance).first("fed")
    assert found and found.name == f"{HERE}.self_attn.o_proj"


def test_comparing_leaves_no_hooks() -> None:
    ours, theirs = make("gemma3"), make("gemma3")
    before = ours.logits(ids_of())
    compare(ours, plant(theirs, f"{HERE}.mlp.down_proj"), ids_of())
    tiny.assert_same(ours.logits(ids_of()), before)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (torch.tensor([1, 2]), r"inputs are \[2\], but must be token ids \[B, L\]"),
        (torch.zeros(1, 0, dtype=torch.long), r"inputs are \[1, 0\]"),
        (torch.zeros(1, 129, dtype=torch.long), "129 tokens, but must be 1 to .* 128"),
    ],
)
def test_other_inputs_are_refused(inputs: torch.Tensor, words: str) -> None:
    model = make("gemma3")
    with pytest.raises(ValueError, match=words):
        compare(model, model, inputs)


def test_a_reference_of_another_package_is_refused() -> None:
    with pytest.raises(ValueError, match="reference is a Linear, but must be a model of gemma_pyt"):
        compare(make("gemma3"), torch.nn.Linear(2, 2), ids_of())


# --- transformers ---------------------------------------------------------------------------------


def transformers_of(ours: Any, name: str) -> Any:
    import test_transformers

    return test_transformers.hf_model(ours, FIELDS[name])


FIELDS = {
    "gemma1_mqa": tiny.CONFIGS["gemma1_mqa"],
    "gemma2": {**tiny.CONFIGS["gemma2"], "query_pre_attn_scalar": 24},
    "gemma3": tiny.CONFIGS["gemma3"],
}


def beside_transformers(name: str) -> tuple[Any, Any]:
    pytest.importorskip("transformers", reason="transformers is not installed")
    ours = tiny.make_model(gemma_libtorch, FIELDS[name], "float32")
    return ours, transformers_of(ours, name)


@pytest.mark.parametrize("name", NAMES)
def test_transformers_agrees_under_a_tolerance(name: str) -> None:
    ours, theirs = beside_transformers(name)
    report = compare(ours, theirs, ids_of(), tolerance=TOLERANCE)
    assert report.status == 0, report.as_text()
    assert report.theirs_only == []
    rows = {row.name: row for row in report.rows}
    assert rows["embedder"].note == "no module there: see model.hook_in"
    assert rows[f"{HERE}.self_attn.qkv_proj"].note.startswith("three matrices there")
    compared = [row for row in report.rows if not row.note]
    assert all(row.fed and row.end_to_end for row in compared)
    assert len(report.rows) - len(compared) == 1 + ours.config.num_hidden_layers


def _scale(module: Any) -> None:
    """Each output by another factor, as a norm would undo one that all have in common."""
    factors = torch.linspace(1.01, 1.02, len(module.weight))
    weight = module.weight.data.T * factors
    module.weight = torch.nn.Parameter(weight.T.contiguous())  # lm_head's is the embedding's, too.


def _swap_rotary_halves(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat((second, -first), dim=-1)

    module = sys.modules[type(theirs.model.layers[0].self_attn).__module__]
    monkeypatch.setattr(module, "rotate_half", swapped)


def _permute_heads(theirs: Any, _: Any) -> None:
    weight = theirs.model.layers[LAYER].self_attn.o_proj.weight.data
    weight.copy_(weight.unflatten(1, (4, -1)).flip(1).flatten(1))


def _change(path: str, action: Callable[[Any], None]) -> Callable[[Any, Any], None]:
    return lambda theirs, _: action(theirs.get_submodule(path))


def _replace(path: str, name: str, value: Any) -> Callable[[Any, Any], None]:
    return lambda theirs, _: setattr(theirs.get_submodule(path), name, value)


def _times(path: str, name: str, factor: float) -> Callable[[Any, Any], None]:
    def multiply(theirs: Any, _: Any) -> None:
        module = theirs.get_submodule(path)
        setattr(module, name, getattr(module, name) * factor)

    return multiply


FAULTS: dict[str, tuple[Callable[[Any, Any], None], str]] = {
    "a wrong embedding scale": (_times("model.embed_tokens", "embed_scale", 1.01), "model.hook_in"),
    "a wrong scale of a norm": (
        _change(f"{HERE}.input_layernorm", _scale),
        f"{HERE}.input_layernorm",
    ),
    "a wrong projection": (
        _change(f"{HERE}.self_attn.k_proj", _scale),
        f"{HERE}.self_attn.hook_k",
    ),
    "a swapped half of the rotation": (
        _swap_rotary_halves,
        "model.layers.0.self_attn.hook_rot_q",
    ),
    "a wrong scale of scores": (
        _times(f"{HERE}.self_attn", "scaling", 1.1),
        f"{HERE}.self_attn.hook_pattern",
    ),
    "permuted heads": (_permute_heads, f"{HERE}.self_attn.o_proj"),
    "a wrong activation": (
        _replace(f"{HERE}.mlp", "act_fn", torch.nn.SiLU()),
        f"{HERE}.mlp.down_proj.hook_in",
    ),
    "a wrong matrix of an MLP": (_change(f"{HERE}.mlp.up_proj", _scale), f"{HERE}.mlp.up_proj"),
    "a wrong final norm": (_replace("model.norm", "eps", 0.1), "model.norm"),
    "a wrong matrix of logits": (_change("lm_head", _scale), "hook_logits"),
}
FAULTS_AFTER_GEMMA_1 = {
    "a missing norm": (
        _replace(HERE, "post_feedforward_layernorm", torch.nn.Identity()),
        f"{HERE}.post_feedforward_layernorm",
    ),
}
FAULTS_OF_GEMMA_3 = {
    "a wrong norm of queries": (
        _replace(f"{HERE}.self_attn.q_norm", "eps", 1.0),
        f"{HERE}.self_attn.query_norm",
    ),
    "a wrong table of rotation": (
        _times("model.rotary_emb", "full_attention_inv_freq", 1.01),
        "global_freqs_cis",
    ),
}


@pytest.mark.parametrize(
    ("name", "fault"),
    [(name, fault) for name in NAMES for fault in FAULTS]
    + [(name, fault) for name in NAMES[1:] for fault in FAULTS_AFTER_GEMMA_1]
    + [("gemma3", fault) for fault in FAULTS_OF_GEMMA_3],
)
def test_a_planted_fault_is_found_and_named(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    action, where = {**FAULTS, **FAULTS_AFTER_GEMMA_1, **FAULTS_OF_GEMMA_3}[fault]
    ours, theirs = beside_transformers(name)
    action(theirs, monkeypatch)
    report = compare(ours, theirs, ids_of(), tolerance=TOLERANCE)
    first = report.first("fed")
    assert first and first.name == where
    assert report.status == 1
    assert where in report.verdict
    last = report.rows[-1]
    assert last.differs("end_to_end", TOLERANCE)
    if where.startswith(HERE):  # Nothing before the layer differs in either pass, or after it.
        assert all(row_name.startswith(HERE) for row_name in changed_rows(report))
        assert all(
            row.layer is None or row.layer >= LAYER
            for row in report.rows
            if row.differs("end_to_end", TOLERANCE)
        )


def test_a_reference_whose_attention_returns_no_weights_is_compared_without_them() -> None:
    ours, theirs = beside_transformers("gemma3")
    theirs.set_attn_implementation("sdpa")
    report = compare(ours, theirs, ids_of(), tolerance=TOLERANCE)
    (row,) = [row for row in report.rows if row.name == f"{HERE}.self_attn.hook_pattern"]
    assert row.note == "transformers did not give it"
    assert report.status == 0


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny.save_checkpoint(make("gemma3"), tmp_path)


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """The exit status, and what was printed and complained."""
    try:
        status = main([str(word) for word in words])
    except SystemExit as error:
        status = int(error.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_checkpoint_beside_transformers(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    words = ("--reference", "transformers", "--ckpt", checkpoint, "--prompt", "a dog")
    status, out, err = run(
        capsys, *words, "--tolerance", "1e-5", "--html", page, "--json", figures
    )
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].endswith("values are within 1e-05")
    assert "weights by the loader of gemma_libtorch" in out
    document = json.loads(figures.read_text())
    assert document["status"] == 0
    assert document["first_fed"] is None
    assert len(document["rows"]) == len(re.findall(r"^ *<tr class=", page.read_text(), re.M))
    status, out, _ = run(capsys, *words)
    assert status == 1
    assert "\nthe first that differs: " in out
    status, out, _ = run(
        capsys, *words, "--numerics", "fast", "--dtype", "bfloat16", "--tolerance", "0.05"
    )
    assert status == 0
    assert "numerics: fast, bfloat16, cpu" in out


def test_a_directory_of_hugging_face_beside_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, theirs = beside_transformers("gemma2")
    theirs.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(tiny.TOKENIZER.read_bytes())
    words = ("--reference", "transformers", "--ckpt", tmp_path, "--tolerance", "1e-5")
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert "weights by its own from_pretrained" in out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--ckpt", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--reference", "nowhere"], "--reference nowhere: not a checkout of gemma_pytorch: no gemma/model.py"),
        (["--reference", "griffin:nowhere"], "RecurrentGemma|Griffin|Gemma"),
        (["--dtype", "int3"], "--dtype"),
        (["--numerics", "quick"], "--numerics"),
        (["--tolerance", "-1"], "--tolerance"),
        (["--tolerance", "much"], "--tolerance"),
        (["--variant", "3b"], "3b"),
        (["--device", "abacus"], "abacus"),
        (["--html", "no/such/folder.html"], "no/such/folder.html: no such folder"),
        (["--colour"], "--colour"),
    ],
)
def test_a_bad_argument_is_one_line(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], changes: list[str], words: str
) -> None:
    given = ["--reference", "transformers", "--ckpt", checkpoint, *changes]
    status, out, err = run(capsys, *given)
    assert (status, out) == (2, "")
    assert err.startswith("python -m gemma_libtorch.diff: ")
    assert err.count("\n") == 1
    assert re.search(words, err)


def test_it_runs_as_a_module(checkpoint: Path) -> None:
    command = [sys.executable, "-m", "gemma_libtorch.diff", "--ckpt", str(checkpoint)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert result.stderr == (
        "python -m gemma_libtorch.diff: the following arguments are required: --reference; "
        "see --help\n"
    )


# --- the page -------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Which elements a page has, and that each is closed."""

    EMPTY = {"meta", "!doctype"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else_and_has_a_cell_for_each_layer_and_token() -> None:
    theirs = plant(make("gemma3"), "model.layers.2.mlp.up_proj")
    tokens = ["<bos>", "a", "\n", '"&']
    report = compare(make("gemma3"), theirs, torch.tensor([[2, 7, 11, 5]]), tokens=tokens)
    text = report.as_html()
    page = Page(text)
    assert page.open == []
    assert not any({"src", "href"} & attributes.keys() for _, attributes in page.seen)
    assert "http" not in text
    assert "<bos>" not in text
    cells = [attributes for tag, attributes in page.seen if tag == "td" and "title" in attributes]
    assert len(cells) == 2 * (1 + 7 + 1) * len(tokens)
    found = [cell for cell in cells[: len(cells) // 2] if cell["class"] != "s0"]
    assert {cell["title"].split(",")[0] for cell in found if cell["title"]} == {"layer 2"}
    assert all("model.layers.2.mlp.up_proj" in (cell["title"] or "") for cell in found)


def test_shades_are_powers_of_ten() -> None:
    values = [0, 1e-30, 5e-9, 5e-8, 5e-5, 0.5, 3.0, math.inf]
    assert [shade_of(value) for value in values] == [0, 1, 1, 2, 5, 9, 9, 9]
