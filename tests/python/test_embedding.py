"""EmbeddingGemma against Gemma3TextModel of transformers, with the mean, the linear layers and the
norm that sentence-transformers puts behind it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_embedding
import torch
from gemma_libtorch.embedding import EmbeddingGemma
from test_convert import PROGRAM

NUMERICS = pytest.mark.parametrize("numerics", ["exact", "fast"])
# The window is 7 on each side; a block of the kernels 64.
LENGTHS = [1, 2, 7, 8, 15, 64, 65, 200, 256]
TEXTS = ["The ferry leaves at noon", "We", "", "a b c " * 20, "Mars is red."]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedding.save(tmp_path_factory.mktemp("embedding"))


def load(path: Path, numerics: str = "exact", **how: Any) -> EmbeddingGemma:
    return EmbeddingGemma.from_pretrained(path, numerics=numerics, **how)


def random_texts() -> list[list[int]]:
    return [tiny.random_ids((1, n), tiny.VOCAB_SIZE)[0].tolist() for n in LENGTHS]


def their_embeddings(
    path: Path, texts: list[list[int]], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model = transformers.AutoModel.from_pretrained(path, attn_implementation="eager", dtype=dtype)
    dense = [
        torch.load(folder / "pytorch_model.bin", weights_only=True)["linear.weight"].to(dtype)
        for folder in sorted(path.glob("*_Dense"))
    ]
    rows = []
    with torch.no_grad():
        for ids in texts:
            x = model(torch.tensor([ids])).last_hidden_state.sum(1) / len(ids)
            for weight in dense:
                x = torch.nn.functional.linear(x, weight)
            rows.append(torch.nn.functional.normalize(x.float(), dim=1))
    return torch.cat(rows)


def assert_near(got: torch.Tensor, want: torch.Tensor, distance: float = 1e-6) -> None:
    assert got.shape == want.shape and got.dtype == torch.float32
    cosines = (got.double() * want.double()).sum(1)
    assert (1 - cosines).abs().max() < distance
    torch.testing.assert_close(got, want, rtol=0, atol=distance * 10)


# --- numbers --------------------------------------------------------------------------------------


@NUMERICS
def test_embeddings_are_those_of_transformers(directory: Path, numerics: str) -> None:
    texts = random_texts()
    assert_near(load(directory, numerics).forward(texts), their_embeddings(directory, texts))


@NUMERICS
def test_the_published_window_looks_ahead_257_tokens(tmp_path: Path, numerics: str) -> None:
    path = tiny_embedding.save(tmp_path, sliding_window=512, max_position_embeddings=600)
    (path / "sentence_bert_config.json").unlink()
    texts = [tiny.random_ids((1, n), tiny.VOCAB_SIZE)[0].tolist() for n in (257, 258, 600)]
    model = load(path, numerics)
    assert model.text_config.sliding_window_size == 257
    assert_near(model.forward(texts), their_embeddings(path, texts))


def test_fast_numerics_follow_float32_with_weights_in_bfloat16(directory: Path) -> None:
    texts = random_texts()
    model = load(directory, "fast", dtype=torch.bfloat16)
    rounded = load(directory, dtype=torch.bfloat16).float()
    assert_near(model.forward(texts), rounded.forward(texts))


def test_exact_bfloat16_is_as_near_to_float32_as_that_of_transformers(directory: Path) -> None:
    texts = random_texts()
    want = their_embeddings(directory, texts)

    def distance(rows: torch.Tensor) -> torch.Tensor:
        return (1 - (rows.double() * want.double()).sum(1)).abs().mean()

    ours = load(directory, dtype=torch.bfloat16).forward(texts)
    assert distance(ours) < 1.5 * distance(their_embeddings(directory, texts, torch.bfloat16))
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(len(texts)))


@NUMERICS
def test_a_text_has_the_same_bits_in_any_batch(directory: Path, numerics: str) -> None:
    model = load(directory, numerics)
    texts = [*random_texts(), *random_texts()[::-1]] * 4  # More tokens than go together.
    together = model.forward(texts)
    assert torch.equal(together, torch.cat([model.forward([text]) for text in texts]))


def test_a_text_has_the_same_bits_with_any_number_of_threads(directory: Path) -> None:
    model, threads = load(directory, "fast"), torch.get_num_threads()
    results = []
    for count in (1, 2, 7):
        torch.set_num_threads(count)
        results.append(model.forward(random_texts()))
    torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


# --- texts ----------------------------------------------------------------------------------------


@NUMERICS
def test_a_text_is_bos_prompt_text_and_eos(directory: Path, numerics: str) -> None:
    model = load(directory, numerics)
    tokenizer = model.tokenizer
    for name, prompt in [(None, ""), *tiny_embedding.PROMPTS.items()]:
        ids = [tokenizer.encode(prompt + text, bos=True, eos=True) for text in TEXTS]
        assert [model.encode(text, prompt_name=name) for text in TEXTS] == ids
        assert torch.equal(model.embed(TEXTS, prompt_name=name), model.forward(ids))


def test_a_default_prompt_is_put_before_every_text(directory: Path, tmp_path: Path) -> None:
    path = tiny_embedding.save(tmp_path)
    file = path / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"default_prompt_name": "query"}))
    assert torch.equal(load(path).embed(TEXTS), load(directory).embed(TEXTS, prompt_name="query"))


@NUMERICS
def test_fewer_numbers_are_the_first_ones_at_length_one(directory: Path, numerics: str) -> None:
    model = load(directory, numerics)
    whole = model.embed(TEXTS)
    assert whole.shape == (len(TEXTS), model.dim) == (len(TEXTS), 20)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(len(TEXTS)))
    for dim in (1, 8, 20):
        short = model.embed(TEXTS, dim=dim)
        want = torch.nn.functional.normalize(whole[:, :dim], dim=1)
        torch.testing.assert_close(short, want)


def test_no_texts_are_no_rows(directory: Path) -> None:
    assert load(directory).embed([]).shape == (0, 20)


def test_what_cannot_be_embedded_is_refused(directory: Path) -> None:
    model = load(directory)
    long = "a b c " * 200
    with pytest.raises(ValueError, match=r"text 1 has \d+ tokens, but must have 1 to 256"):
        model.embed(["a", long])
    cut = model.encode(long, truncate=True)
    assert len(cut) == 256 and cut[-1] == model.tokenizer.eos_id
    assert cut[:-1] == model.encode(long)[:255]
    assert torch.equal(model.embed([long], truncate=True), model.forward([cut]))
    with pytest.raises(ValueError, match="prompt_name is 'quest', but must be one of document, qu"):
        model.embed(["a"], prompt_name="quest")
    for dim in (0, 21):
        with pytest.raises(ValueError, match=f"dim is {dim}, but must be 1 to 20"):
            model.embed(["a"], dim=dim)
    with pytest.raises(ValueError, match="text 0 has 0 tokens"):
        model.forward([[]])
    with pytest.raises(ValueError, match="text 0 has the token id 451, but ids are 0 to 450"):
        model.forward([[1, 451]])
    with pytest.raises(TypeError, match="texts is a str, but must be a list"):
        model.embed("a")


# --- files ----------------------------------------------------------------------------------------


BAD_FILES = {
    "a causal model": (
        "config.json",
        {"use_bidirectional_attention": False},
        "is that of Gemma, which is for",
    ),
    "another mean": ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "cls_token"),
    "new names": ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "pooling_mode"),
    "no prompts in it": ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt"),
    "a bias": ("2_Dense/config.json", {"bias": True}, "bias"),
    "other sizes": ("3_Dense/config.json", {"in_features": 41}, "in_features"),
    "an activation": (
        "3_Dense/config.json",
        {"activation_function": "torch.nn.modules.activation.Tanh"},
        "activation_function",
    ),
    "small letters": ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case"),
    "no such prompt": (
        "config_sentence_transformers.json",
        {"default_prompt_name": "quest"},
        "default_prompt_name is 'quest'",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_directory_of_another_model_is_refused(kind: str, tmp_path: Path) -> None:
    name, changes, message = BAD_FILES[kind]
    path = tiny_embedding.save(tmp_path)
    fields = json.loads((path / name).read_text()) | changes
    (path / name).write_text(json.dumps(fields))
    with pytest.raises(RuntimeError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda modules: modules[:-1], "those of an EmbeddingGemma are"),
        (lambda modules: modules[::-1], "those of an EmbeddingGemma are"),
        (lambda modules: {"modules": modules}, "it is not a list"),
        (lambda modules: [1], "not a list of modules"),
        (
            lambda modules: [*modules[:2], modules[2] | {"path": "../2_Dense"}, *modules[3:]],
            "must be a folder beside the file",
        ),
    ],
)
def test_modules_that_are_others_are_refused(edit: Any, message: str, tmp_path: Path) -> None:
    path = tiny_embedding.save(tmp_path) / "modules.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(RuntimeError, match=message):
        load(tmp_path)


def test_a_directory_without_modules_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="modules.json"):
        load(tmp_path)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    path = tiny_embedding.save(tmp_path)
    torch.save({"linear.weight": torch.zeros(3, 3)}, path / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(RuntimeError, match=r"'linear.weight' is \[3, 3\], but the model's is \[40"):
        load(path)


def test_a_bad_folder_leaves_the_weights_as_they_were(directory: Path, tmp_path: Path) -> None:
    model = load(directory)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = tiny_embedding.save(tmp_path)
    other = {name: tensor + 1 for name, tensor in torch.load(path / "pytorch_model.bin").items()}
    torch.save(other, path / "pytorch_model.bin")
    torch.save({"linear.weight": torch.zeros(3, 3)}, path / "3_Dense" / "pytorch_model.bin")
    with pytest.raises(RuntimeError, match="linear.weight"):
        model.load_weights(path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# --- the program ----------------------------------------------------------------------------------


def gemma(*arguments: Any, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, input=text, check=False
    )


def embed(directory: Path, *arguments: Any, text: str | None = None) -> str:
    done = gemma("embed", "--ckpt", directory, *arguments, text=text)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_program_writes_lines_that_read_back_as_the_same_numbers(directory: Path) -> None:
    want = load(directory, "fast").embed(["Mars is red.", "We"], dim=8, prompt_name="query")
    out = embed(directory, "Mars is red.", "We", "--dim", 8, "--prompt-name", "query")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["id"] for line in lines] == [0, 1]
    assert torch.equal(torch.tensor([line["embedding"] for line in lines]), want)
    exact = embed(directory, "Mars is red.", "--numerics", "exact", "--threads", 1)
    got = torch.tensor([json.loads(exact)["embedding"]])
    assert torch.equal(got, load(directory).embed(["Mars is red."]))


def test_the_program_reads_files_and_writes_arrays(directory: Path, tmp_path: Path) -> None:
    want = load(directory, "fast").embed(["Mars is red.", "Ça va ?"]).numpy()
    lines, rows = tmp_path / "texts.txt", tmp_path / "texts.jsonl"
    lines.write_text("Mars is red.\n\nÇa va ?\n", encoding="utf-8")
    objects = [{"id": "m", "text": "Mars is red."}, {"text": "Ça va ?"}]
    rows.write_text("\n".join(map(json.dumps, objects)))
    for file in (lines, rows):
        for name in ("out.npy", "out.safetensors", "out.jsonl"):
            embed(directory, "--file", file, "--output", tmp_path / name)
        assert np.array_equal(np.load(tmp_path / "out.npy"), want)
        safetensors = pytest.importorskip("safetensors.numpy", reason="no safetensors")
        stored = safetensors.load_file(tmp_path / "out.safetensors")
        assert list(stored) == ["embeddings"] and np.array_equal(stored["embeddings"], want)
        written = [json.loads(x) for x in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [x["id"] for x in written] == (["m", 1] if file == rows else [0, 1])
        got = np.array([x["embedding"] for x in written], np.float32)
        assert np.array_equal(got, want)
    assert embed(directory, "--file", "-", text="We\n") == embed(directory, "We")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either texts or --file"),
        (["a", "--output", "x.csv"], "--output x.csv: must end in .npy, .safetensors or .jsonl"),
        (["a", "--dim", 99], "dim is 99, but must be 1 to 20"),
        (["a", "--prompt-name", "x"], "prompt_name is 'x', but must be one of document, query"),
        (["a", "--numerics", "quick"], "quick"),
        (["a", "--threads", -1], "--threads is -1, but must be 1 or more"),
    ],
)
def test_the_program_refuses_in_one_line(
    directory: Path, arguments: list[Any], message: str
) -> None:
    done = gemma("embed", "--ckpt", directory, *arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": 1}', "line 2: must be an object"),
        ("[", "line 2: must be an object"),
        ('{"text": "a", "body": 1}', 'line 2: field "body" is unknown; fields: id, text'),
        ('{"text": "a", "id": 1.5}', "line 2: id must be a text or a whole number"),
    ],
)
def test_the_program_names_the_line_that_is_wrong(
    directory: Path, tmp_path: Path, line: str, message: str
) -> None:
    file, out = tmp_path / "texts.jsonl", tmp_path / "out.npy"
    file.write_text('{"text": "fine"}\n' + line)
    done = gemma("embed", "--ckpt", directory, "--file", file, "--output", out)
    assert done.returncode == 1 and f"{file}: {message}" in done.stderr
    assert not out.exists()


def test_info_shows_what_a_directory_is(directory: Path) -> None:
    done = gemma("info", directory)
    assert done.returncode == 0, done.stderr
    for part in ("family EmbeddingGemma", "dense_features             40, 20", "document, query"):
        assert part in done.stdout
    assert "(dense): ModuleList(" in done.stdout


def test_programs_that_continue_text_say_what_embeds(directory: Path) -> None:
    done = gemma("run", "--ckpt", directory, "--prompt", "a")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "EmbeddingGemma, which is for `gemma embed`" in done.stderr
