"""What OpenAI's own client asks for beside chats and completions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from client_server import KEY, direct
from serving import Server

pytest_plugins = ("client_server",)
openai = pytest.importorskip("openai", reason="openai is missing: scripts/server_clients.sh")
pydantic = pytest.importorskip("pydantic")

MESSAGES: Any = [{"role": "user", "content": "When does the ferry leave?"}]
RULES: Any = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_tokens": 200}


class Departure(pydantic.BaseModel):  # type: ignore[name-defined,misc]
    hour: int


@pytest.fixture
def client(base_url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=base_url, api_key=KEY, max_retries=0) as made:
        yield made


@pytest.mark.skip(reason="probabilities of a prompt (echo) are not served yet")
def test_a_prompt_is_scored(client: Any) -> None:
    rules: Any = {"model": "tiny", "prompt": "The ferry leaves", "echo": True, "logprobs": 1}
    (choice,) = client.completions.create(**rules, max_tokens=0).choices
    assert choice.text == "The ferry leaves"
    assert choice.logprobs.token_logprobs[0] is None
    assert all(logprob <= 0 for logprob in choice.logprobs.token_logprobs[1:])
    assert len(choice.logprobs.top_logprobs) == len(choice.logprobs.tokens)


@pytest.mark.skip(reason="/v1/responses is not served yet")
def test_responses(server: Server, client: Any) -> None:
    want = direct(server, "/v1/chat/completions", messages=MESSAGES, temperature=0, max_tokens=20)
    ask: Any = {
        "model": "tiny", "input": MESSAGES[0]["content"], "temperature": 0, "max_output_tokens": 20
    }  # fmt: skip
    answer = client.responses.create(**ask)
    assert answer.output_text == want
    assert answer.usage.output_tokens <= 20
    with client.responses.stream(**ask) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "".join(deltas) == want


@pytest.mark.skip(reason="response_format json_schema is not served yet")
def test_an_answer_of_a_form(client: Any) -> None:
    answer = client.chat.completions.parse(**RULES, response_format=Departure)
    assert isinstance(answer.choices[0].message.parsed, Departure)
    with client.chat.completions.stream(**RULES, response_format=Departure) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == answer.choices[0].message.parsed


@pytest.mark.skip(reason="tools are not served yet")
def test_a_function_is_called(client: Any) -> None:
    schema = Departure.model_json_schema()
    function = {"name": "tell", "description": "Tells when.", "parameters": schema}
    answer = client.chat.completions.create(
        **RULES,
        tools=[{"type": "function", "function": function}],
        tool_choice={"type": "function", "function": {"name": "tell"}},
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "tell"
    assert set(json.loads(call.function.arguments)) == {"hour"}


@pytest.mark.skip(reason="/v1/embeddings is not served yet")
def test_embeddings(client: Any) -> None:
    texts = ["The ferry", "When does it leave?"]
    answer = client.embeddings.create(model="tiny", input=texts)
    plain = client.embeddings.create(model="tiny", input=texts, encoding_format="float")
    assert [one.index for one in answer.data] == [0, 1]
    for one, same in zip(answer.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(same.embedding)
