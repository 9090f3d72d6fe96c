"""The examples with Ray, which only this test needs."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import tiny
from gemma_libtorch.engine import Engine, Request
from serving import save_tiny
from test_program import PROGRAM

EXAMPLES = tiny.ROOT / "examples"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="ray is not installed: pip install 'ray[data,serve]'",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), 500)


def engine(folder: Path) -> Engine:
    config = gemma_libtorch.config.GemmaConfig.from_pretrained(folder / "model.ckpt")
    model = gemma_libtorch.model.GemmaForCausalLM(config)
    model.load_weights(folder / "model.ckpt")
    model.set_numerics("fast")
    return Engine(model)


def command(name: str, folder: Path, *flags: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), "--ckpt", str(folder / "model.ckpt"), *flags]


def environment() -> dict[str, str]:
    path = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": path, "RAY_DEDUP_LOGS": "0"}


def test_a_batch_says_what_an_engine_says(folder: Path, tmp_path: Path) -> None:
    prompts = [f"The ferry {i} leaves {'and ' * (i % 9)}" for i in range(64)]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    flags = ["--prompts", str(file), "--out", str(tmp_path / "out"), "--max_tokens", "9"]
    subprocess.run(
        command("ray_data_batch.py", folder, *flags),
        env=environment(), check=True, timeout=120, capture_output=True,
    )  # fmt: skip
    lines = [json.loads(line) for path in (tmp_path / "out").iterdir() for line in path.open()]
    answers = {line["prompt"]: line["answer"] for line in lines}
    requests = [Request(prompt, max_tokens=9, temperature=0.0) for prompt in prompts]
    want = [answer.text for answer in engine(folder).generate(requests)]
    assert (len(lines), answers) == (64, dict(zip(prompts, want, strict=True)))


def ask(url: str, body: Any = None) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_two_replicas_answer_as_one_server(folder: Path, tmp_path: Path) -> None:
    port = 18_765
    url = f"http://127.0.0.1:{port}"
    flags = ["--port", str(port), "--gemma", str(PROGRAM)]
    with (tmp_path / "log").open("w") as log:
        serve = subprocess.Popen(
            command("ray_serve.py", folder, *flags), env=environment(), stdout=log, stderr=log
        )
        try:
            for _ in range(400):
                try:
                    if ask(f"{url}/health")[0] == 200:
                        break
                except OSError:
                    pass
                assert serve.poll() is None
                time.sleep(0.25)
            rules = [{"max_tokens": 12, "temperature": 0.9, "seed": seed} for seed in range(32)]
            bodies = [{"prompt": "The ferry", **rule} for rule in rules]
            with ThreadPoolExecutor(16) as threads:
                answers = list(threads.map(lambda body: ask(f"{url}/v1/completions", body), bodies))
            texts = [json.loads(body)["choices"][0]["text"] for _, body in answers]
            requests = [Request("The ferry", **rule) for rule in rules]
            assert texts == [answer.text for answer in engine(folder).generate(requests)]
            _, stream = ask(f"{url}/v1/completions", {**bodies[0], "stream": True})
            assert stream.endswith(b"data: [DONE]\n\n")
            assert ask(f"{url}/v1/completions", {"prompt": 4})[0] == 400
            for _ in range(60):  # The second one may be up later than the first.
                if len(replicas_in(tmp_path / "log")) == 2:
                    break
                with ThreadPoolExecutor(16) as threads:
                    list(threads.map(lambda body: ask(f"{url}/v1/completions", body), bodies))
        finally:
            serve.send_signal(signal.SIGINT)
            serve.wait(timeout=60)
    assert len(replicas_in(tmp_path / "log")) == 2


def replicas_in(log: Path) -> set[str]:
    """The processes that answered."""
    lines = log.read_text().splitlines()
    return {line.split("pid=")[1].split(")")[0] for line in lines if "POST /v1/completions" in line}
