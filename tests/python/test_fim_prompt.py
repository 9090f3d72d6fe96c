"""Prompts that ask for what is missing between two texts: their tokens, and gemma run with them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import tiny
from gemma_libtorch.engine import Engine, Request
from gemma_libtorch.prompts import FimPrompt
from gemma_libtorch.tokenizer import Tokenizer
from test_program import PROGRAM

MARKERS = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"]
PREFIX, SUFFIX, MIDDLE, SEPARATOR = range(tiny.VOCAB_SIZE, tiny.VOCAB_SIZE + 4)

BEFORE = "import "
AFTER = 'if __name__ == "__main__":\n    sys.exit(0)'


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer(str(tiny.tokenizer_with(tmp_path / "fim.model", *MARKERS)))


def test_the_tokens_are_those_of_googles_example(tokenizer: Tokenizer) -> None:
    ids = FimPrompt(tokenizer).encode(BEFORE, AFTER)
    assert ids == tokenizer.encode(f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>")
    assert (ids[:2], ids[-1], ids.count(SUFFIX)) == ([2, PREFIX], MIDDLE, 1)
    assert FimPrompt(tokenizer).stop_ids == [PREFIX, SUFFIX, MIDDLE, SEPARATOR]


def test_other_files_stand_in_front(tokenizer: Tokenizer) -> None:
    ids = FimPrompt(tokenizer).encode(BEFORE, AFTER, files=["one\n", "a<|fim_prefix|>"])
    begin = [2, *tokenizer.encode("one\n", bos=False), SEPARATOR]
    assert ids[: len(begin)] == begin
    assert [ids.count(marker) for marker in (PREFIX, SUFFIX, MIDDLE, SEPARATOR)] == [1, 1, 1, 2]


def test_what_cannot_be_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"no <\|fim_prefix\|>, so the model was not trained"):
        FimPrompt(Tokenizer(str(tiny.TOKENIZER)))
    with pytest.raises(TypeError):
        FimPrompt(tokenizer).encode(BEFORE, 3)  # type: ignore[arg-type]


# --- gemma run ------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """A model of CodeGemma's kind; model.ckpt and tokenizer.model in tmp_path."""
    fields = {**tiny.CONFIGS["gemma1_mqa"], "vocab_size": tiny.VOCAB_SIZE + len(MARKERS)}
    fields["tokenizer"] = str(tiny.tokenizer_with(tmp_path / "fim.model", *MARKERS))
    made = tiny.make_model(gemma_libtorch, fields, "float32")
    tiny.save_checkpoint(made, tmp_path)
    tiny.tokenizer_with(tmp_path / "tokenizer.model", *MARKERS)
    return made


def run(folder: Path, *flags: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "run", "--ckpt", folder / "model.ckpt", "--output_len", "20", *flags],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=folder,
    )


def filled(model: Any, prefix: str, suffix: str, *files: str) -> str:
    """What is to be in the gap, by the engine."""
    prompt = FimPrompt(model.tokenizer)
    request = Request(
        prompt.encode(prefix, suffix, files),
        max_tokens=20,
        temperature=0.0,
        stop_ids=prompt.stop_ids,
    )
    model.set_numerics("fast")
    (answer,) = Engine(model, kv_dtype="float32").generate([request])
    return answer.text + "\n"


def test_a_gap_is_filled_with_the_likeliest_text(model: Any, tmp_path: Path) -> None:
    want = filled(model, BEFORE, AFTER)
    assert len(want) > 1
    for flags in ([], ["--temperature", "0"], ["--greedy"], ["--numerics", "exact"]):
        done = run(tmp_path, "--prefix", BEFORE, "--suffix", AFTER, *flags)
        assert (done.stdout, done.returncode) == (want, 0), done.stderr
    drawn = run(tmp_path, "--prefix", BEFORE, "--suffix", AFTER, "--temperature", "1")
    assert drawn.stdout not in ("", want)
    assert run(tmp_path, "--suffix", AFTER).stdout == filled(model, "", AFTER)


def test_files_around_a_gap_are_taken_whole(model: Any, tmp_path: Path) -> None:
    (tmp_path / "before").write_text("a\n\n")
    (tmp_path / "after").write_text("\r\nb\n")
    (tmp_path / "other").write_text("c\n")
    files = ["--prefix_file", "before", "--suffix_file", "after"]
    assert run(tmp_path, *files).stdout == filled(model, "a\n\n", "\nb\n")
    context = ["--context_file", "other", "--context_file", "before"]
    assert run(tmp_path, *files, *context).stdout == filled(
        model, "a\n\n", "\nb\n", "c\n", "a\n\n"
    )


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--prefix", "a", "--prompt", "b"], 2, "--prompt excludes --prefix"),
        (["--prefix", "a", "--prefix_file", "b"], 2, "--prefix excludes --prefix_file"),
        (["--suffix", "a", "--suffix_file", "b"], 2, "--suffix excludes --suffix_file"),
        (["--suffix", "a", "--image", "b.png"], 2, "--image excludes --suffix"),
        (["--context_file", "a"], 1, "--context_file is for a gap; give --prefix or --suffix, too"),
        (["--prefix_file", "none"], 1, "--prefix_file none: cannot be read"),
        (
            ["--prefix", "a", "--tokenizer", "other.model"],
            1,
            "the tokenizer has no <|fim_prefix|>, so the model was not trained for it; use CodeGemma",
        ),
    ],
)
def test_a_mistake_is_told_in_a_line(
    model: Any, tmp_path: Path, flags: list[str], code: int, message: str
) -> None:
    tiny.tokenizer_with(tmp_path / "other.model", "<a>", "<b>", "<c>", "<d>")
    done = run(tmp_path, *flags)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
    assert message in done.stderr
