"""Tokenizers of Hugging Face: read, with the tokens that fine-tunes add, and written.

The oracles are transformers' own tokenizer and the sentencepiece package.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import sentencepiece
import test_transformers as oracle
import tiny
import torch
from gemma_libtorch.tokenizer import Tokenizer
from test_convert import PROGRAM, convert
from test_gguf import texts

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

REAL_MODEL = tiny.ROOT / "checkpoints" / "gemma-3-270m" / "tokenizer.model"
BEFORE_ALL = 4  # As sentencepiece_model.proto numbers USER_DEFINED.


def added_token(text: str, **flags: bool) -> Any:
    return transformers.AddedToken(text, **{"normalized": False, **flags})


def their_tokenizer(model: Path) -> Any:
    """What transformers makes of a tokenizer.model; by itself it wants the protobuf package."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ids = range(pieces.get_piece_size())
    vocabulary = {pieces.id_to_piece(id): id for id in ids}
    merges = transformers.tokenization_utils_base.generate_merges(vocabulary)
    names = ["pad_token", "eos_token", "bos_token", "unk_token"]
    special = {name: pieces.id_to_piece(id) for id, name in enumerate(names)}
    theirs = transformers.GemmaTokenizer(
        vocab=vocabulary, merges=merges, mask_token=None, add_bos_token=True, **special
    )
    first = [id for id in ids if id > 3 and not pieces.is_byte(id)]
    first = [id for id in first if math.copysign(1, pieces.get_score(id)) > 0]
    theirs.add_tokens([added_token(pieces.id_to_piece(id)) for id in first])
    assert len(theirs) == pieces.get_piece_size()
    return theirs


@pytest.fixture(scope="module", params=["tiny", "gemma-3-270m"])
def model(request: pytest.FixtureRequest) -> Path:
    if request.param == "tiny":
        return tiny.TOKENIZER
    if not REAL_MODEL.is_file():
        pytest.skip("no checkpoints/gemma-3-270m: run scripts/fetch_gemma_3_270m.py")
    return REAL_MODEL


@pytest.fixture(scope="module")
def directory(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As transformers saves a tokenizer: tokenizer.json, and no tokenizer.model."""
    path = tmp_path_factory.mktemp("saved")
    their_tokenizer(model).save_pretrained(path)
    assert not (path / "tokenizer.model").exists()
    return path


# --- tokenizer.json alone -------------------------------------------------------------------------


def test_tokenizer_json_cuts_text_as_tokenizer_model_does(model: Path, directory: Path) -> None:
    original = sentencepiece.SentencePieceProcessor(model_file=str(model))
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    ours = Tokenizer(str(directory / "tokenizer.json"))
    assert ours.n_words == original.get_piece_size()
    # Where theirs is not the original: it takes <bos> in a text for the token, and cuts runs of
    # blanks above the longest piece otherwise.
    run = 2 if model == tiny.TOKENIZER else 31
    other = [*(original.id_to_piece(id) for id in range(4)), "\u2581", " " * (run + 1)]
    compared = 0
    for text in texts(3000):
        ids = ours.encode(text)
        assert ids == [2, *original.encode(text)], text
        assert ours.decode(ids) == original.decode(ids), text
        if not any(part in text for part in other):
            assert ids == theirs(text).input_ids, text
            compared += 1
    assert compared > 500


def add(directory: Path, target: Path, tokens: list[str], **flags: bool) -> Any:
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    theirs.add_tokens([added_token(token, **flags) for token in tokens])
    theirs.save_pretrained(target)
    return theirs


TOKENS = ["<tool_call>", "</tool_call>", "<think>"]


@pytest.mark.parametrize("flags", [{"special": True}, {"normalized": True}], ids=str)
@pytest.mark.parametrize("with_model", [True, False])
def test_added_tokens_are_tokens(
    model: Path, directory: Path, tmp_path: Path, with_model: bool, flags: dict[str, bool]
) -> None:
    theirs = add(directory, tmp_path, TOKENS, **flags)
    path = tmp_path / "tokenizer.json"
    if with_model:
        path = Path(shutil.copy(model, tmp_path / "tokenizer.model"))
    ours = Tokenizer(str(path))
    text = "a <tool_call>b</tool_call>\n\n<think> c"
    ids = ours.encode(text)
    assert ids == theirs(text).input_ids
    assert ours.decode(ids) == text
    assert ours.n_words == len(theirs)


@pytest.mark.parametrize("name", ["added_tokens.json", "tokenizer_config.json"])
def test_files_of_old_releases_add_tokens_to_tokenizer_model(tmp_path: Path, name: str) -> None:
    path = shutil.copy(tiny.TOKENIZER, tmp_path / "tokenizer.model")
    first = tiny.VOCAB_SIZE
    tokens = {token: first + i for i, token in enumerate(TOKENS)}
    content: dict[str, Any] = tokens
    if name == "tokenizer_config.json":
        decoder = {str(id): {"content": token, "lstrip": False} for token, id in tokens.items()}
        decoder["4"] = {"content": "<start_of_turn>", "special": True}
        content = {"added_tokens_decoder": decoder, "add_bos_token": True}
    (tmp_path / name).write_text(json.dumps(content))
    ours = Tokenizer(str(path))
    assert ours.encode("<think></tool_call>", bos=False) == [first + 2, first + 1]
    assert ours.decode([2, first, 1]) == "<tool_call>"


def refusal(tmp_path: Path) -> str:
    with pytest.raises(RuntimeError) as error:
        Tokenizer(str(tmp_path / "tokenizer.model"))
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"<a>": 452}', "has a token 452 ('<a>'), but none for 451"),
        ('{"<a>": 7}', "token 7 is '<a>', but '\\x0a\\x0a' in the vocabulary"),
        ('{"<a>": "x"}', "has a token whose id is no number"),
        ('{"<a>": -1}', "has a token whose id is no number"),
        ('{"<a>": {"b": 1}}', "is not an object of ids"),
        ("[" * 1000, "it is nested more than 32 deep"),
        ('{"a', "it is not JSON (at byte"),
        ('{"a\\u0000b": 451}', "piece 451 has a NUL in it"),
        ('{"▁the": 451}', "the pieces make no SentencePiece model"),
    ],
)
def test_added_tokens_that_do_not_fit_are_refused(
    tmp_path: Path, content: str, expected: str
) -> None:
    shutil.copy(tiny.TOKENIZER, tmp_path / "tokenizer.model")
    (tmp_path / "added_tokens.json").write_text(content)
    message = refusal(tmp_path)
    assert expected in message
    assert str(tmp_path) in message


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    shutil.copy(tiny.TOKENIZER, tmp_path / "tokenizer.model")
    (tmp_path / "added_tokens.json").write_text('{"<a>": 451}')
    decoder = {"added_tokens_decoder": {"451": {"content": "<b>"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(decoder))
    assert "token 451 is '<b>', but '<a>' in " in refusal(tmp_path)
    decoder = {"added_tokens_decoder": {"451": {"content": "<a>", "lstrip": True}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(decoder))
    (tmp_path / "added_tokens.json").unlink()
    assert "token 451 ('<a>') takes blanks beside it" in refusal(tmp_path)


def without(content: dict[str, Any], *keys: str) -> None:
    for key in keys[:-1]:
        content = content[key]
    del content[keys[-1]]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["model"].update(type="Unigram"), "'model.type' is \"Unigram\", which is not"),
        (lambda c: c["model"].update(dropout=0.1), "'model.dropout' is 0.1"),
        (lambda c: without(c, "model", "byte_fallback"), "does not say 'model.byte_fallback'"),
        (lambda c: c.update(normalizer=None), "does not say 'normalizer.type'"),
        (lambda c: c.update(normalizer={"type": "NFKC"}), "'normalizer.type' is \"NFKC\""),
        (lambda c: c.update(pre_tokenizer={"type": "ByteLevel"}), "'pre_tokenizer.type' is"),
        (lambda c: c["decoder"]["decoders"].append({"type": "Strip"}), "is \"Strip\""),
        (lambda c: c["model"]["merges"].pop(), "lists 132 of the 133 merges"),
        (lambda c: c["model"]["merges"].append("a b c"), "has a merge 'a b c'"),
        (lambda c: c["model"]["merges"].append(["a"]), "has a merge of one token"),
        (lambda c: c["model"]["vocab"].update(x=10**9), "their ids are not 0 to"),
        (lambda c: c["model"]["vocab"].update(x=5), "their ids are not 0 to"),
        (lambda c: without(c, "model", "vocab", "<0xFF>"), "their ids are not 0 to"),
    ],
)
def test_tokenizers_of_another_kind_are_refused(
    tmp_path: Path, change: Any, expected: str
) -> None:
    their_tokenizer(tiny.TOKENIZER).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RuntimeError) as error:
        Tokenizer(str(path))
    message = str(error.value)
    assert message.startswith(f"Tokenizer: {path}: ")
    assert expected in message
    assert "\n" not in message


def test_merges_in_one_string_are_those_in_pairs(tmp_path: Path) -> None:
    their_tokenizer(tiny.TOKENIZER).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    want = [Tokenizer(str(path)).encode(text) for text in texts(50)]
    content = json.loads(path.read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    path.write_text(json.dumps(content))
    assert [Tokenizer(str(path)).encode(text) for text in texts(50)] == want


# --- models with added tokens ---------------------------------------------------------------------


def run(path: Path, prompt: str, output_len: int = 1) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, "run", "--ckpt", path, "--prompt", prompt, "--greedy"]
    command += ["--output_len", str(output_len)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def fine_tune(tmp_path: Path, rows: int, pieces: int, tokens: list[str]) -> Path:
    """A model of transformers that answers "Hi" with the last of `tokens`, which were added."""
    shape = {"num_hidden_layers": 2, "hidden_size": 32, "head_dim": 16, "intermediate_size": 48}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    config = transformers.Gemma3TextConfig(vocab_size=rows, query_pre_attn_scalar=16, **shape)
    torch.manual_seed(0)
    theirs = transformers.Gemma3ForCausalLM(config).eval()
    for parameter in theirs.parameters():
        parameter.data.normal_(0, 0.15)
    path = tmp_path / "model"
    path.mkdir()
    large_tokenizer(path / "tokenizer.model", pieces)
    (path / "added_tokens.json").write_text(
        json.dumps({token: pieces + i for i, token in enumerate(tokens)})
    )
    ids = [2, *Tokenizer(str(path / "tokenizer.model")).encode("Hi", bos=False)]
    with torch.no_grad():
        hidden = theirs.model(torch.tensor([ids])).last_hidden_state[0, -1]
        last = pieces + len(tokens) - 1
        theirs.get_input_embeddings().weight[last] = hidden / hidden.norm() * 40
    theirs.save_pretrained(path)
    return path


def large_tokenizer(path: Path, pieces: int) -> None:
    """The tiny one with as many pieces."""
    with path.open("wb") as file:
        file.write(tiny.TOKENIZER.read_bytes())
        for i in range(tiny.VOCAB_SIZE, pieces):
            text = f"<unused{i}>".encode()
            piece = bytes([0x0A, len(text)]) + text + bytes([0x18, 5])
            file.write(bytes([0x0A, len(piece)]) + piece)


@pytest.mark.parametrize(
    ("rows", "pieces"),
    [(262147, 262144), (262208, 262144), (256064, 256000), (tiny.VOCAB_SIZE + 3, tiny.VOCAB_SIZE)],
)
def test_a_fine_tune_answers_with_its_own_tokens(tmp_path: Path, rows: int, pieces: int) -> None:
    path = fine_tune(tmp_path, rows, pieces, TOKENS)
    config = gemma_libtorch.config.GemmaConfig.from_pretrained(path)
    assert config.vocab_size == pieces + 3
    model = gemma_libtorch.model.GemmaForCausalLM(config)
    assert model.load_weights(path).missing == []
    answered = run(path, "Hi")
    assert answered.returncode == 0, answered.stderr
    assert "<think>" in answered.stdout
    for to, name in (("ckpt", "out/model.ckpt"), ("hf", "hf")):
        (tmp_path / "out").mkdir(exist_ok=True)
        convert(path, tmp_path / name, "--to", to)
        again = run(tmp_path / name, "Hi")
        assert again.returncode == 0, again.stderr
        assert "<think>" in again.stdout


def test_texts_end_with_the_tokens_that_a_directory_names(tmp_path: Path) -> None:
    path = fine_tune(tmp_path, tiny.VOCAB_SIZE + 3, tiny.VOCAB_SIZE, TOKENS)
    assert "<think>" in run(path, "Hi").stdout
    last = tiny.VOCAB_SIZE + 2
    for name, ends in (("generation_config.json", [1, last]), ("config.json", last)):
        before = (path / name).read_text()
        (path / name).write_text(json.dumps(json.loads(before) | {"eos_token_id": ends}))
        assert run(path, "Hi", output_len=3).stdout.strip() == "", name
        (path / name).write_text(before)
    (path / "generation_config.json").write_text('{"eos_token_id": "x"}')
    refused = run(path, "Hi")
    assert refused.returncode == 1
    assert "'eos_token_id' is \"x\", not a token's number" in refused.stderr


def test_what_a_gguf_file_says_of_chats_and_ends_comes_along(tmp_path: Path) -> None:
    path = fine_tune(tmp_path, tiny.VOCAB_SIZE + 3, tiny.VOCAB_SIZE, TOKENS)
    convert(path, tmp_path / "plain.gguf", "--to", "gguf")
    assert "<think>" in run(tmp_path / "plain.gguf", "Hi").stdout
    last = tiny.VOCAB_SIZE + 2
    template = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}"
    with_keys(
        tmp_path / "plain.gguf",
        tmp_path / "chat.gguf",
        {"tokenizer.chat_template": template, "tokenizer.ggml.eot_token_id": last},
    )
    assert run(tmp_path / "chat.gguf", "Hi", output_len=3).stdout.strip() == ""
    convert(tmp_path / "chat.gguf", tmp_path / "hf", "--to", "hf")
    assert (tmp_path / "hf" / "chat_template.jinja").read_text() == template
    generation = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [1, 5, last]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert theirs("<think>").input_ids == [2, last]
    chat = theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat == "<s>Hi"


def with_keys(source: Path, target: Path, keys: dict[str, Any]) -> None:
    """A copy of a GGUF file with other values of some keys."""
    gguf = pytest.importorskip("gguf", reason="no gguf")
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "gemma3")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture" or name in keys:
            continue
        sub_type = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type)
    for name, value in keys.items():
        is_text = isinstance(value, str)
        kind = gguf.GGUFValueType.STRING if is_text else gguf.GGUFValueType.UINT32
        writer.add_key_value(name, value, kind)
    for tensor in reader.tensors:
        writer.add_tensor(
            tensor.name, tensor.data, raw_shape=tensor.data.shape, raw_dtype=tensor.tensor_type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_published_padding_stands_for_no_token(tmp_path: Path) -> None:
    path = fine_tune(tmp_path, 262208, 262144, ["<image_soft_token>"])
    assert gemma_libtorch.config.GemmaConfig.from_pretrained(path).vocab_size == 262144
    assert run(path, "Hi").returncode == 0


@pytest.mark.parametrize(("rows", "pieces"), [(512, tiny.VOCAB_SIZE), (400, tiny.VOCAB_SIZE)])
def test_rows_without_a_token_are_refused_before_the_weights_are_loaded(
    tmp_path: Path, rows: int, pieces: int
) -> None:
    path = fine_tune(tmp_path, rows + 8, pieces, []) if rows > pieces else tmp_path / "model"
    if rows < pieces:
        path = fine_tune(tmp_path, pieces, pieces, [])
        config = json.loads((path / "config.json").read_text()) | {"vocab_size": rows}
        (path / "config.json").write_text(json.dumps(config))
    refused = run(path, "Hi")
    assert refused.returncode == 1
    assert refused.stdout.strip() == ""
    assert f"has {pieces} tokens, but the model's embedding" in refused.stderr
    assert "--tokenizer" in refused.stderr


# --- writing --------------------------------------------------------------------------------------


def test_transformers_cuts_text_as_we_do_with_what_we_write(model: Path, tmp_path: Path) -> None:
    original = sentencepiece.SentencePieceProcessor(model_file=str(model))
    size = original.get_piece_size()
    fields = {**tiny.CONFIGS["gemma3"], "num_hidden_layers": 1, "vocab_size": size}
    write_ckpt(tmp_path / "in", fields, model)
    convert(tmp_path / "in" / "model.ckpt", tmp_path / "hf", "--to", "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert len(theirs) == size
    assert type(theirs).__name__ == "GemmaTokenizer"
    for text in texts(2000):
        if any(marker in text for marker in ("<bos>", "<eos>", "<pad>", "<unk>", "</s>")):
            continue
        assert theirs(text).input_ids == [2, *original.encode(text)], text


def write_ckpt(directory: Path, fields: dict[str, Any], tokenizer: Path) -> None:
    directory.mkdir()
    ours = tiny.make_model(gemma_libtorch, {**fields, "tokenizer": str(tokenizer)}, "float32")
    torch.save(
        {"model_state_dict": dict(ours.named_parameters()), "config.json": ours.config.to_hf()},
        directory / "model.ckpt",
    )
    shutil.copy(tokenizer, directory / "tokenizer.model")


def test_transformers_continues_as_the_program_does(tmp_path: Path) -> None:
    write_ckpt(tmp_path / "in", oracle.CONFIGS["gemma3"], tiny.TOKENIZER)
    convert(tmp_path / "in" / "model.ckpt", tmp_path / "hf", "--to", "hf")
    prompt = "It is a truth"
    ours = run(tmp_path / "in" / "model.ckpt", prompt, output_len=12)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    ids = theirs(prompt, return_tensors="pt")
    assert ids.input_ids[0, 0] == 2
    out = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids.input_ids.shape[1] :]
    got = theirs.decode(out, skip_special_tokens=True)
    assert ours.returncode == 0, ours.stderr
    assert got.strip() == ours.stdout.strip()
    assert model.generation_config.eos_token_id == [1, 5]


def test_what_a_directory_has_comes_along(tmp_path: Path) -> None:
    write_ckpt(tmp_path / "in", oracle.CONFIGS["gemma3"], tiny.TOKENIZER)
    their_tokenizer(tiny.TOKENIZER).save_pretrained(tmp_path / "in")
    names = ["special_tokens_map.json", "generation_config.json", "chat_template.jinja"]
    names += ["chat_template.json", "preprocessor_config.json", "processor_config.json"]
    names += ["tokenizer.json", "tokenizer_config.json"]
    for name in names[:-2]:
        (tmp_path / "in" / name).write_text(json.dumps({"eos_token_id": 1, "name": name}))
    convert(tmp_path / "in" / "model.ckpt", tmp_path / "hf", "--to", "hf")
    for name in names:
        assert (tmp_path / "hf" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()
