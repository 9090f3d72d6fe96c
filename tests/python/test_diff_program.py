"""python -m gemma_libtorch.diff: its arguments, its exit status, its page."""

from __future__ import annotations

import html.parser
import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import tiny
import torch
from gemma_libtorch.diff import compare, gemma_pytorch
from gemma_libtorch.diff.__main__ import main
from gemma_libtorch.diff.report_html import shade_of
from test_diff import make, plant

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


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


@needs_transformers
def test_a_checkpoint_beside_transformers(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    words = ("--reference", "transformers", "--ckpt", checkpoint, "--prompt", "a dog")
    status, out, err = run(capsys, *words, "--tolerance", "1e-5", "--html", page, "--json", figures)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].endswith("values are within 1e-05")
    assert "weights by the loader of gemma_libtorch" in out
    document = json.loads(figures.read_text())
    assert document["status"] == 0
    assert document["first_fed"] is None
    assert len(document["rows"]) == len(
        re.findall(r"^ *<tr class=", page.read_text(), re.MULTILINE)
    )
    status, out, _ = run(capsys, *words)
    assert status == 1
    assert "\nthe first that differs: " in out
    status, out, _ = run(
        capsys, *words, "--numerics", "fast", "--dtype", "bfloat16", "--tolerance", "0.05"
    )
    assert status == 0
    assert "numerics: fast, bfloat16, cpu" in out


@needs_transformers
def test_a_directory_of_hugging_face_beside_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from test_diff_transformers import beside_transformers

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
        (
            ["--reference", "nowhere"],
            "--reference nowhere: not a checkout of gemma_pytorch: no gemma/model.py",
        ),
        (
            ["--reference", "griffin:nowhere"],
            "--reference griffin:nowhere: not a checkout of recurrentgemma",
        ),
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


def test_a_reference_that_fails_has_the_status_of_what_could_not_be_done(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("a fault of the reference's own")

    monkeypatch.setattr(gemma_pytorch, "load", fails)
    monkeypatch.setattr(gemma_pytorch, "package_of", lambda root: None)
    status, out, err = run(capsys, "--reference", "somewhere", "--ckpt", checkpoint)
    assert (status, out) == (2, "")
    assert "a fault of the reference's own" in err


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

    EMPTY: ClassVar = {"meta", "!doctype"}

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


def test_the_document_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    real = set(re.findall(r"--\w+", out)) - {"--help"}
    text = (tiny.ROOT / "docs" / "diff.md").read_text()
    assert set(re.findall(r"^\| `(--\w+)` \|", text, re.MULTILINE)) == real
