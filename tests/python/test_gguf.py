"""GGUF files against llama.cpp's own package: numbers bit for bit, and the tokenizer in them."""

from __future__ import annotations

import math
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tiny
import torch
from gemma_libtorch.tokenizer import Tokenizer
from test_program import PROGRAM, output_of

gguf = pytest.importorskip("gguf", reason="no gguf: pip install -r scripts/requirements-test.txt")

BLOCKS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"]
PLAIN = ["F32", "F16", "BF16"]
REAL_MODEL = tiny.ROOT / "checkpoints" / "gemma-3-270m"


def half_bytes(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).view(np.uint8).reshape(*values.shape, 2)


def random_blocks(name: str, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Any bits, but for the scales, which are numbers: 0, subnormal, negative and large ones too."""
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    blocks = rng.integers(0, 256, (rows * columns // block, size), dtype=np.uint8)
    scales = rng.normal(size=(len(blocks), 2)) * 10.0 ** rng.integers(-8, 4, (len(blocks), 2))
    scales[::7] = 0
    scales = half_bytes(scales)
    at = {"Q6_K": [208]}.get(name, [0, 2] if name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else [0])
    for i, offset in enumerate(at):
        blocks[:, offset : offset + 2] = scales[:, i]
    return blocks.reshape(rows, -1)


def write_tensors(path: Path, tensors: dict[str, tuple[np.ndarray, str]]) -> None:
    writer = gguf.GGUFWriter(path, "gemma3")
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_every_type_is_read_as_the_gguf_package_reads_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tensors = {}
    for i, kind in enumerate(BLOCKS):
        tensors[f"blk.{i}.ffn_up.weight"] = (random_blocks(kind, 48, 512, rng), kind)
    floats = rng.normal(size=(5, 512)).astype(np.float32)
    tensors["blk.9.ffn_up.weight"] = (floats, "F32")
    tensors["blk.10.ffn_up.weight"] = (floats.astype(np.float16), "F16")
    kind = gguf.GGMLQuantizationType.BF16
    tensors["blk.11.ffn_up.weight"] = (gguf.quantize(floats, kind), "BF16")
    tensors["token_embd.weight"] = (random_blocks("Q8_0", 48, 512, rng), "Q8_0")
    write_tensors(tmp_path / "in.gguf", tensors)

    # The file says nothing of its sizes, so that the variant has to.
    options = ("--dtype", "float32", "--variant", "270m")
    output_of("convert", tmp_path / "in.gguf", tmp_path / "out.ckpt", *options)

    read = torch.load(tmp_path / "out.ckpt", weights_only=True)["model_state_dict"]
    theirs = {t.name: t for t in gguf.GGUFReader(tmp_path / "in.gguf").tensors}
    assert len(read) == len(tensors)
    for i, kind in enumerate(BLOCKS + PLAIN):
        tensor = theirs[f"blk.{i}.ffn_up.weight"]
        want = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        got = read[f"model.layers.{i}.mlp.up_proj.weight"]
        assert torch.equal(got.view(torch.int32), want.view(torch.int32)), kind


def test_float64_is_read(tmp_path: Path) -> None:
    numbers = np.random.default_rng(1).normal(size=(5, 512))
    tensors = {"token_embd.weight": (numbers, "F64"), "blk.0.ffn_up.weight": (numbers + 1, "F64")}
    write_tensors(tmp_path / "in.gguf", tensors)
    output_of("convert", tmp_path / "in.gguf", tmp_path / "out.ckpt", "--variant", "270m")
    read = torch.load(tmp_path / "out.ckpt", weights_only=True)["model_state_dict"]
    assert torch.equal(read["embedder.weight"], torch.from_numpy(numbers))
    assert torch.equal(read["model.layers.0.mlp.up_proj.weight"], torch.from_numpy(numbers + 1))


def texts(count: int) -> list[str]:
    """Random ones: words, marks, blanks, all of Unicode, and markers in the middle."""
    rng = random.Random(5)
    words = (tiny.ROOT / "tests" / "data" / "pride_and_prejudice.txt").read_text().split()
    markers = ["<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "<unused7>", "<mask>",
               "[multimodal]", "<0x41>", "\u2581", "\n\n\n", "    ", "\t\t", "</s>", "<h1>", "</td>"]  # fmt: skip

    def part() -> str:
        kind = rng.randrange(6)
        if kind == 0:
            return " ".join(rng.choices(words, k=rng.randrange(1, 12)))
        if kind == 1:
            return rng.choice(markers)
        if kind == 2:
            return " " * rng.randrange(40)
        if kind == 3:
            codes = (rng.randrange(0x110000) for _ in range(rng.randrange(8)))
            return "".join(chr(c) for c in codes if not 0xD800 <= c < 0xE000)
        if kind == 4:
            return "".join(rng.choices("abc ABC012.,;!?-_/\\\"'(){}<>\n", k=rng.randrange(20)))
        return "".join(
            chr(rng.choice([0x4E00, 0x430, 0x5D0, 0xAC00]) + rng.randrange(32)) for _ in range(6)
        )

    return ["".join(part() for _ in range(rng.randrange(1, 9))) for _ in range(count)]


@pytest.mark.skipif(
    not (REAL_MODEL / "tokenizer.model").is_file(),
    reason="no checkpoints/gemma-3-270m: run scripts/fetch_gemma_3_270m.py",
)
def test_the_vocabulary_of_a_gguf_file_cuts_text_as_tokenizer_model_does(tmp_path: Path) -> None:
    original = sentencepiece.SentencePieceProcessor(model_file=str(REAL_MODEL / "tokenizer.model"))
    write_vocabulary(tmp_path / "vocabulary.gguf", original)
    ours = Tokenizer(str(tmp_path / "vocabulary.gguf"))
    assert ours.n_words == original.get_piece_size()
    for text in texts(500):
        ids = original.encode(text)
        assert ours.encode(text, bos=False) == ids, text
        assert ours.decode(ids) == original.decode(ids), text


def test_the_tokenizer_of_a_gguf_file_comes_along(tmp_path: Path) -> None:
    original = sentencepiece.SentencePieceProcessor(model_file=str(tiny.TOKENIZER))
    (tmp_path / "in").mkdir()
    write_vocabulary(tmp_path / "in" / "x.gguf", original, with_embedding=True)
    source = tmp_path / "in" / "x.gguf"  # It says nothing of the model's sizes.
    output_of("convert", source, tmp_path / "x.ckpt", "--variant", "270m")
    copy = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert copy.get_piece_size() == original.get_piece_size()
    for text in ["It is a truth, universally  acknowledged", "<start_of_turn>a<eos>", "\u4e00\n"]:
        assert copy.encode(text) == original.encode(text), text


@pytest.fixture(scope="module", params=["tiny", "gemma-3-270m"])
def model(request: pytest.FixtureRequest) -> sentencepiece.SentencePieceProcessor:
    path = tiny.TOKENIZER if request.param == "tiny" else REAL_MODEL / "tokenizer.model"
    if not path.is_file():
        pytest.skip("no checkpoints/gemma-3-270m: run scripts/fetch_gemma_3_270m.py")
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


Types = list[gguf.TokenType]


def turns_normal(texts: list[str], types: Types) -> Types:  # Unsloth
    turns = ("<start_of_turn>", "<end_of_turn>")
    return [gguf.TokenType.NORMAL if text in turns else t for text, t in zip(texts, types)]


def marks_normal(texts: list[str], types: Types) -> Types:  # Ollama
    normal = gguf.TokenType.NORMAL
    return [normal if t == gguf.TokenType.USER_DEFINED else t for t in types]


def all_normal(texts: list[str], types: Types) -> Types:
    return [gguf.TokenType.NORMAL] * len(types)


def bytes_user_defined(texts: list[str], types: Types) -> Types:
    return [gguf.TokenType.USER_DEFINED if t == gguf.TokenType.BYTE else t for t in types]


@pytest.mark.parametrize("score", [-1000.0, 0.0])
@pytest.mark.parametrize("change", [turns_normal, marks_normal, all_normal, bytes_user_defined])
def test_wrong_types_of_tokens_are_mended(model, tmp_path: Path, change, score: float) -> None:
    write_vocabulary(tmp_path / "x.gguf", model, change=change, score=score)
    ours = Tokenizer(str(tmp_path / "x.gguf"))
    for text in [*texts(150), "<start_of_turn>user\nHi\n\n\nthere <b>x</b><end_of_turn>\n"]:
        assert ours.encode(text, bos=False) == model.encode(text), text


REFUSED = {
    "add_bos_token": (False, "'tokenizer.ggml.add_bos_token' is false, but true for a Gemma"),
    "add_eos_token": (True, "'tokenizer.ggml.add_eos_token' is true, but false"),
    "add_space_prefix": (True, "'tokenizer.ggml.add_space_prefix' is true"),
    "remove_extra_whitespaces": (True, "'tokenizer.ggml.remove_extra_whitespaces' is true"),
    "bos_token_id": (1, "'tokenizer.ggml.bos_token_id' is 1, but 2"),
    "unknown_token_id": (0, "'tokenizer.ggml.unknown_token_id' is 0, but 3"),
    "precompiled_charsmap": ([1, 2], "'tokenizer.ggml.precompiled_charsmap' is set"),
    "normalizer": ("nfkc", "'tokenizer.ggml.normalizer' is set, which no Gemma has"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_keys_that_cut_text_otherwise_are_refused(tmp_path: Path, name: str) -> None:
    value, expected = REFUSED[name]
    original = sentencepiece.SentencePieceProcessor(model_file=str(tiny.TOKENIZER))
    path = tmp_path / "x.gguf"
    write_vocabulary(path, original, keys={f"tokenizer.ggml.{name}": value})
    with pytest.raises(RuntimeError) as error:
        Tokenizer(str(path))
    assert str(error.value).startswith(f"Tokenizer: {path}: key ")
    assert expected in str(error.value) and "--tokenizer" in str(error.value)


def test_keys_that_change_nothing_are_taken(tmp_path: Path) -> None:
    original = sentencepiece.SentencePieceProcessor(model_file=str(tiny.TOKENIZER))
    keys = {"add_bos_token": True, "add_space_prefix": False, "merges": ["a b"],
            "bos_token_id": 2, "eos_token_id": 5, "padding_token_id": 3, "fim_pre_token_id": 7,
            "pre": "gemma", "x": False}  # fmt: skip
    keys = {f"tokenizer.ggml.{name}": value for name, value in keys.items()}
    keys["tokenizer.chat_template"] = "{{ messages }}"
    write_vocabulary(tmp_path / "x.gguf", original, keys=keys)
    ours = Tokenizer(str(tmp_path / "x.gguf"))
    assert ours.encode("The ferry", bos=False) == original.encode("The ferry")


def test_scores_that_are_no_vocabularys_are_refused(tmp_path: Path) -> None:
    original = sentencepiece.SentencePieceProcessor(model_file=str(tiny.TOKENIZER))
    write_vocabulary(tmp_path / "x.gguf", original, scale=0)
    with pytest.raises(RuntimeError, match="the scores of its normal tokens .* do not fall"):
        Tokenizer(str(tmp_path / "x.gguf"))


def write_vocabulary(
    path: Path,
    pieces: sentencepiece.SentencePieceProcessor,
    with_embedding: bool = False,
    change: Callable[[list[str], Types], Types] = lambda texts, types: types,
    score: float = -1000.0,
    scale: float = 1,
    keys: dict[str, Any] | None = None,
) -> None:
    """As llama.cpp's converter does: markers are control tokens, and blanks are spelt as blanks.

    `score` is that of tokens that have none.
    """
    tokens, scores, types = [], [], []
    for i in range(pieces.get_piece_size()):
        text, given = pieces.id_to_piece(i), pieces.get_score(i)
        kind = gguf.TokenType.NORMAL
        if pieces.is_byte(i):
            kind = gguf.TokenType.BYTE
        elif math.copysign(1, given) > 0:  # The first of the merged pieces has -0.
            is_marker = i < 4 or (text.startswith("<") and text.endswith(">"))
            kind = gguf.TokenType.CONTROL if is_marker else gguf.TokenType.USER_DEFINED
            text, given = text.replace("\u2581", " "), score
        tokens.append(text)
        scores.append(given * scale)
        types.append(kind)
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(change(tokens, types))
    for key, value in (keys or {}).items():
        writer.add_key_value(key, value, *value_types(value))
    if with_embedding:
        writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def value_types(value: Any) -> list[gguf.GGUFValueType]:
    if isinstance(value, list):
        return [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.get_type(value[0])]
    return [gguf.GGUFValueType.get_type(value)]


@pytest.mark.parametrize("name", ["info", "run"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + bytes(4))
    arguments = ["info", path] if name == "info" else ["run", "--ckpt", path]
    result = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"{path}: number of tensors would take bytes 8+8 of 12" in result.stderr
