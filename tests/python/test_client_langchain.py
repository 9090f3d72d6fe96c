"""gemma serve, spoken to by LangChain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from client_server import KEY, direct
from serving import Server

pytest_plugins = ("client_server",)
langchain = pytest.importorskip(
    "langchain_openai", reason="langchain-openai is missing: scripts/server_clients.sh"
)

TALK = [("system", "Be brief."), ("human", "When does the ferry leave?")]
MESSAGES = [{"role": "system", "content": TALK[0][1]}, {"role": "user", "content": TALK[1][1]}]


@pytest.fixture
def rules(base_url: str) -> dict[str, Any]:
    return {"base_url": base_url, "api_key": KEY, "model": "tiny", "max_tokens": 12, "seed": 2}


def test_a_chat(server: Server, rules: dict[str, Any]) -> None:
    want = direct(server, "/v1/chat/completions", messages=MESSAGES, max_tokens=12, seed=2)
    chat = langchain.ChatOpenAI(**rules)
    answer = chat.invoke(TALK)
    assert answer.content == want
    assert answer.usage_metadata["output_tokens"] <= 12
    assert "".join(part.content for part in chat.stream(TALK)) == want
    many = chat.batch([TALK] * 5)
    assert [one.content for one in many] == [want] * 5
    assert asyncio.run(chat.ainvoke(TALK)).content == want


def test_a_completion(server: Server, rules: dict[str, Any]) -> None:
    rules["temperature"] = 0.5
    fields = {"max_tokens": 12, "seed": 2, "temperature": 0.5}
    want = direct(server, "/v1/completions", prompt="The ferry", **fields)
    model = langchain.OpenAI(**rules)
    assert model.invoke("The ferry") == want
    assert "".join(model.stream("The ferry")) == want


@pytest.mark.skip(reason="/v1/responses is not served yet")
def test_responses(server: Server, rules: dict[str, Any]) -> None:
    del rules["seed"]  # Not of that path.
    want = direct(server, "/v1/chat/completions", messages=MESSAGES, max_tokens=12, temperature=0)
    chat = langchain.ChatOpenAI(**rules, temperature=0, use_responses_api=True)
    assert chat.invoke(TALK).text == want
    assert "".join(part.text for part in chat.stream(TALK)) == want


@pytest.mark.skip(reason="response_format json_schema is not served yet")
def test_an_answer_of_a_form(rules: dict[str, Any]) -> None:
    import pydantic

    class Departure(pydantic.BaseModel):
        hour: int

    chat = langchain.ChatOpenAI(**{**rules, "max_tokens": 200})
    answer = chat.with_structured_output(Departure, method="json_schema").invoke(TALK)
    assert isinstance(answer, Departure)
