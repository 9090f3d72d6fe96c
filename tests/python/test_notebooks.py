"""The notebooks of docs/notebooks run, and show what they keep."""

from __future__ import annotations

import os
import re
from typing import Any

import notebooks
import pytest
import tiny
from test_program import PROGRAM

NAMES = ["inside_gemma.ipynb", "one_prediction.ipynb"]
DECIMAL = re.compile(r"\d+\.\d+")

every_notebook = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def notebook(name: str) -> dict[str, Any]:
    return notebooks.read(notebooks.FOLDER / name)


def text_of(output: dict[str, Any]) -> str | None:
    """None of a picture."""
    lines = output["text"] if "text" in output else output["data"].get("text/plain")
    return None if lines is None else "".join(lines)


def cells_of_code(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_is_tested() -> None:
    assert sorted(path.name for path in notebooks.FOLDER.glob("*.ipynb")) == NAMES


@every_notebook
def test_a_notebook_is_small_and_says_nothing_of_the_machine(
    name: str, notebook: dict[str, Any]
) -> None:
    path = notebooks.FOLDER / name
    assert path.stat().st_size < 400_000
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    texts = ["".join(cell["source"]) for cell in notebook["cells"]]
    for count, cell in enumerate(cells_of_code(notebook), 1):
        assert cell["execution_count"] == count
        texts += [text_of(output) or "" for output in cell["outputs"]]
    assert re.findall(r"/(?:home|root|tmp|work|usr)/\S*", "\n".join(texts)) == []


@every_notebook
def test_links_of_a_notebook_lead_to_files(notebook: dict[str, Any]) -> None:
    text = "".join("".join(cell["source"]) for cell in notebook["cells"])
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    assert targets
    assert [target for target in targets if not (notebooks.FOLDER / target).exists()] == []


@every_notebook
def test_a_notebook_runs_and_shows_what_it_keeps(
    name: str, notebook: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib: pip install matplotlib")
    if not (tiny.GEMMA_3_270M_FOLDER / "model.ckpt").exists():
        pytest.skip("no checkpoints/gemma-3-270m: run scripts/fetch_gemma_3_270m.py")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("PATH", f"{PROGRAM.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(notebooks.FOLDER)
    for cell, got in zip(cells_of_code(notebook), notebooks.run(notebook, name), strict=True):
        kept = cell["outputs"]
        assert [set(output.get("data", [])) for output in got] == [
            set(output.get("data", [])) for output in kept
        ]
        if "varies" not in cell["metadata"].get("tags", []):
            for one, other in zip(map(text_of, got), map(text_of, kept), strict=True):
                check_same(one or "", other or "")


def check_same(got: str, want: str) -> None:
    """Numbers with a point may differ by rounding: another CPU sums in another order."""
    assert DECIMAL.sub("#", got) == DECIMAL.sub("#", want)
    numbers = [[float(number) for number in DECIMAL.findall(text)] for text in (got, want)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=0.0011)
    assert "allclose: False" not in got
