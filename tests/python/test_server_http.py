"""gemma serve on the wire: requests that are cut, slow, huge or malformed, and the end of a server."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from serving import NO_STOP, Server, save_tiny, serving

LONG: dict[str, Any] = {"prompt": "The ferry", "max_tokens": 15_000, "logit_bias": NO_STOP}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), 16_000)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(
        folder, "--max_body", "1000000", "--max_queue", "1000", "--kv_memory", "50"
    ) as one:
        yield one


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while part := connection.recv(1 << 16):
        data += part
    return data


def say(server: Server, data: bytes) -> bytes:
    """-> what the server says until it ends the connection."""
    with connected(server) as connection:
        connection.sendall(data)
        return read_all(connection)


def head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode()


def post(body: Any, *headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = ("Host: localhost", "Content-Type: application/json", f"Content-Length: {len(data)}")
    return head("POST /v1/completions HTTP/1.1", *lines, *headers) + data


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10, 400),  # TLS.
        (head("GET / HTTP/1.1 x"), 400),
        (head("GET / HTTP/9.9"), 400),
        (head("GET /health HTTP/1.1", "Host : localhost"), 400),
        (head("GET /health HTTP/1.1", "Host: localhost", "X: a\nY: b"), 400),
        (head("POST /v1/completions HTTP/1.1", "Content-Length: 4", "Content-Length: 5"), 400),
        (head("POST /v1/completions HTTP/1.1", "Content-Length: -1"), 400),
        (head("POST /x HTTP/1.1", "Content-Length: 4", "Transfer-Encoding: chunked"), 400),
        (head("POST /x HTTP/1.1", "Transfer-Encoding: chunked") + b"-2\r\nab", 400),
        (head("POST /x HTTP/1.1", "Transfer-Encoding: chunked") + b"zz\r\nab", 400),
        (head("POST /v1/completions HTTP/1.1", "Content-Length: 100000000000"), 413),
        (head("POST /x HTTP/1.1", "Transfer-Encoding: chunked") + b"fffffff\r\n" + b"a" * 100, 413),
        (head("GET / HTTP/1.1", *(f"X{i}: {i}" for i in range(20_000))), 431),
        (b"GET /" + b"a" * 30_000, 431),
    ],
)
def test_what_is_no_request_has_a_status(server: Server, data: bytes, status: int) -> None:
    answer = say(server, data)
    first, _, body = answer.partition(b"\r\n\r\n")
    assert first.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"Connection: close" in first
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert server.get("/health").status == 200


def test_statuses_of_requests(server: Server) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/v1/completions", 405),
        ("POST", "/health", 405),
        ("DELETE", "/v1/models", 405),
    ):
        answer = server.request(method, path)
        assert (answer.status, answer.json["error"]["type"]) == (status, "invalid_request_error")
    assert server.get("/v1/completions").headers["Allow"] == "POST"
    seen = server.request("HEAD", "/v1/models")
    assert (seen.status, seen.body) == (200, b"")
    assert seen.headers["Content-Length"] == server.get("/v1/models").headers["Content-Length"]
    for body, type_, status in (
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"prompt": "\xff"}', "application/json", 400),
        (b'{"prompt": "\\ud800"}', "application/json", 400),
        (b'{"prompt": 1e999}', "application/json", 400),
        (b'{"x": ' + b"[" * 60 + b"]" * 60 + b"}", "application/json; charset=utf-8", 400),
        (b'{"x": ' + b"[" * 100_000, "application/json", 400),
        (b'{"x": ' * 100_000, "application/json", 400),
    ):
        answer = server.request("POST", "/v1/completions", body, content_type=type_)
        assert (answer.status, list(answer.json)) == (status, ["error"]), body[:40]


def test_another_host_is_refused(server: Server) -> None:
    for host, status in (
        ("localhost", 200), ("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:80", 200),
        ("evil.example", 403), ("evil.example:80", 403), ("127.evil.example", 403),
    ):  # fmt: skip
        assert server.get("/health", host=host).status == status, host


def test_a_body_may_come_in_pieces_and_chunks(server: Server) -> None:
    whole = post({"prompt": "We", "max_tokens": 3, "seed": 1}, "Connection: close")
    want = json.loads(say(server, whole).partition(b"\r\n\r\n")[2])["choices"]
    with connected(server) as connection:
        for i in range(len(whole)):
            connection.sendall(whole[i : i + 1])
        got = read_all(connection)
    assert json.loads(got.partition(b"\r\n\r\n")[2])["choices"] == want
    body = whole.partition(b"\r\n\r\n")[2]
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[i : i + 1]) for i in range(len(body)))
    lines = ("Host: localhost", "Content-Type: application/json", "Connection: close")
    start = head("POST /v1/completions HTTP/1.1", *lines, "Transfer-Encoding: chunked")
    got = say(server, start + chunks + b"0\r\n\r\n")
    assert json.loads(got.partition(b"\r\n\r\n")[2])["choices"] == want


def test_a_client_may_wait_until_the_server_wants_the_body(server: Server) -> None:
    data = post({"prompt": "We", "max_tokens": 1}, "Expect: 100-continue", "Connection: close")
    start, _, body = data.partition(b"\r\n\r\n")
    with connected(server) as connection:
        connection.sendall(start + b"\r\n\r\n")
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_all(connection).startswith(b"HTTP/1.1 200 OK")


def test_requests_of_a_connection_are_answered_in_their_order(server: Server) -> None:
    first = post({"prompt": "We", "max_tokens": 40, "seed": 1})
    data = first + head("GET /health HTTP/1.1", "Host: localhost") + head("GET /x HTTP/1.0")
    answer = say(server, data)
    places = [answer.index(text) for text in (b"text_completion", b'{"status":"ok"}', b" 404 ")]
    assert places == sorted(places)


def test_an_old_client_gets_a_stream_without_chunks(server: Server) -> None:
    data = post({"prompt": "We", "max_tokens": 3, "stream": True}).replace(b"HTTP/1.1", b"HTTP/1.0")
    start, _, body = say(server, data).partition(b"\r\n\r\n")
    assert b"chunked" not in start
    assert body.startswith(b"data: {")
    assert body.endswith(b"data: [DONE]\n\n")


def test_a_client_that_goes_ends_its_text(server: Server) -> None:
    for stream in (True, False):
        with connected(server) as connection:
            connection.sendall(post({**LONG, "stream": stream}))
            while server.metrics()["num_requests_running"] == 0:
                time.sleep(0.01)
            if stream:
                assert connection.recv(100)
        start = time.monotonic()
        metrics = server.wait_until_idle()
        assert time.monotonic() - start < 2
        assert metrics["kv_bytes_free"] + metrics["kv_bytes_cached"] == metrics["kv_bytes"]


def test_two_hundred_cut_streams_leave_nothing(server: Server) -> None:
    before = server.wait_until_idle()
    connections = []
    for _ in range(200):
        connections.append(socket.create_connection(("127.0.0.1", server.port), timeout=60))
        connections[-1].sendall(post({**LONG, "stream": True}))
    assert server.get("/health").status == 200
    for index, connection in enumerate(connections):
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        if index % 2:
            connection.shutdown(socket.SHUT_WR)
        connection.close()
    after = server.wait_until_idle()
    assert after["kv_bytes_free"] + after["kv_bytes_cached"] == after["kv_bytes"]
    ended = 'request_success_total{reason="cancelled"}'
    assert after[ended] - before.get(ended, 0) == 200
    server.complete("We", max_tokens=3)


def test_a_client_that_does_not_read_stops_nobody(server: Server) -> None:
    with connected(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(post({**LONG, "stream": True, "logprobs": 20, "n": 4}))
        for seed in range(5):
            server.complete("We", max_tokens=10, seed=seed)
            assert server.get("/health").status == 200
    server.wait_until_idle()


def test_health_is_told_while_a_long_prompt_runs(server: Server) -> None:
    body = {"prompt": "word " * 3500, "max_tokens": 1}
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(server.post, "/v1/completions", body)
        slowest = 0.0
        while not answer.done():
            start = time.monotonic()
            assert server.get("/health").status == 200
            slowest = max(slowest, time.monotonic() - start)
        assert answer.result().status == 200
    assert slowest < 1


# --- the end --------------------------------------------------------------------------------------


def test_a_signal_lets_answers_end(folder: Path) -> None:
    server = Server(folder)
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(server.post, "/v1/completions", {**LONG, "max_tokens": 300})
        while server.metrics()["num_requests_running"] == 0:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        assert answer.result().status == 200
        assert answer.result().headers["Connection"] == "close"
    assert server.wait() == 0
    assert any("a second signal ends at once" in line for line in server.log)


def test_what_is_not_answered_in_time_is_told_so(folder: Path) -> None:
    server = Server(folder, "--grace", "0.1")
    with ThreadPoolExecutor(2) as threads:
        whole = threads.submit(server.post, "/v1/completions", {**LONG, "n": 8})
        stream = threads.submit(server.post, "/v1/completions", {**LONG, "stream": True, "n": 8})
        while server.metrics()["num_requests_running"] < 16:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        assert whole.result().status == 503
        assert whole.result().json["error"]["code"] == "shutting_down"
        assert stream.result().events[-1]["error"]["code"] == "shutting_down"
    assert server.wait() == 0


def test_a_second_signal_ends_at_once(folder: Path) -> None:
    server = Server(folder, "--grace", "60")
    with connected(server) as connection:
        connection.sendall(post({**LONG, "n": 8}))
        while server.metrics()["num_requests_running"] == 0:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        while not any("a second signal" in line for line in server.log):
            time.sleep(0.01)
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == -signal.SIGINT


def test_a_server_that_cannot_be_says_why(folder: Path, server: Server) -> None:
    from test_program import run

    ckpt = folder / "model.ckpt"
    for flags, text in (
        (["--port", str(server.port)], f"cannot listen on 127.0.0.1 port {server.port}"),
        (["--host", "nothing.invalid"], "cannot listen on nothing.invalid"),
        (["--numerics", "exact"], "serve: exact numerics"),
        (["--api_key_file", "/nothing"], "--api_key_file"),
    ):
        done = run("serve", "--ckpt", ckpt, *flags)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert text in done.stderr
