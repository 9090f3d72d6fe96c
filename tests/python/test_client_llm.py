"""gemma serve, spoken to by the program llm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from client_server import KEY, direct
from serving import Server

pytest_plugins = ("client_server",)
pytest.importorskip("llm", reason="llm is missing: scripts/server_clients.sh")

RULES = {"max_tokens": 12, "temperature": 0}


class Llm:
    """Of a home of its own, which knows the server as `gemma` and as `base`."""

    def __init__(self, home: Path, base_url: str) -> None:
        common = f"  model_name: tiny\n  api_base: {base_url}\n  api_key_name: gemma\n"
        (home / "extra-openai-models.yaml").write_text(
            f"- model_id: gemma\n{common}- model_id: base\n{common}  completion: true\n"
        )
        self.environment = {**os.environ, "LLM_USER_PATH": str(home)}
        self.run("keys", "set", "gemma", "--value", KEY)

    def run(self, *arguments: str, given: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            input=given, capture_output=True, text=True, check=False, timeout=60,
            env=self.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def llm(tmp_path: Path, base_url: str) -> Llm:
    return Llm(tmp_path, base_url)


def test_a_prompt(server: Server, llm: Llm) -> None:
    options = ["-o", "temperature", "0", "-o", "max_tokens", "12"]
    want = direct(
        server, "/v1/chat/completions", messages=[{"role": "user", "content": "When?"}], **RULES
    )
    assert llm.run("-m", "gemma", *options, "When?") == want + "\n"
    assert llm.run("-m", "gemma", *options, "--no-stream", "When?") == want + "\n"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "When?"}]
    want = direct(server, "/v1/chat/completions", messages=messages, **RULES)
    assert llm.run("-m", "gemma", *options, "-s", "Be brief.", "When?") == want + "\n"
    want = direct(server, "/v1/completions", prompt="The ferry", **RULES)
    assert llm.run("-m", "base", *options, "The ferry") == want + "\n"


def test_a_chat(server: Server, llm: Llm) -> None:
    messages = [{"role": "user", "content": "a"}]
    first = direct(server, "/v1/chat/completions", messages=messages, **RULES)
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "b"}]
    second = direct(server, "/v1/chat/completions", messages=messages, **RULES)
    said = llm.run(
        "chat", "-m", "gemma", "-o", "temperature", "0", "-o", "max_tokens", "12",
        given="a\nb\nexit\n",
    )  # fmt: skip
    assert first in said
    assert second in said[said.index(first) + len(first) :]
