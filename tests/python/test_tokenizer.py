"""The tokenizer against the sentencepiece package, on text nobody would type."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import sentencepiece
import tiny
from gemma_libtorch.tokenizer import Tokenizer

REAL_MODEL = tiny.ROOT / "checkpoints" / "gemma-3-270m" / "tokenizer.model"

TEXTS = [
    "",
    " ",
    "     leading and trailing     ",
    "\t\r\n\n\n\v\f",
    "a\0b\0",
    "\0",
    "👩‍👩‍👧‍👦 🇺🇳 e\u0301 \u202eright to left\u202c",
    "\u2581 is what a blank becomes",
    "<pad><bos></s><s><unk><start_of_turn>user\n<end_of_turn><0x41>",
    "\uffff\ufffe\ufdd0\U0010ffff",
    "ﬁ ½ Ⅷ ＡＢＣ are not normalised",
    "日本語と한국어와العربية",
    "x" * 10_000,
    "The ferry leaves the harbour at seven. " * 300,
]
BYTES = [b"\xff\xfe", b"\xc3", b"caf\xc3\xa9", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"a\x80b"]


@pytest.fixture(scope="module", params=["tiny", "gemma-3-270m"])
def path(request: pytest.FixtureRequest) -> str:
    if request.param == "tiny":
        return str(tiny.TOKENIZER)
    if not REAL_MODEL.is_file():
        pytest.skip("no checkpoints/gemma-3-270m: run scripts/fetch_gemma_3_270m.py")
    return str(REAL_MODEL)


@pytest.fixture(scope="module")
def ours(path: str) -> Tokenizer:
    return Tokenizer(path)


@pytest.fixture(scope="module")
def theirs(path: str) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=path)


@pytest.mark.parametrize("text", [*TEXTS, *BYTES], ids=lambda text: ascii(text[:20]))
def test_encode_and_decode_give_what_sentencepiece_gives(ours, theirs, text: str | bytes) -> None:
    ids = theirs.EncodeAsIds(text)
    assert ours.encode(text, bos=False) == ids
    assert ours.decode(ids) == theirs.DecodeIds(ids)


def test_random_text_is_encoded_as_sentencepiece_does(ours, theirs) -> None:
    draw = random.Random(0)
    ranges = [(0x20, 0x7F), (0x80, 0x800), (0x800, 0xD7FF), (0xE000, 0x10FFFF)]
    for _ in range(300):
        text = "".join(chr(draw.randint(*draw.choice(ranges))) for _ in range(draw.randint(1, 40)))
        ids = theirs.EncodeAsIds(text)
        assert ours.encode(text, bos=False) == ids
        assert ours.decode(ids) == theirs.DecodeIds(ids) == text


def test_random_ids_are_decoded_as_sentencepiece_does(ours, theirs) -> None:
    draw = random.Random(0)
    for _ in range(300):
        # Half of them from the first ids: control pieces, and bytes that make no UTF-8.
        ids = [draw.randrange(draw.choice([270, ours.n_words])) for _ in range(draw.randint(0, 30))]
        assert ours.decode(ids) == theirs.DecodeIds(ids)


def test_pieces_and_ids_are_those_of_sentencepiece(ours, theirs) -> None:
    assert ours.n_words == theirs.GetPieceSize()
    for id in [*range(300), ours.n_words - 1]:
        piece = theirs.IdToPiece(id)
        assert ours.id_to_piece(id) == piece
        assert ours.piece_to_id(piece) == theirs.PieceToId(piece)
    assert ours.piece_to_id("no such piece") == theirs.PieceToId("no such piece")


def test_a_lone_surrogate_is_a_type_error_as_in_sentencepiece(ours, theirs) -> None:
    for encode in (ours.encode, theirs.EncodeAsIds):
        with pytest.raises(TypeError):
            encode("a\ud800b")


@pytest.mark.parametrize("id", [-1, 10**6, 2**40])
def test_an_id_outside_the_vocabulary_is_an_index_error(ours, theirs, id: int) -> None:
    with pytest.raises(IndexError, match=f"id {id} is outside the vocabulary of {ours.n_words}"):
        ours.decode([5, id])


def test_bos_and_eos_are_put_around_on_request() -> None:
    tokenizer = Tokenizer(str(tiny.TOKENIZER))
    ids = tokenizer.encode("tea", bos=False)
    assert tokenizer.encode("tea") == [2, *ids]
    assert tokenizer.encode("tea", eos=True) == [2, *ids, 1]
    assert tokenizer.encode("tea", bos=False, eos=True) == [*ids, 1]


def test_a_missing_model_is_a_file_not_found_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.model: no such file"):
        Tokenizer(str(tmp_path / "nowhere.model"))


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(1000)])
def test_a_broken_model_is_a_runtime_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.model"
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match="broken.model: not a SentencePiece model"):
        Tokenizer(str(path))
