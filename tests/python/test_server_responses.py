"""gemma serve: /v1/responses and /infill, by http.client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gemma_libtorch
import pytest
import tiny
from serving import NO_STOP, Server, save_tiny, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(save_tiny(tmp_path_factory.mktemp("tiny"), 500)) as running:
        yield running


CONVERSATION: list[dict[str, Any]] = [
    {"role": "user", "content": "When?"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Noon."}]},
    {"role": "user", "content": [{"type": "input_text", "text": "And "},
                                 {"type": "input_text", "text": "then?"}]},
]  # fmt: skip
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "When?"},
    {"role": "assistant", "content": "Noon."},
    {"role": "user", "content": "And then?"},
]
RULES: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9, "seed": 3, "logit_bias": NO_STOP}
BODY: dict[str, Any] = {
    "model": "x",
    "instructions": "Be brief.",
    "input": CONVERSATION,
    "max_output_tokens": 12,
    **RULES,
}


def events_of(server: Server, body: Any) -> list[tuple[str, Any]]:
    answer = server.post("/v1/responses", {**body, "stream": True})
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    *blocks, rest = answer.body.decode("ascii").split("\n\n")
    assert rest == ""
    events = []
    for block in blocks:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append((event["type"], event))
    assert [event["sequence_number"] for _, event in events] == list(range(len(events)))
    return events


def test_a_response_is_the_answer_of_a_chat(server: Server) -> None:
    answer = server.post("/v1/responses", BODY).json
    chat = server.post(
        "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 12, **RULES}
    ).json
    (item,) = answer["output"]
    (part,) = item["content"]
    assert part["text"] == chat["choices"][0]["message"]["content"]
    assert (item["role"], item["type"], part["type"]) == ("assistant", "message", "output_text")
    assert (answer["object"], answer["error"], answer["store"]) == ("response", None, False)
    assert (answer["status"], item["status"]) == ("incomplete", "incomplete")
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (answer["instructions"], answer["max_output_tokens"]) == ("Be brief.", 12)
    assert (answer["temperature"], answer["top_p"]) == (0.8, 0.9)
    assert answer["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]
    assert answer["usage"]["output_tokens"] == 12
    text = part["text"]
    stopped = server.post("/v1/responses", {**BODY, "stop": text[3]}).json
    assert (stopped["status"], stopped["incomplete_details"]) == ("completed", None)
    assert stopped["output"][0]["content"][0]["text"] == text[: text.index(text[3])]


def test_events_build_the_response_up(server: Server) -> None:
    body = {**BODY, "include": ["message.output_text.logprobs"], "top_logprobs": 1}
    whole = server.post("/v1/responses", body).json
    events = events_of(server, body)
    names = [name.removeprefix("response.") for name, _ in events]
    assert names[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert names[-4:] == [
        "output_text.done", "content_part.done", "output_item.done", "incomplete"
    ]  # fmt: skip
    deltas = [event for name, event in events if name == "response.output_text.delta"]
    assert set(names[4:-4]) == {"output_text.delta"}
    assert len(deltas) > 2
    (part,) = whole["output"][0]["content"]
    assert "".join(event["delta"] for event in deltas) == part["text"]
    assert [token for event in deltas for token in event["logprobs"]] == part["logprobs"]
    assert len(part["logprobs"]) == 12
    last = events[-1][1]["response"]
    assert {**last, "id": 0, "created_at": 0, "output": 0} == {
        **whole, "id": 0, "created_at": 0, "output": 0, "usage": last["usage"]
    }  # fmt: skip
    assert last["output"][0]["content"] == whole["output"][0]["content"]
    assert events[0][1]["response"]["status"] == "in_progress"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [4]}, "input[0]"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"content": "a"}]}, "input[0].role"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": "b"}]},
         "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
         "input[0].content[0].type"),
        ({"input": [{"role": "king", "content": "a"}]}, "input"),
        ({"input": [{"role": "assistant", "content": "a"}]}, "input"),
        ({"input": "word " * 3000}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"instructions": 3}, "instructions"),
        ({"tools": [{"type": "function", "name": "a"}]}, "tools"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"n": 2}, "n"),
        ({"text": {"format": {"type": "x"}}}, "text.format"),
        ({"temperature": 9}, "temperature"),
    ],
)  # fmt: skip
def test_mistakes_are_named(server: Server, fields: Any, param: str) -> None:
    answer = server.post("/v1/responses", {**BODY, **fields})
    assert (answer.status, answer.json["error"]["param"]) == (400, param), answer.body


# --- /infill --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("fim")
    markers = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"]
    tokenizer = tiny.tokenizer_with(place / "fim.model", *markers)
    fields = {**tiny.CONFIGS["gemma3"], "vocab_size": tiny.VOCAB_SIZE + len(markers),
              "tokenizer": str(tokenizer)}  # fmt: skip
    tiny.save_checkpoint(tiny.make_model(gemma_libtorch, fields, "float32"), place)
    tokenizer.rename(place / "tokenizer.model")
    with serving(place) as running:
        yield running


def test_a_gap_is_filled_for_an_editor(filler: Server) -> None:
    want = filler.complete("import o", suffix="\nexit()", max_tokens=8)
    body = {"input_prefix": "import ", "prompt": "o", "input_suffix": "\nexit()", "n_predict": 8}
    answer = filler.post("/infill", {**body, "samplers": ["top_k"], "t_max_predict_ms": 500}).json
    (choice,) = want["choices"]
    assert (answer["content"], answer["stop"]) == (choice["text"], True)
    assert answer["stop_type"] == ("limit" if choice["finish_reason"] == "length" else "eos")
    assert answer["tokens_evaluated"] == want["usage"]["prompt_tokens"]
    assert answer["tokens_predicted"] == want["usage"]["completion_tokens"]
    events = filler.post("/infill", {**body, "stream": True}).body.decode("ascii").split("\n\n")
    parts = [json.loads(event.removeprefix("data: ")) for event in events if event]
    assert "".join(part["content"] for part in parts) == choice["text"]
    assert [part["stop"] for part in parts] == [False] * (len(parts) - 1) + [True]


def test_other_files_are_known(filler: Server) -> None:
    body = {"input_prefix": "a", "input_suffix": "b", "n_predict": 1}
    plain = filler.post("/infill", body).json["tokens_evaluated"]
    extra = [{"filename": "x.py", "text": "import os"}, {"text": "y"}]
    told = filler.post("/infill", {**body, "input_extra": extra}).json["tokens_evaluated"]
    texts = ["x.py\nimport os", "y"]
    tokens = sum(filler.post("/tokenize", {"content": text}).json["count"] for text in texts)
    assert told == plain + tokens + len(texts)
    nothing = filler.post("/infill", {**body, "n_predict": 0}).json
    assert (nothing["content"], nothing["stop_type"]) == ("", "limit")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input_prefix": None}, "input_prefix"),
        ({"input_suffix": None}, "input_suffix"),
        ({"input_suffix": 1}, "input_suffix"),
        ({"prompt": [1]}, "prompt"),
        ({"n_predict": -2}, "n_predict"),
        ({"n": 2}, "n"),
        ({"input_extra": {}}, "input_extra"),
        ({"input_extra": ["a"]}, "input_extra[0]"),
        ({"input_extra": [{"filename": "a"}]}, "input_extra[0]"),
        ({"temperature": 3}, "temperature"),
    ],
)
def test_mistakes_of_editors_are_named(filler: Server, fields: Any, param: str) -> None:
    answer = filler.post("/infill", {"input_prefix": "a", "input_suffix": "b", **fields})
    assert (answer.status, answer.json["error"]["param"]) == (400, param), answer.body


def test_a_model_without_markers_says_so(server: Server) -> None:
    answer = server.post("/infill", {"input_prefix": "a", "input_suffix": "b"})
    assert (answer.status, answer.json["error"]["code"]) == (400, "unsupported_value")
