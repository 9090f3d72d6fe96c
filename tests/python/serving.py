"""A running `gemma serve` for tests, spoken to by http.client."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gemma_libtorch
import tiny
from test_program import PROGRAM

# Of the tiny tokenizer: neither eos nor <end_of_turn> is chosen.
NO_STOP = {"1": -100, "5": -100}


def save_tiny(place: Path, positions: int) -> Path:
    """A tiny Gemma 3 that sees so many tokens, as place / "model.ckpt". -> place"""
    fields = {**tiny.CONFIGS["gemma3"], "max_position_embeddings": positions}
    tiny.save_checkpoint(tiny.make_model(gemma_libtorch, fields, "float32"), place)
    return place


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """Of a stream, less [DONE] at its end."""
        *events, done, rest = self.body.decode("ascii").split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]


class Server:
    """Of the model in `folder`: a model.ckpt, or else the folder. From now until stop()."""

    def __init__(self, folder: Path, *flags: str, wait: bool = True) -> None:
        file = folder / "model.ckpt"
        ckpt = str(file if file.exists() else folder)
        command = [str(PROGRAM), "serve", "--ckpt", ckpt, "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--threads", "1", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.line = self.process.stdout.readline()
        found = re.fullmatch(r"serving (\S+) on http://127\.0\.0\.1:(\d+)\n", self.line)
        assert found, (self.line, self.process.communicate(timeout=60))
        self.name, self.port = found[1], int(found[2])
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()
        while wait and self.get("/health").status == 503:
            time.sleep(0.02)

    def _read_log(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        with contextlib.closing(self.connect()) as connection:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        data = json.dumps(body).encode()
        return self.request("POST", path, data, **{"content_type": "application/json", **headers})

    def complete(self, prompt: Any, **fields: Any) -> Any:
        answer = self.post("/v1/completions", {"prompt": prompt, **fields})
        assert answer.status == 200, answer.body
        return answer.json

    def chat(self, text: str, **fields: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        answer = self.post("/v1/chat/completions", {"messages": messages, **fields})
        assert answer.status == 200, answer.body
        return answer.json

    def metrics(self) -> dict[str, float]:
        lines = self.get("/metrics").body.decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name.removeprefix("gemma:"): float(value) for name, value in pairs}

    def wait_until_idle(self) -> dict[str, float]:
        for _ in range(500):
            metrics = self.metrics()
            if metrics["num_requests_running"] + metrics["num_requests_waiting"] == 0:
                break
            time.sleep(0.02)
        return metrics

    def wait(self) -> int:
        """For its end -> what the process returned."""
        try:
            return self.process.wait(timeout=60)
        finally:
            self.process.kill()
            self._reader.join()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()


@contextlib.contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    server = Server(folder, *flags)
    try:
        yield server
    finally:
        code = server.stop()
    assert code == 0, server.log
