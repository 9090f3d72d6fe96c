"""gemma serve under load: how its memory behaves, and what a client may keep it from.

GEMMA_TEST_SECONDS is how long the server is kept busy (default: 4).
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from serving import NO_STOP, Server, save_tiny, serving
from test_server_http import LONG, connected, head, post, read_all

SECONDS = float(os.environ.get("GEMMA_TEST_SECONDS", "4"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), 16_000)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "--max_queue", "1000", "--max_batch", "4", "--kv_memory", "50") as one:
        yield one


def memory(server: Server) -> int:
    """Resident, in bytes."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


@contextlib.contextmanager
def streams(server: Server, count: int) -> Iterator[list[socket.socket]]:
    """Of endless texts, that have begun."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(server)) for _ in range(count)]
        for connection in connections:
            connection.sendall(post({**LONG, "stream": True}))
        for connection in connections:
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        yield connections


def test_five_hundred_streams_take_little_memory(server: Server) -> None:
    server.complete("We", max_tokens=3)
    before = memory(server)
    with streams(server, 500):
        metrics = server.metrics()
        assert metrics["num_requests_running"] + metrics["num_requests_waiting"] == 500
        taken = memory(server) - before
        assert server.get("/health").status == 200
    server.wait_until_idle()
    assert taken < 64e6, taken


def test_memory_does_not_grow_under_load(server: Server) -> None:
    end = time.monotonic() + SECONDS

    def client(index: int) -> int:
        answers = 0
        while time.monotonic() < end:
            if index % 8 == 7:
                with connected(server) as connection:
                    connection.sendall(post({**LONG, "stream": True}))
                    connection.recv(100)
            else:
                prompt = f"{index} " * (1 + (answers * 7 + index) % 60)
                server.complete(prompt, max_tokens=30, seed=answers, logit_bias=NO_STOP)
            answers += 1
        return answers

    with ThreadPoolExecutor(12) as threads:
        counts = threads.map(client, range(12))
        time.sleep(SECONDS / 2)
        before = memory(server)
        assert min(counts) > 0
    grown = memory(server) / before - 1
    print(f"resident: {before / 1e6:.1f} MB after half of {SECONDS} s, {grown:+.2%} at the end")
    assert grown < 0.01
    metrics = server.wait_until_idle()
    assert metrics["kv_bytes_free"] + metrics["kv_bytes_cached"] == metrics["kv_bytes"]


BAD = [
    b"garbage\r\n\r\n",
    head("POST /v1/completions HTTP/1.1", "Content-Length: 100000000000"),
    head("GET / HTTP/1.1", *(f"X{i}: {i}" for i in range(3000))),
    head("POST /x HTTP/1.1", "Transfer-Encoding: chunked") + b"fffff\r\n" + b"a" * 1000,
    post({"prompt": "We", "temperature": 9}),
    post({"prompt": "We", "max_tokens": 5})[:-5],
    post({"prompt": ["We"] * 500, "n": 128}),
]


def test_what_is_refused_leaves_no_memory_behind(server: Server) -> None:
    def send_all(rounds: int) -> None:
        for data in BAD * rounds:
            with connected(server) as connection:
                connection.sendall(data)
                if data is BAD[0]:
                    assert connection.recv(12) == b"HTTP/1.1 400"

    send_all(20)
    before = memory(server)
    send_all(100)
    server.wait_until_idle()
    assert memory(server) - before < 2e6


BIG = 9_900_000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"prompt": "' + b"word " * (BIG // 5) + b'"}', 400),
        (b'{"prompt": "' + b"<bos>" * (BIG // 5) + b'"}', 400),
        (b'{"messages": [' + b'{"role": "user", "content": "a"},' * (BIG // 33) + b"1]}", 400),
        (b'{"messages": [{"role": "user", "content": "' + b"<bos>" * (BIG // 5) + b'"}]}', 400),
        (b'{"prompt": [' + b"{}," * (BIG // 3) + b"{}]}", 400),
        (b'{"content": "' + b"a" * BIG + b'"}', 400),
    ],
    ids=["words", "markers", "messages", "markers of a chat", "objects", "tokenize"],
)
def test_a_huge_body_keeps_nobody_waiting(server: Server, body: bytes, status: int) -> None:
    path = "/v1/chat/completions" if b"messages" in body else "/v1/completions"
    if b"content" in body[:10]:
        path = "/tokenize"
    start = time.monotonic()
    answer = server.request("POST", path, body, content_type="application/json")
    assert answer.status == status, answer.body[:200]
    assert server.get("/v1/models").status == 200
    assert time.monotonic() - start < 5


def test_too_large_a_body_is_refused_at_once(server: Server) -> None:
    start = time.monotonic()
    with connected(server) as connection:
        connection.sendall(head("POST /v1/completions HTTP/1.1", "Content-Length: 10000001"))
        assert connection.recv(12) == b"HTTP/1.1 413"
    assert time.monotonic() - start < 0.5


def test_a_server_short_of_files_serves_those_that_it_has(folder: Path) -> None:
    with serving(folder) as server:
        open_files = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        most = open_files + 10
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (most, most))
        connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
        for connection in connections:
            connection.settimeout(60)
            connection.sendall(head("GET /health HTTP/1.1", "Host: localhost", "Connection: close"))
        answers = []
        for connection in connections:
            with connection:
                answers.append(read_all(connection))
        assert all(answer.startswith(b"HTTP/1.1 200 OK") for answer in answers)


def test_a_request_that_proxies_may_read_in_another_way_is_refused(server: Server) -> None:
    body = b"2\r\n{}\r\n0\r\n\r\n"
    lines = ("Host: localhost", "Content-Type: application/json")
    for data in (
        head("POST /tokenize HTTP/1.1", *lines, "Transfer-Encoding: xchunked") + body,
        head("POST /tokenize HTTP/1.1", *lines, "Transfer-Encoding: identity") + body,
        head("POST /tokenize HTTP/1.1", *lines, "Transfer-Encoding: gzip, chunked") + body,
        head("POST /tokenize HTTP/1.0", *lines, "Transfer-Encoding: chunked") + body,
        head("POST /tokenize HTTP/1.1", *lines, "Transfer-Encoding : chunked") + body,
        head("POST /tokenize HTTP/1.1", *lines, "Content-Length: +2") + b"{}",
        head("POST /tokenize HTTP/1.1", *lines, "Content-Length: 2 2") + b"{}",
        head("GET /health HTTP/1.1", "Host: localhost", "Host: evil.example"),
        head("GET /health HTTP/1.1", "Host: localhost", "X: a\0b"),
    ):
        with connected(server) as connection:
            connection.sendall(data)
            answer: Any = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 400 "), data
        assert answer.count(b"HTTP/1.1") == 1, data
        assert b"Connection: close" in answer
