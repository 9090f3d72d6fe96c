"""gemma serve, spoken to by litellm, which takes it for OpenAI's or for vLLM's server."""

from __future__ import annotations

from typing import Any

import pytest
from client_server import KEY, direct
from serving import Server

pytest_plugins = ("client_server",)
litellm = pytest.importorskip("litellm", reason="litellm is missing: scripts/server_clients.sh")

MESSAGES = [{"role": "user", "content": "When does the ferry leave?"}]
RULES: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 12, "temperature": 0}


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_a_chat(server: Server, base_url: str, provider: str) -> None:
    ask: dict[str, Any] = {
        "model": f"{provider}/tiny", "api_base": base_url, "api_key": KEY, **RULES
    }  # fmt: skip
    want = direct(server, "/v1/chat/completions", **RULES)
    answer = litellm.completion(**ask)
    assert answer.choices[0].message.content == want
    assert answer.usage.completion_tokens <= 12
    parts = list(litellm.completion(**ask, stream=True, stream_options={"include_usage": True}))
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == want
    assert parts[-1].usage.total_tokens == answer.usage.total_tokens


def test_a_completion(server: Server, base_url: str) -> None:
    rules: dict[str, Any] = {"prompt": "The ferry", "max_tokens": 12, "seed": 3}
    model = "text-completion-openai/tiny"
    answer = litellm.text_completion(model=model, api_base=base_url, api_key=KEY, **rules)
    assert answer.choices[0].text == direct(server, "/v1/completions", **rules)


def test_a_mistake_has_its_class(base_url: str) -> None:
    ask: dict[str, Any] = {
        "model": "openai/tiny", "api_base": base_url, "max_retries": 0, **RULES
    }  # fmt: skip
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**ask, api_key="wrong")
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(**{**ask, "temperature": 9}, api_key=KEY)
    ask["messages"] = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**ask, api_key=KEY)
