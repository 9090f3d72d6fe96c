"""gemma serve: what it answers, by http.client."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import gemma_libtorch
import pytest
import tiny
from gemma_libtorch.engine import Engine, Request
from gemma_libtorch.prompts import ChatPrompt, FimPrompt
from serving import NO_STOP, Server, save_tiny, serving

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), 2000)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(
        folder, "--served_name", "tiny", "--max_batch", "16", "--max_queue", "300"
    ) as running:
        yield running


class Alone(NamedTuple):
    """The same model on an engine of its own."""

    engine: Engine
    chat: ChatPrompt

    def answer(self, prompt: Any, **rules: Any) -> Any:
        request = Request(prompt, stop_ids=self.chat.stop_ids, **rules)
        return self.engine.generate([request])[0]


@pytest.fixture(scope="module")
def alone(folder: Path) -> Alone:
    config = gemma_libtorch.config.GemmaConfig.from_pretrained(folder / "model.ckpt")
    model = gemma_libtorch.model.GemmaForCausalLM(config)
    model.load_weights(folder / "model.ckpt")
    model.set_numerics("fast")
    return Alone(Engine(model), ChatPrompt(model.tokenizer))


PROMPT = "The ferry leaves"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "When?"}]


def test_health_and_models(server: Server) -> None:
    assert (server.get("/health").status, server.get("/health?x=1").json) == (200, {"status": "ok"})
    (model,) = server.get("/v1/models").json["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("tiny", "model", 2000)


def test_the_page_needs_nothing_else(server: Server) -> None:
    answer = server.get("/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "connect-src 'self'" in answer.headers["Content-Security-Policy"]
    text = answer.body.decode()
    page, style, script = (
        (ROOT / "gemma" / "server" / f"page.{kind}").read_text() for kind in ("html", "css", "js")
    )
    page = page.replace("@GEMMA_SERVER_STYLE@", style)
    assert text == page.replace("@GEMMA_SERVER_SCRIPT@", script)
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|url\(|@import""", text)
    assert set(re.findall(r'\$\("([\w-]+)"\)', text)) <= set(re.findall(r'id="([\w-]+)"', text))


def test_a_completion_is_the_text_of_an_engine(server: Server, alone: Alone) -> None:
    answer = server.complete(PROMPT, max_tokens=12, temperature=0)
    want = alone.answer(PROMPT, max_tokens=12, temperature=0.0)
    (choice,) = answer["choices"]
    assert choice == {
        "index": 0, "text": want.text, "logprobs": None, "finish_reason": want.finish_reason
    }  # fmt: skip
    assert (answer["object"], answer["model"]) == ("text_completion", "tiny")
    assert answer["system_fingerprint"].startswith("gemma-libtorch-")
    assert answer["id"].startswith("cmpl-")
    usage = answer["usage"]
    assert usage["prompt_tokens"] == want.prompt_tokens
    assert usage["completion_tokens"] == len(want.tokens)
    assert usage["total_tokens"] == want.prompt_tokens + len(want.tokens)
    default = server.complete(PROMPT, seed=1)
    assert default["usage"]["completion_tokens"] <= 16


def test_a_chat_is_the_text_of_an_engine(server: Server, alone: Alone) -> None:
    prompt = alone.chat.encode(MESSAGES)
    fields = {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "seed": 5}
    body = {"messages": MESSAGES, "max_completion_tokens": 9, **fields}
    answer = server.post("/v1/chat/completions", body).json
    (choice,) = answer["choices"]
    want = alone.answer(prompt, max_tokens=9, **fields).text
    assert choice["message"] == {"role": "assistant", "content": want, "refusal": None}
    assert answer["object"] == "chat.completion"
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "en?"}]
    body["messages"] = [MESSAGES[0], {"role": "user", "content": parts}]
    assert server.post("/v1/chat/completions", body).json["choices"] == answer["choices"]


def test_an_answer_without_a_limit_fills_the_model(server: Server) -> None:
    answer = server.chat("word " * 390, temperature=0, logit_bias=NO_STOP)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 2000


@pytest.mark.parametrize("logprobs", [False, True])
def test_a_stream_of_a_chat_is_its_answer(server: Server, logprobs: bool) -> None:
    body = {"messages": MESSAGES, "max_tokens": 20, "seed": 3, "n": 2}
    if logprobs:
        body |= {"logprobs": True, "top_logprobs": 2}
    whole = server.post("/v1/chat/completions", body).json
    options = {"stream": True, "stream_options": {"include_usage": True}}
    answer = server.post("/v1/chat/completions", {**body, **options})
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    *events, usage = answer.events
    assert (usage["choices"], usage["usage"]["total_tokens"]) == (
        [],
        whole["usage"]["total_tokens"],
    )
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1
    for index in range(2):
        mine = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        text = "".join(part["delta"].get("content", "") for part in mine)
        assert text == whole["choices"][index]["message"]["content"]
        assert mine[-1]["delta"] == {}
        reasons = [part["finish_reason"] for part in mine]
        assert reasons == [None] * (len(mine) - 1) + [whole["choices"][index]["finish_reason"]]
        if logprobs:
            tokens = [t for part in mine for t in (part["logprobs"] or {"content": []})["content"]]
            assert tokens == whole["choices"][index]["logprobs"]["content"]
    assert "usage" not in server.post("/v1/chat/completions", {**body, "stream": True}).events[-1]


def test_a_stream_of_a_completion_is_its_answer(server: Server) -> None:
    body = {"prompt": [PROMPT, "We"], "max_tokens": 20, "seed": 3, "n": 2, "logprobs": 2}
    whole = server.post("/v1/completions", body).json
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    events = server.post("/v1/completions", {**body, "stream": True}).events
    for choice in whole["choices"]:
        mine = [e["choices"][0] for e in events if e["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in mine) == choice["text"]
        for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            parts = [part["logprobs"][key] for part in mine if part["logprobs"]]
            assert [value for part in parts for value in part] == choice["logprobs"][key]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]


def test_prompts_are_text_tokens_or_lists_of_these(server: Server) -> None:
    ids = server.post("/tokenize", {"prompt": PROMPT}).json["tokens"]
    other = server.post("/tokenize", {"prompt": "We"}).json["tokens"]
    rules = {"max_tokens": 8, "temperature": 0}
    want = server.complete(PROMPT, **rules)["choices"][0]["text"]
    for prompt in (ids, ids[1:], [PROMPT], [ids], [ids[1:]]):
        assert server.complete(prompt, **rules)["choices"][0]["text"] == want
    for prompt in ([PROMPT, "We"], [ids, other]):
        texts = [choice["text"] for choice in server.complete(prompt, **rules)["choices"]]
        assert texts == [want, server.complete("We", **rules)["choices"][0]["text"]]


def test_guesses_change_no_answer(server: Server, folder: Path) -> None:
    body = {"prompt": PROMPT * 8, "max_tokens": 60, "temperature": 0, "logit_bias": NO_STOP}
    want = server.complete(**body)["choices"]
    for flags in (["--prompt_lookup", "8"], ["--draft", str(folder / "model.ckpt")]):
        with serving(folder, *flags) as guessing:
            assert guessing.complete(**body)["choices"] == want


def test_answers_have_seeds_of_their_own(server: Server) -> None:
    answer = server.complete(PROMPT, max_tokens=12, n=3, seed=7, temperature=1.5)
    texts = [choice["text"] for choice in answer["choices"]]
    assert len(set(texts)) == 3
    for index, text in enumerate(texts):
        one = server.complete(PROMPT, max_tokens=12, seed=7 + index, temperature=1.5)
        assert one["choices"][0]["text"] == text
    assert answer["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]


def test_the_prompt_is_echoed(server: Server) -> None:
    plain = server.complete(PROMPT, max_tokens=5, temperature=0)["choices"][0]["text"]
    body = {"prompt": PROMPT, "max_tokens": 5, "temperature": 0, "echo": True}
    assert server.complete(**body)["choices"][0]["text"] == PROMPT + plain
    events = server.post("/v1/completions", {**body, "stream": True}).events
    assert "".join(event["choices"][0]["text"] for event in events) == PROMPT + plain
    (choice,) = server.complete(PROMPT, max_tokens=0, echo=True)["choices"]
    assert (choice["text"], choice["finish_reason"]) == (PROMPT, "length")


def test_stops_bias_and_penalties(server: Server, alone: Alone) -> None:
    rules: dict[str, Any] = {"max_tokens": 40, "temperature": 0.9, "seed": 2}
    for fields in (
        {"stop": ["a", "e"]},
        {"stop": "n"},
        {"presence_penalty": 1.5, "frequency_penalty": 0.5},
        {"repetition_penalty": 1.4},
        {"min_p": 0.1},
        {"logit_bias": {"7": 5, "9": -100}},
    ):
        got = server.complete(PROMPT, **rules, **fields)["choices"][0]
        named = dict(fields)
        if isinstance(named.get("stop"), str):
            named["stop"] = [named["stop"]]
        if "logit_bias" in named:
            named["logit_bias"] = {7: 5.0, 9: -100.0}
        want = alone.answer(PROMPT, **rules, **named)
        assert (got["text"], got["finish_reason"]) == (want.text, want.finish_reason), fields
    token = server.complete(PROMPT, max_tokens=1, temperature=0, logprobs=0)
    piece = token["choices"][0]["logprobs"]["tokens"][0]
    (last,) = server.post("/tokenize", {"content": piece}).json["tokens"][-1:]
    ended = server.complete(PROMPT, temperature=0, stop_token_ids=[last])["choices"][0]
    assert (ended["text"], ended["finish_reason"]) == ("", "stop")


def test_probabilities_are_those_of_the_engine(server: Server, alone: Alone) -> None:
    rules: dict[str, Any] = {"max_tokens": 6, "temperature": 0.8, "seed": 4}
    answer = server.complete(PROMPT, logprobs=3, **rules)["choices"][0]["logprobs"]
    want = alone.answer(PROMPT, logprobs=3, **rules).tokens
    assert answer["token_logprobs"] == pytest.approx([token.logprob for token in want], rel=1e-6)
    assert [len(top) for top in answer["top_logprobs"]] == [3] * len(want)
    chat = server.chat("When?", logprobs=True, top_logprobs=1, max_tokens=3)["choices"][0]
    for token in chat["logprobs"]["content"]:
        assert len(token["top_logprobs"]) == 1
        assert bytes(token["bytes"]).decode(errors="replace") or token["token"] == ""


def test_tokens_and_back(server: Server) -> None:
    text = "Küste\n two"
    with_bos = server.post("/tokenize", {"prompt": text}).json["tokens"]
    without = server.post("/tokenize", {"content": text}).json
    assert (with_bos[1:], without["count"]) == (without["tokens"], len(without["tokens"]))
    back = server.post("/detokenize", {"tokens": with_bos}).json
    assert back == {"content": text, "prompt": text}


BAD = [
    # endpoint, body, param
    ("chat/completions", {}, "messages"),
    ("chat/completions", {"messages": []}, "messages"),
    ("chat/completions", {"messages": "hi"}, "messages"),
    ("chat/completions", {"messages": [{"content": "a"}]}, "messages"),
    ("chat/completions", {"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
    ("chat/completions", {"messages": [{"role": "user", "content": 4}]}, "messages[0].content"),
    ("chat/completions", {"messages": [{"role": "assistant", "content": "a"}]}, "messages"),
    ("chat/completions", {"messages": [{"role": "user", "content": "word " * 9000}]}, "messages"),
    ("completions", {}, "prompt"),
    ("completions", {"prompt": 4}, "prompt"),
    ("completions", {"prompt": [1, "a"]}, "prompt"),
    ("completions", {"prompt": [451]}, "prompt"),
    ("completions", {"prompt": [-1]}, "prompt"),
    ("completions", {"prompt": [2**64]}, "prompt"),
    ("completions", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ("completions", {"prompt": "a", "max_tokens": "4"}, "max_tokens"),
    ("completions", {"prompt": "a", "max_tokens": 1.5}, "max_tokens"),
    ("completions", {"prompt": "a", "max_tokens": 2**63}, "max_tokens"),
    ("completions", {"prompt": "a", "temperature": 2.1}, "temperature"),
    ("completions", {"prompt": "a", "temperature": -1}, "temperature"),
    ("completions", {"prompt": "a", "temperature": True}, "temperature"),
    ("completions", {"prompt": "a", "top_p": 1.1}, "top_p"),
    ("completions", {"prompt": "a", "top_k": -2}, "top_k"),
    ("completions", {"prompt": "a", "n": 0}, "n"),
    ("completions", {"prompt": "a", "n": 10**6}, "n"),
    ("completions", {"prompt": ["a"] * 100, "n": 128}, "n"),
    ("completions", {"prompt": "a", "stop": [1]}, "stop"),
    ("completions", {"prompt": "a", "stop": [""]}, "stop"),
    ("completions", {"prompt": "a", "stop": ["a"] * 17}, "stop"),
    ("completions", {"prompt": "a", "logprobs": 21}, "logprobs"),
    ("completions", {"prompt": "a", "logprobs": True}, "logprobs"),
    ("completions", {"prompt": "a", "logit_bias": {"451": 1}}, "logit_bias"),
    ("completions", {"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
    ("completions", {"prompt": "a", "logit_bias": {"4": 101}}, "logit_bias"),
    ("completions", {"prompt": "a", "stream": "yes"}, "stream"),
    ("completions", {"prompt": "a", "suffix": "b"}, "suffix"),
    ("completions", {"prompt": "a", "best_of": 2}, "best_of"),
]


@pytest.mark.parametrize(("endpoint", "body", "param"), BAD)
def test_mistakes_are_named(server: Server, endpoint: str, body: Any, param: str) -> None:
    answer = server.post(f"/v1/{endpoint}", body)
    error = answer.json["error"]
    assert (answer.status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert len(error["message"]) < 300
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("response_format", {"type": "json_object"}),
        ("functions", [{}]),
        ("ignore_eos", True),
    ],
)
def test_what_is_not_served_is_refused(server: Server, field: str, value: Any) -> None:
    body = {"messages": MESSAGES, field: value}
    error = server.post("/v1/chat/completions", body).json["error"]
    assert (error["param"], error["code"]) == (field, "unsupported_value")


def test_what_says_nothing_or_is_unknown_is_ignored(server: Server) -> None:
    body = {"messages": MESSAGES, "max_tokens": 2, "seed": 1}
    want = server.post("/v1/chat/completions", body).json["choices"]
    more = {"tools": [], "tool_choice": "none", "user": "me", "x": {"y": 1}, "stop": None,
            "response_format": {"type": "text"}, "model": "other"}  # fmt: skip
    assert server.post("/v1/chat/completions", {**body, **more}).json["choices"] == want


def test_an_image_is_refused_as_the_clients_mistake(server: Server) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}
    body = {"messages": [{"role": "user", "content": [image]}]}
    answer = server.post("/v1/chat/completions", body)
    assert (answer.status, answer.json["error"]["param"]) == (400, "messages")


def test_too_long_a_prompt_is_told_with_both_numbers(server: Server) -> None:
    error = server.post("/v1/completions", {"prompt": [5] * 2000}).json["error"]
    assert error["code"] == "context_length_exceeded"
    assert "2001" in error["message"]
    assert "2000" in error["message"]


def test_two_hundred_at_once_say_what_each_says_alone(server: Server) -> None:
    bodies: list[dict[str, Any]] = [
        {
            "prompt": f"{PROMPT} {index} {'and ' * (index % 7)}",
            "max_tokens": 5 + index % 30,
            "temperature": 0 if index % 2 else 0.8,
            "seed": index,
            "stream": index % 3 == 0,
        }
        for index in range(200)
    ]

    def text(body: dict[str, Any]) -> str:
        answer = server.post("/v1/completions", body)
        assert answer.status == 200, answer.body
        if body["stream"]:
            return "".join(event["choices"][0]["text"] for event in answer.events)
        return answer.json["choices"][0]["text"]

    want = [text(body) for body in bodies]
    with ThreadPoolExecutor(200) as threads:
        assert list(threads.map(text, bodies)) == want


def test_metrics_agree_with_usage(server: Server) -> None:
    before = server.wait_until_idle()
    prompt = PROMPT + " and" * 200  # Of some whole blocks, which are known the second time.
    usages = [server.complete(prompt, max_tokens=9, seed=seed)["usage"] for seed in range(4)]
    after = server.wait_until_idle()
    for name, key in (("prompt_tokens_total", "prompt_tokens"),
                      ("generation_tokens_total", "completion_tokens")):  # fmt: skip
        assert after[name] - before[name] == sum(usage[key] for usage in usages)
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    assert cached > 0
    assert after["prompt_tokens_cached_total"] - before["prompt_tokens_cached_total"] == cached
    firsts = "time_to_first_token_seconds_count"
    assert after[firsts] - before[firsts] == 4


def test_a_gap_is_filled(tmp_path: Path) -> None:
    markers = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"]
    tokenizer = tiny.tokenizer_with(tmp_path / "fim.model", *markers)
    fields = {**tiny.CONFIGS["gemma3"], "vocab_size": tiny.VOCAB_SIZE + len(markers),
              "tokenizer": str(tokenizer)}  # fmt: skip
    model = tiny.make_model(gemma_libtorch, fields, "float32")
    tiny.save_checkpoint(model, tmp_path)
    tokenizer.rename(tmp_path / "tokenizer.model")
    model.set_numerics("fast")
    prompt = FimPrompt(model.tokenizer)
    request = Request(
        prompt.encode("import ", "\nexit()"),
        max_tokens=16, temperature=0.0, stop_ids=[*prompt.stop_ids, 5],
    )  # fmt: skip
    (want,) = Engine(model).generate([request])
    with serving(tmp_path) as server:
        answer = server.complete("import ", suffix="\nexit()")
        assert answer["choices"][0]["text"] == want.text
        assert answer["usage"]["prompt_tokens"] == want.prompt_tokens


def test_a_key_is_asked_for(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("first\n\nsecond\n")
    with serving(folder, "--api_key_file", str(tmp_path / "keys")) as server:
        body = {"prompt": PROMPT, "max_tokens": 1}
        for headers in ({}, {"authorization": "Bearer third"}, {"authorization": "first"}):
            answer = server.post("/v1/completions", body, **headers)
            assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
        for headers in ({"authorization": "Bearer second"}, {"x_api_key": "first"}):
            assert server.post("/v1/completions", body, **headers).status == 200
        assert server.get("/v1/models").status == 401


def test_a_full_queue_refuses(folder: Path) -> None:
    with serving(folder, "--max_batch", "1", "--max_queue", "1") as server:
        body = {"prompt": PROMPT, "max_tokens": 1900, "logit_bias": NO_STOP}
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: server.post("/v1/completions", body), range(8)))
        statuses = sorted(answer.status for answer in answers)
        assert set(statuses) == {200, 429}
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.json["error"]["code"] == "queue_full"
        assert 1 <= int(refused.headers["Retry-After"]) <= 60


def test_an_answer_may_not_take_too_long(folder: Path) -> None:
    with serving(folder, "--timeout", "0.05") as server:
        body = {"prompt": PROMPT, "max_tokens": 1900, "logit_bias": NO_STOP}
        answer = server.post("/v1/completions", body)
        assert (answer.status, answer.json["error"]["code"]) == (503, "timeout")
        assert answer.headers["x-should-retry"] == "false"
        events = server.post("/v1/completions", {**body, "stream": True}).events
        assert events[-1]["error"]["code"] == "timeout"


def test_a_line_is_logged_for_each_request(folder: Path) -> None:
    with serving(folder, "--log_json") as server:
        server.complete(PROMPT, max_tokens=3, seed=1)
        server.get("/nothing?secret=1")
    lines = [json.loads(line) for line in server.log if line.startswith("{")]
    kept = [(line["method"], line["path"], line["status"]) for line in lines]
    assert kept[-2:] == [("POST", "/v1/completions", 200), ("GET", "/nothing", 404)]
    assert lines[-2]["completion_tokens"] in (1, 2, 3)
    assert not any("secret" in line for line in server.log)
