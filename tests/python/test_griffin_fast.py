"""RecurrentGemma with fast numerics: on an engine, and by the program, against the exact network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch as safetensors
import tiny
import tiny_griffin
import torch
from gemma_libtorch import recurrentgemma
from gemma_libtorch.engine import Engine, Request
from test_chat import chat
from test_griffin_files import HF_CONFIG
from test_program import TEXT, output_of, run

NAMES = list(tiny_griffin.CONFIGS)
PROMPT = "The ferry leaves at noon, and we"  # Longer than the windows.


def make(name: str, dtype: str = "float32") -> Any:
    fields = {**tiny_griffin.CONFIGS[name], "vocab_size": tiny.VOCAB_SIZE}
    model = tiny_griffin.make(recurrentgemma, fields, dtype)
    model.set_tokenizer(tiny.TOKENIZER)
    return model


def exact_log_probs(model: Any, tokens: list[int]) -> torch.Tensor:
    model.set_numerics("exact")
    logits = model(torch.tensor([tokens]), torch.arange(len(tokens))[None])[0][0]
    model.set_numerics("fast")
    return logits.float().log_softmax(-1)


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> Any:
    model = make(request.param)
    model.set_numerics("fast")
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What save_pretrained of transformers writes, and a tokenizer."""
    model = make("griffin")
    state = {
        name: value.contiguous()
        for name, value in model.to_transformers_state_dict().items()
        if name != "lm_head.weight"
    }
    safetensors.save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(HF_CONFIG))
    (tmp_path / "tokenizer.model").write_bytes(tiny.TOKENIZER.read_bytes())
    return tmp_path


# --- on an engine ---------------------------------------------------------------------------------


def test_an_engine_expects_what_the_exact_network_does(model: Any) -> None:
    engine = Engine(model, kv_dtype="float32")
    session = engine.session()
    session.feed(PROMPT)
    prompt = session.tokens
    tokens = list(session.generate(max_tokens=20, temperature=0.0, logprobs=3))
    assert len(tokens) == 20
    want = exact_log_probs(model, session.tokens)
    for i, token in enumerate(tokens):
        expected = want[len(prompt) + i - 1]
        assert token.id == expected.argmax()
        for id_, logprob in token.top:
            assert math.isclose(logprob, expected[id_], abs_tol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_16_bits_count_as_they_are(dtype: str) -> None:
    model, wide = make("griffin", dtype), make("griffin", dtype).to(torch.float32)
    model.set_numerics("fast")
    session = Engine(model, kv_dtype="float32").session()
    session.feed(PROMPT)
    prompt = len(session.tokens)
    (token,) = session.generate(max_tokens=1, temperature=0.0, logprobs=5)
    want = exact_log_probs(wide, session.tokens)[prompt - 1]
    assert all(math.isclose(value, want[id_], abs_tol=1e-4) for id_, value in token.top)


def test_a_batch_says_what_each_text_says_alone(model: Any) -> None:
    engine = Engine(model, max_batch=4)
    prompts = [PROMPT, "We", "a b c d e f g h", "The ferry", PROMPT + PROMPT]
    options = {"max_tokens": 15, "logprobs": 0}
    requests = [Request(text, seed=i, **options) for i, text in enumerate(prompts)]
    together = engine.generate(requests)
    for request, answer in zip(requests, together, strict=True):
        (alone,) = engine.generate([request])
        assert [(t.id, t.logprob) for t in alone.tokens] == [
            (t.id, t.logprob) for t in answer.tokens
        ]


def test_a_session_forks_forgets_and_is_saved(model: Any, tmp_path: Path) -> None:
    engine = Engine(model)
    session = engine.session()
    session.feed(PROMPT)
    fed = len(session.tokens)
    first = [token.id for token in session.generate(max_tokens=10, seed=1)]
    fork = session.fork()
    path = tmp_path / "a.session"
    session.save(path)
    other = make_like(model)
    loaded = Engine(other).load_session(path)
    want = [token.id for token in session.generate(max_tokens=10, seed=2)]
    assert [token.id for token in fork.generate(max_tokens=10, seed=2)] == want
    generation = loaded.generate(max_tokens=10, seed=2)
    assert [token.id for token in generation] == want
    assert generation.cached_tokens == fed + len(first) - 1
    # What is forgotten is of no use: the rest goes through the model again.
    session.truncate(fed)
    generation = session.generate(max_tokens=10, seed=1)
    assert [token.id for token in generation] == first and generation.cached_tokens == 0


def make_like(model: Any) -> Any:
    other = recurrentgemma.Griffin(model.config)
    other.load_state_dict(model.state_dict())
    other.set_tokenizer(tiny.TOKENIZER)
    other.set_numerics("fast")
    return other


def test_a_session_of_another_model_is_refused(tmp_path: Path) -> None:
    model, other = make("griffin"), make("griffin")
    tiny_griffin.randomize(other, seed=2)
    session = Engine(model).session()
    session.feed(PROMPT)
    list(session.generate(max_tokens=2))
    session.save(tmp_path / "a.session")
    with pytest.raises(RuntimeError, match="saved from a model with other weights"):
        Engine(other).load_session(tmp_path / "a.session")


def test_memory_does_not_grow_with_the_text() -> None:
    model = make("griffin")
    model.set_numerics("fast")
    engine = Engine(model, max_batch=1, chunk=64)
    held = []
    for length in (200, 5000):
        session = engine.session()
        session.feed([3 + i % 400 for i in range(length)])
        list(session.generate(max_tokens=3, temperature=0.0))
        held.append(engine.status.kv_bytes - engine.status.kv_bytes_free)
        del session
    assert held[1] <= held[0]


def test_weights_are_their_own_whatever_the_numerics(model: Any) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for numerics in ("exact", "fast", "exact"):
        model.set_numerics(numerics)
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]), name
    assert all(value.is_contiguous() for value in model.state_dict().values())


def test_the_dense_forward_is_exact_only(model: Any) -> None:
    with pytest.raises(RuntimeError, match=r"Griffin: forward has exact numerics alone"):
        model(torch.tensor([[1, 2]]), torch.tensor([[0, 1]]))


def test_a_model_without_a_tokenizer_is_refused() -> None:
    config = tiny_griffin.make_config(recurrentgemma, tiny_griffin.CONFIGS["hawk"])
    model = recurrentgemma.Griffin(config)
    with pytest.raises(RuntimeError, match="Griffin: no tokenizer"):
        Engine(model)
    with pytest.raises(FileNotFoundError):
        model.set_tokenizer("nowhere.model")


def test_a_tokenizer_stays(model: Any) -> None:
    assert model.tokenizer.n_words == tiny.VOCAB_SIZE
    with pytest.raises(RuntimeError, match="set_tokenizer: the model has a tokenizer"):
        model.set_tokenizer(tiny.TOKENIZER)


# --- the program ----------------------------------------------------------------------------------


def greedy(folder: Path, prompt: str, count: int) -> tuple[list[int], str, torch.Tensor]:
    """Tokens, text and log-probabilities after the prompt of the exact network."""
    model = make("griffin")
    tokens = model.tokenizer.encode(prompt)
    start = len(tokens)
    for _ in range(count):
        tokens.append(int(exact_log_probs(model, tokens)[-1].argmax()))
    return tokens[start:], model.tokenizer.decode(tokens[start:]), exact_log_probs(model, tokens)


def test_run_continues_a_prompt(folder: Path) -> None:
    _, text, _ = greedy(folder, PROMPT, 8)
    got = output_of("run", "--ckpt", folder, "--prompt", PROMPT, "--output_len", "8", "--greedy")
    assert got.strip() == text.strip()


def test_run_draws_by_its_seed(folder: Path) -> None:
    arguments = ["run", "--ckpt", folder, "--prompt", PROMPT, "--output_len", "20", "--seed"]
    assert output_of(*arguments, "1") == output_of(*arguments, "1")
    assert output_of(*arguments, "1") != output_of(*arguments, "2")


def test_run_continues_many(folder: Path, tmp_path: Path) -> None:
    prompts = [PROMPT, "We", "The ferry"]
    lines = [json.dumps({"prompt": text}) for text in prompts]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out.jsonl"
    flags = ["--prompts", tmp_path / "in.jsonl", "--out", out, "--output_len", "8", "--greedy"]
    output_of("run", "--ckpt", folder, *flags)
    texts = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    assert texts == [greedy(folder, text, 8)[1] for text in prompts]


def test_next_shows_what_is_likeliest(folder: Path) -> None:
    model = make("griffin")
    want = exact_log_probs(model, model.tokenizer.encode(PROMPT))[-1].exp()
    rows = json.loads(output_of("next", PROMPT, "--ckpt", folder, "-n", "5", "--json"))
    assert [row["id"] for row in rows] == want.topk(5).indices.tolist()
    assert all(math.isclose(row["probability"], want[row["id"]], rel_tol=1e-3) for row in rows)


def test_perplexity_of_windows(folder: Path, tmp_path: Path) -> None:
    text = TEXT.read_text()[:600]
    (tmp_path / "text").write_text(text)
    model = make("griffin")
    tokens = model.tokenizer.encode(text, bos=False)
    total = 0.0
    for begin in range(0, len(tokens), 63):
        part = tokens[begin : begin + 63]
        log_probs = exact_log_probs(model, [model.tokenizer.bos_id, *part])
        total -= sum(float(log_probs[i, token]) for i, token in enumerate(part))
    got = output_of("perplexity", tmp_path / "text", "--ckpt", folder, "-c", "64")
    nll = float(got.split("nll")[1].split()[0])
    assert math.isclose(nll, total / len(tokens), rel_tol=1e-4)


def test_chat_answers_in_turns(folder: Path) -> None:
    result = chat(folder, "hello\nand you?\n/undo\nand you?\n", "--temperature", "0")
    assert result.returncode == 0, result.stderr
    answers = result.stdout.splitlines()
    assert len(answers) >= 3 and answers[1] == answers[2]


def test_bench_measures_it(folder: Path) -> None:
    flags = ["-p", "5", "-n", "2", "-r", "1", "-t", "1", "-o", "json"]
    rows = json.loads(output_of("bench", "--ckpt", folder, "-b", "1,3", *flags))
    assert [row["test"] for row in rows] == ["pp5", "tg2", "tg2 x 3"]
    assert all(row["model"] == "RecurrentGemma" and row["kv_mb"] > 0 for row in rows)
    assert all(row["tokens_per_second"]["median"] > 0 for row in rows)


def refusal(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.returncode != 0 and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_what_it_cannot_do_is_said_in_a_line(folder: Path) -> None:
    ckpt = ["--ckpt", folder]
    assert "use --numerics fast" in refusal("run", *ckpt, "--numerics", "exact")
    assert "not for a RecurrentGemma" in refusal("run", *ckpt, "--variant", "2b")
    assert "not for a RecurrentGemma" in refusal("run", *ckpt, "--quant")
    assert "not a RecurrentGemma" in refusal("run", *ckpt, "--prefix", "a")
    assert "reads text only" in refusal("run", *ckpt, "--image", "a.png")
    assert "modules.json: there is no such file" in refusal("embed", "a", *ckpt)
    for target in ("out.gguf", "out.ckpt"):
        assert "these are not the weights of a Gemma" in refusal("convert", folder, folder / target)
