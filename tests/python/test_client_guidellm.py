"""gemma serve under the load of guidellm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from client_server import KEY
from serving import Server

pytest_plugins = ("client_server",)
pytest.importorskip("guidellm", reason="guidellm is missing: scripts/server_clients.sh")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_eight_clients(server: Server, tmp_path: Path, path: str) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"The ferry of number {index} leaves at\n" for index in range(60)))
    url = f"http://127.0.0.1:{server.port}"
    backend = {"kind": "openai_http", "target": url, "model": "tiny", "request_format": path}
    if "chat" in path:
        backend["extras"] = {"body": {"max_tokens": 16}}  # type: ignore[assignment]
    backend["api_key"] = KEY
    arguments = {
        "backend": json.dumps(backend),
        "profile": "kind=concurrent,streams=8",
        "constraint": "kind=max_requests,count=40",
        "data": f"kind=text_file,path={prompts}",
        "output": f"kind=json,path={tmp_path / 'result.json'}",
    }
    done = subprocess.run(
        [
            sys.executable, "-m", "guidellm", "run", "--disable-console",
            *(f"--{name}={value}" for name, value in arguments.items()),
        ],
        capture_output=True, text=True, check=False, timeout=200, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((tmp_path / "result.json").read_text())["benchmarks"]
    assert len(result["requests"]["successful"]) == 40
    assert not result["requests"]["errored"]
