"""Fixtures of the tests of other people's clients: a server of a tiny model, with a key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import Server, save_tiny, serving

KEY = "secret"
NAME = "tiny"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = save_tiny(tmp_path_factory.mktemp("tiny"), 2000)
    with serving(place, "--api_key", KEY, "--served_name", NAME, "--max_queue", "300") as running:
        yield running


@pytest.fixture
def base_url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/v1"


def direct(server: Server, path: str, **body: object) -> str:
    """The text of an answer that no client is asked for."""
    answer = server.post(path, body, authorization=f"Bearer {KEY}")
    assert answer.status == 200, answer.body
    (choice,) = answer.json["choices"]
    return choice["text"] if "text" in choice else choice["message"]["content"]
