"""gemma serve: what the model expects of a prompt (echo with logprobs), and answers that share one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
from gemma_libtorch.engine import Engine, Request
from serving import Server, save_tiny, serving
from test_program import run

PROMPT = "The ferry leaves at noon, and so do we.\n" * 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), 600)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "--max_batch", "4") as running:
        yield running


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    config = gemma_libtorch.config.GemmaConfig.from_pretrained(folder / "model.ckpt")
    model = gemma_libtorch.model.GemmaForCausalLM(config)
    model.load_weights(folder / "model.ckpt")
    model.set_numerics("fast")
    return Engine(model)


def scores(server: Server, prompt: Any, **fields: Any) -> Any:
    body = {"logprobs": 2, "echo": True, "max_tokens": 0, **fields}
    return server.complete(prompt, **body)["choices"][0]


def test_a_text_is_scored(server: Server, engine: Engine) -> None:
    choice = scores(server, PROMPT)
    got = choice["logprobs"]
    (want,) = engine.generate([Request(PROMPT, prompt_logprobs=2, max_tokens=0)])
    assert (choice["text"], choice["finish_reason"]) == (PROMPT, "length")
    assert got["token_logprobs"][0] is got["top_logprobs"][0] is None
    logprobs = [token.logprob for token in want.prompt]
    assert got["token_logprobs"][1:] == pytest.approx(logprobs[1:], rel=1e-6)
    for top, token in zip(got["top_logprobs"][1:], want.prompt[1:], strict=True):
        assert sorted(top.values()) == pytest.approx(sorted(p for _, p in token.top), rel=1e-6)
    assert got["tokens"][0] == "<s>"
    for token, offset in zip(got["tokens"][1:], got["text_offset"][1:], strict=True):
        assert PROMPT[offset:].startswith(token)
    assert "".join(token.text for token in want.prompt) == PROMPT


def test_scores_are_those_of_gemma_perplexity(server: Server, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(PROMPT)
    ckpt = folder / "model.ckpt"
    done = run("perplexity", tmp_path / "text.txt", "--ckpt", ckpt, "--kv_dtype", "bfloat16")
    nll = re.search(r"nll +(\S+) a token", done.stdout)
    assert nll, done.stderr
    logprobs = scores(server, PROMPT)["logprobs"]["token_logprobs"][1:]
    assert -sum(logprobs) / len(logprobs) == pytest.approx(float(nll[1]), abs=2e-6)


def test_scores_are_followed_by_the_answer(server: Server) -> None:
    rules: dict[str, Any] = {"max_tokens": 9, "temperature": 0}
    plain = server.complete(PROMPT, logprobs=2, **rules)["choices"][0]
    both = scores(server, PROMPT, **rules)
    prompt = scores(server, PROMPT)
    assert both["text"] == PROMPT + plain["text"]
    for key in ("tokens", "token_logprobs", "top_logprobs"):
        want = prompt["logprobs"][key] + plain["logprobs"][key]
        assert both["logprobs"][key][: len(want)] == want
    offset = both["logprobs"]["text_offset"][len(prompt["logprobs"]["tokens"])]
    assert offset == len(PROMPT)
    body = {"prompt": PROMPT, "echo": True, "logprobs": 2, "stream": True, **rules}
    events = [e["choices"][0] for e in server.post("/v1/completions", body).events]
    assert "".join(event["text"] for event in events) == both["text"]
    for key in ("tokens", "token_logprobs", "text_offset"):
        parts = [event["logprobs"][key] for event in events if event["logprobs"]]
        assert [value for part in parts for value in part] == both["logprobs"][key]


def test_a_token_that_ends_the_answer_is_told(server: Server) -> None:
    first = server.complete(PROMPT, max_tokens=1, temperature=0, logprobs=0)["choices"][0]
    (last,) = server.post("/tokenize", {"content": first["text"]}).json["tokens"][-1:]
    ended = scores(server, PROMPT, max_tokens=1, temperature=0, stop_token_ids=[last])
    assert (ended["text"], ended["finish_reason"]) == (PROMPT, "stop")
    assert ended["logprobs"]["token_logprobs"][-1] == first["logprobs"]["token_logprobs"][0]


def test_tokens_are_those_of_the_request(server: Server) -> None:
    ids = server.post("/tokenize", {"prompt": PROMPT}).json["tokens"]
    whole = scores(server, ids)["logprobs"]
    assert whole == scores(server, PROMPT)["logprobs"]
    without = scores(server, ids[1:])["logprobs"]  # bos was put before, and is not told.
    assert without["token_logprobs"] == whole["token_logprobs"][1:]
    many = server.complete([ids, ids[:50]], echo=True, logprobs=0, max_tokens=0)["choices"]
    assert [len(choice["logprobs"]["tokens"]) for choice in many] == [len(ids), 50]
    full = [ids[0]] + [5] * 599
    assert len(scores(server, full)["logprobs"]["tokens"]) == 600
    body = {"prompt": full, "echo": True, "logprobs": 0, "max_tokens": 1}
    assert server.post("/v1/completions", body).json["error"]["code"] == "context_length_exceeded"


def test_a_prompt_of_many_answers_is_computed_once(server: Server) -> None:
    before = server.wait_until_idle()
    prompt = "Once: " + PROMPT
    rules: dict[str, Any] = {"temperature": 1.3, "max_tokens": 8}
    answer = server.complete(prompt, n=9, seed=5, logprobs=1, echo=True, **rules)
    after = server.wait_until_idle()
    usage = answer["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    for name, want in (("prompt_tokens_total", usage["prompt_tokens"]),
                       ("prompt_tokens_cached_total", 0)):  # fmt: skip
        assert after[name] - before[name] == want
    for choice in answer["choices"]:
        alone = server.complete(prompt, seed=5 + choice["index"], logprobs=1, echo=True, **rules)
        assert choice == {**alone["choices"][0], "index": choice["index"]}


def test_names_of_tokens(server: Server) -> None:
    info = server.get("/tokenizer_info").json
    assert [info[name] for name in ("bos_token", "eos_token", "pad_token")] == [
        "<s>", "</s>", "<pad>"
    ]  # fmt: skip
    for name in ("bos_token", "eos_token"):
        body = {"prompt": info[name], "add_special_tokens": False}
        assert server.post("/tokenize", body).json["tokens"] == [info[f"{name}_id"]]
    assert len(server.post("/tokenize", {"prompt": "a </s>"}).json["tokens"]) > 2
