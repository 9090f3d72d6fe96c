"""gemma serve, spoken to by LlamaIndex."""

from __future__ import annotations

from typing import Any

import pytest
from client_server import KEY, direct
from serving import Server

pytest_plugins = ("client_server",)
openai_like = pytest.importorskip(
    "llama_index.llms.openai_like",
    reason="llama-index-llms-openai-like is missing: scripts/server_clients.sh",
)
llms = pytest.importorskip("llama_index.core.llms")

RULES: dict[str, Any] = {"max_tokens": 12, "temperature": 0}


@pytest.fixture
def options(base_url: str) -> dict[str, Any]:
    return {"model": "tiny", "api_base": base_url, "api_key": KEY, **RULES}


def test_a_chat(server: Server, options: dict[str, Any]) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "When?"}]
    want = direct(server, "/v1/chat/completions", messages=messages, **RULES)
    talk = [llms.ChatMessage(**message) for message in messages]
    model = openai_like.OpenAILike(**options, is_chat_model=True)
    assert model.chat(talk).message.content == want
    assert "".join(part.delta for part in model.stream_chat(talk)) == want


def test_a_completion(server: Server, options: dict[str, Any]) -> None:
    want = direct(server, "/v1/completions", prompt="The ferry", **RULES)
    model = openai_like.OpenAILike(**options)
    assert model.complete("The ferry").text == want
    assert "".join(part.delta for part in model.stream_complete("The ferry")) == want
