"""gemma_libtorch.engine. What a text is, tests/engine compares bit for bit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import gemma_libtorch
import numpy as np
import pytest
import tiny
import torch
from gemma_libtorch.engine import Engine, Request, Token
from PIL import Image

PROMPTS = ["The ferry leaves at noon", "We", "a b c", "The ferry"]


@pytest.fixture
def model() -> Any:
    fields = {**tiny.CONFIGS["gemma3"], "max_position_embeddings": 300}
    return tiny.make_model(gemma_libtorch, fields, "float32")


@pytest.fixture
def engine(model: Any) -> Engine:
    return Engine(model, kv_dtype="float32", max_batch=8)


def text_of(model: Any, seed: int, prompt: str, temperature: float | None = 1.0) -> str:
    torch.manual_seed(seed)
    return model.generate(prompt, "cpu", output_len=30, temperature=temperature)


def test_a_batch_says_what_generate_says_of_each(model: Any, engine: Engine) -> None:
    options = {"max_tokens": 30, "top_p": 0.95, "top_k": 64}
    requests = [Request(prompt, seed=seed, **options) for seed, prompt in enumerate(PROMPTS)]
    answers = engine.generate(requests)
    assert [answer.text for answer in answers] == [
        text_of(model, seed, prompt) for seed, prompt in enumerate(PROMPTS)
    ]
    greedy = engine.generate([Request(prompt, max_tokens=30, temperature=0.0) for prompt in PROMPTS])
    assert [answer.text for answer in greedy] == [
        text_of(model, 0, prompt, temperature=None) for prompt in PROMPTS
    ]
    assert all(answer.finish_reason in ("stop", "length") for answer in answers)


def test_guesses_change_no_text(engine: Engine) -> None:
    prompt = "The ferry leaves at noon. " * 3
    options = {"max_tokens": 60, "temperature": 0.0, "stop": ["zzz"]}
    plain = engine.generate([Request(prompt, **options)])[0]
    assert (plain.guessed_tokens, plain.accepted_tokens) == (0, 0)
    guessing = engine.generate([Request(prompt, prompt_lookup=8, **options)])[0]
    assert guessing.text == plain.text
    assert [token.id for token in guessing.tokens] == [token.id for token in plain.tokens]
    assert 0 < guessing.accepted_tokens <= guessing.guessed_tokens
    session = engine.session()
    session.feed(prompt)
    generation = session.generate(prompt_lookup=8, **options)
    assert "".join(token.text for token in generation) == plain.text
    assert generation.accepted_tokens == guessing.accepted_tokens


def test_a_text_is_scored(model: Any, engine: Engine) -> None:
    (answer,) = engine.generate([Request(PROMPTS[0], prompt_logprobs=2, max_tokens=0)])
    ids = model.tokenizer.encode(PROMPTS[0])
    assert [token.id for token in answer.prompt] == ids
    assert "".join(token.text for token in answer.prompt) == PROMPTS[0]
    assert (answer.tokens, answer.text, answer.prompt[0].logprob) == ([], "", None)
    session = engine.session()  # What follows each token, one by one.
    for token, scored in zip(ids, [*answer.prompt[1:], None], strict=True):
        session.feed([token])
        fork = session.fork()
        rules: Any = {"max_tokens": 1, "logprobs": tiny.VOCAB_SIZE, "logit_bias": {1: -np.inf}}
        (best,) = fork.generate(temperature=0.0, **rules)
        if scored:
            assert scored.logprob == pytest.approx(dict(best.top)[scored.id], rel=1e-4)
            assert [pair[0] for pair in scored.top] == [pair[0] for pair in best.top[:2]]
    with pytest.raises(ValueError, match="max_tokens is 0, but must be 1"):
        engine.generate([Request("a", max_tokens=0)])
    assert engine.generate([Request("a", max_tokens=1)])[0].prompt == []


def test_a_draft_model_changes_no_text(model: Any, engine: Engine) -> None:
    requests = [Request(prompt, max_tokens=40, temperature=0.0) for prompt in PROMPTS]
    want = engine.generate(requests)
    drafted = Engine(model, kv_dtype="float32", draft=model, draft_tokens=3)
    got = drafted.generate(requests)
    assert [answer.text for answer in got] == [answer.text for answer in want]
    assert sum(answer.accepted_tokens for answer in got) > 0
    other = tiny.make_model(gemma_libtorch, {**tiny.CONFIGS["gemma3"], "vocab_size": 100}, "float32")
    with pytest.raises(ValueError, match="the draft model has a vocabulary of 100 tokens"):
        Engine(model, draft=other)


def test_a_session_streams_and_goes_on(engine: Engine) -> None:
    session = engine.session()
    session.feed("The ferry leaves")
    fed = session.tokens
    generation = session.generate(max_tokens=10, seed=1, logprobs=2)
    tokens = list(generation)
    assert tokens and generation.text.startswith("".join(token.text for token in tokens))
    assert generation.finish_reason in ("stop", "length")
    assert generation.prompt_tokens == len(fed)
    assert session.tokens == fed + [token.id for token in tokens]
    for token in tokens:
        assert token.logprob is not None and token.logprob <= 0
        assert len(token.top) == 2 and token.top[0][1] >= token.top[1][1]
    fork = session.fork()
    more = [[token.id for token in one.generate(max_tokens=10, seed=2)] for one in (session, fork)]
    assert more[0] == more[1]
    session.truncate(len(fed))
    assert [token.id for token in session.generate(max_tokens=10, seed=1)] == [t.id for t in tokens]


def test_tokens_come_as_they_are_made(engine: Engine) -> None:
    told: list[Token] = []
    (answer,) = engine.generate([Request("We", on_token=told.append, max_tokens=12, seed=3)])
    assert [token.id for token in told] == [token.id for token in answer.tokens]
    assert all(token.logprob is None and token.top == [] for token in told)


def test_what_a_callback_raises_ends_the_batch(engine: Engine) -> None:
    def fail(token: Token) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        engine.generate([Request("We", on_token=fail), Request("a", max_tokens=20)])
    assert engine.generate([Request("We", max_tokens=2)])[0].tokens


def test_async_iteration_of_several(engine: Engine) -> None:
    async def tokens_of(prompt: str, seed: int) -> list[int]:
        session = engine.session()
        session.feed(prompt)
        return [token.id async for token in session.generate(max_tokens=20, seed=seed)]

    async def together() -> list[list[int]]:
        return await asyncio.gather(*map(tokens_of, PROMPTS, range(4)))

    answers = engine.generate(
        [Request(prompt, max_tokens=20, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    )
    assert asyncio.run(together()) == [[token.id for token in a.tokens] for a in answers]


def test_many_threads_may_call_at_once(engine: Engine) -> None:
    want = [
        answer.text
        for answer in engine.generate([Request(p, max_tokens=20, seed=5) for p in PROMPTS])
    ]
    got: dict[int, str] = {}

    def call(index: int) -> None:
        (answer,) = engine.generate([Request(PROMPTS[index % 4], max_tokens=20, seed=5)])
        got[index] = answer.text

    threads = [threading.Thread(target=call, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[i] for i in range(16)] == want * 4
    assert engine.status.kv_bytes_free + engine.status.kv_bytes_cached == engine.status.kv_bytes
    assert engine.status.running == engine.status.waiting == 0


def test_a_text_that_is_being_continued_is_left_alone(engine: Engine) -> None:
    session = engine.session()
    session.feed([5, 6, 7])
    generation = session.generate(max_tokens=100_000, logit_bias={1: float("-inf")})
    next(generation)
    for call in (
        lambda: session.feed("more"),
        lambda: session.truncate(1),
        session.fork,
        session.generate,
        lambda: session.save("unused"),
    ):
        with pytest.raises(RuntimeError, match="while the text is being continued"):
            call()
    session.cancel()
    list(generation)
    assert generation.finish_reason == "cancelled"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_token": 3}, TypeError, "unexpected keyword argument 'max_token'; options: frequency"),
        ({"max_tokens": "many"}, TypeError, "max_tokens cannot be 'many'"),
        ({"max_tokens": 0}, ValueError, "max_tokens is 0, but must be 1 or more"),
        ({"prompt_lookup": -1}, ValueError, "prompt_lookup is -1, but must be a number of tokens"),
        ({"temperature": -1.0}, ValueError, "temperature is -1, but must be 0"),
        ({"top_p": -0.5}, ValueError, "top_p is -0.5"),
        ({"min_p": 2.0}, ValueError, "min_p is 2, but must be 0 to 1"),
        ({"logit_bias": {100_000: 1.0}}, ValueError, "logit_bias has token 100000"),
        ({"seed": -1}, TypeError, "seed cannot be -1"),
    ],
)
def test_options_that_cannot_be_are_refused(
    engine: Engine, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    session = engine.session()
    session.feed("We")
    with pytest.raises(error, match=message):
        session.generate(**options)
    with pytest.raises(error, match=message):
        engine.generate([Request("We", **options)])


def test_prompts_and_engines_that_cannot_be_are_refused(model: Any, engine: Engine) -> None:
    session = engine.session()
    with pytest.raises(ValueError, match="the text is empty"):
        session.generate()
    with pytest.raises(TypeError, match="a prompt is str, token ids, .* but not 3.5"):
        session.feed(3.5)
    with pytest.raises(ValueError, match="token -1 is not below"):
        session.feed([-1])
    with pytest.raises(ValueError, match="kv_dtype is float16"):
        Engine(model, kv_dtype="float16")
    with pytest.raises(ValueError, match="max_batch is 0"):
        Engine(model, max_batch=0)
    with pytest.raises(ValueError, match="kv_memory is 10 bytes, but"):
        Engine(model, kv_memory=10)


def test_sessions_keep_their_engine(model: Any) -> None:
    session = Engine(model).session()
    session.feed("We")
    fork = session.fork()
    generation = session.generate(max_tokens=20, seed=1)
    del session
    assert [t.id for t in generation] == [t.id for t in fork.generate(max_tokens=20, seed=1)]


def test_a_prompt_that_begins_as_another_is_known(model: Any) -> None:
    prompt = [5 + i % 300 for i in range(150)]
    engine = Engine(model, chunk=64)
    assert engine.generate([Request(prompt, max_tokens=2)])[0].cached_tokens == 0
    (again,) = engine.generate([Request([*prompt, 7], max_tokens=2)])
    assert again.cached_tokens == 128
    assert engine.status.kv_bytes_cached > 0
    without = Engine(model, prefix_cache=False)
    for _ in range(2):
        assert without.generate([Request(prompt, max_tokens=2)])[0].cached_tokens == 0
    assert without.status.kv_bytes_free == without.status.kv_bytes


def test_a_session_is_saved_and_loaded(model: Any, engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "a.session"
    session = engine.session()
    session.feed("The ferry leaves")
    list(session.generate(max_tokens=5, seed=1))
    session.save(path)
    loaded = Engine(model, kv_dtype="float32").load_session(str(path))
    assert loaded.tokens == session.tokens
    generations = [one.generate(max_tokens=10, seed=2) for one in (session, loaded)]
    assert [t.id for t in generations[0]] == [t.id for t in generations[1]]
    assert generations[0].cached_tokens == generations[1].cached_tokens > 0

    with pytest.raises(RuntimeError, match="a.session: holds keys and values as float32, but"):
        Engine(model).load_session(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RuntimeError, match="a.session: "):
        engine.load_session(path)
    with pytest.raises(FileNotFoundError):
        engine.load_session(tmp_path / "none")


def test_images_are_fed_as_generate_takes_them(tmp_path: Path) -> None:
    tokenizer = str(tiny.large_tokenizer(tmp_path / "large.model"))
    model = tiny.make_multimodal(
        gemma_libtorch, tokenizer=tokenizer, max_position_embeddings=300
    )
    model.set_numerics("fast")
    rng = np.random.default_rng(1)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(2)
    ]
    prompt = ["What is", pictures[0], "and", pictures[1]]
    (want,) = model.generate([prompt], "cpu", output_len=8, temperature=None, kv_dtype=torch.float32)
    engine = Engine(model, kv_dtype="float32")
    options = {"max_tokens": 8, "temperature": 0.0}
    (answer,) = engine.generate([Request(prompt, **options)])
    assert want.endswith(answer.text)
    session = engine.session()
    for part in (["What is", pictures[0]], "and", pictures[1]):
        session.feed(part)
    generation = session.generate(**options)
    assert [t.id for t in generation] == [t.id for t in answer.tokens]
    with pytest.raises(TypeError, match="only Gemma3ForMultimodalLM and PaliGemma take them"):
        blind = tiny.make_model(gemma_libtorch, tiny.CONFIGS["gemma3"], "float32")
        Engine(blind).session().feed(pictures[0])


INTERRUPTED = """
import sys
sys.path.append(sys.argv[1])
import gemma_libtorch, tiny, signal, threading
from gemma_libtorch.engine import Engine

fields = {**tiny.CONFIGS["gemma3"], "max_position_embeddings": 100_000}
engine = Engine(tiny.make_model(gemma_libtorch, fields, "float32"), max_batch=1)
session = engine.session()
session.feed("We")
threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
try:
    for token in session.generate(max_tokens=90_000, logit_bias={1: float("-inf")}):
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_a_generation() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("interrupted\n", 0), done.stderr
