"""The tokenizer rebuilt from a GGUF file against Gemma 3's own tokenizer.model.

Of Google's file the project holds hashes of the ids that it gives to generated strings. With
GEMMA3_TOKENIZER=<Google's tokenizer.model> the ids themselves are compared, and

    GEMMA3_TOKENIZER=<file> python tests/python/test_gemma3_tokenizer.py

writes the hashes again.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "gemma3_tokenizer.json"
GGUF = ROOT / "checkpoints" / "gemma-3-270m" / "model.gguf"
VARIABLE = "GEMMA3_TOKENIZER"
STRINGS, TOGETHER = 10_000, 500

# First and last characters of scripts, of symbols and of emoji.
RANGES = [
    (0x20, 0x7E), (0x20, 0x7E), (0xA1, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA),
    (0x621, 0x64A), (0x900, 0x97F), (0xE01, 0xE3A), (0x1100, 0x11FF), (0x2000, 0x206F),
    (0x2190, 0x23FF), (0x3041, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFE00, 0xFE0F),
    (0xFF01, 0xFF5E), (0x1F300, 0x1FAFF), (0x20000, 0x20FFF), (0x1, 0x1F),
]  # fmt: skip
WORDS = (
    "the The a of and Paris capital ferry leaves at noon 1969 3.14 0x1F def return self.value = "
    "for (int i = 0; i < n; ++i) { } <div> </div> <start_of_turn> <end_of_turn> <bos> <eos> <pad> "
    "<unused7> [multimodal] <h1> </td> <0x0A> ▁ ▁▁ Ça va naïve Straße Привет мир 東京 서울 مرحبا 👩‍👩‍👧"
).split(" ")
BLANKS = [" ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\n\n\n\n", "\t", "\t\t", " " * 17, "\r\n"]


def generated() -> list[str]:
    # Of random.Random, random() alone gives the same numbers in every release of Python.
    draw = random.Random(20_250_904).random

    def below(count: int) -> int:
        return int(draw() * count)

    def word() -> str:
        if draw() < 0.5:
            return WORDS[below(len(WORDS))]
        first, last = RANGES[below(len(RANGES))]
        return "".join(chr(first + below(last - first + 1)) for _ in range(1 + below(8)))

    def string() -> str:
        parts = []
        for _ in range(below(13)):
            parts.append(word())
            if draw() < 0.8:
                parts.append(BLANKS[below(len(BLANKS))])
        return "".join(parts)

    return [string() for _ in range(STRINGS)]


def digests(encode: Callable[[str], list[int]]) -> list[str]:
    """One for each 500 strings."""
    ids = [encode(text) for text in generated()]
    return [
        hashlib.sha256(json.dumps(ids[first : first + TOGETHER]).encode()).hexdigest()[:16]
        for first in range(0, STRINGS, TOGETHER)
    ]


def googles_file() -> str:
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(f"set {VARIABLE} to the tokenizer.model of a Gemma 3 from Google")
    return path


@pytest.fixture(scope="module")
def rebuilt() -> Callable[[str], list[int]]:
    from gemma_libtorch.tokenizer import Tokenizer

    if not GGUF.is_file():
        pytest.skip("no checkpoints/gemma-3-270m: run scripts/fetch_gemma_3_270m.py")
    tokenizer = Tokenizer(str(GGUF))
    return lambda text: tokenizer.encode(text, bos=False)


def test_the_rebuilt_tokenizer_gives_the_ids_of_googles(rebuilt: Callable) -> None:
    assert rebuilt("The capital of France is") == [818, 5279, 529, 7001, 563]
    assert digests(rebuilt) == json.loads(GOLDEN.read_text())["sha256"]


def test_googles_file_gives_its_ids_here_and_in_sentencepiece(rebuilt: Callable) -> None:
    from gemma_libtorch.tokenizer import Tokenizer

    path = googles_file()
    ours, theirs = Tokenizer(path), sentencepiece.SentencePieceProcessor(model_file=path)
    for text in generated():
        ids = theirs.EncodeAsIds(text)
        assert ours.encode(text, bos=False) == ids, text
        assert rebuilt(text) == ids, text


if __name__ == "__main__":
    processor = sentencepiece.SentencePieceProcessor(model_file=os.environ[VARIABLE])
    GOLDEN.write_text(json.dumps({"sha256": digests(processor.EncodeAsIds)}, indent=1) + "\n")
