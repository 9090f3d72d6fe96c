"""gemma serve of an EmbeddingGemma: the vectors that gemma embed gives."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny_embedding
import torch
from gemma_libtorch.embedding import EmbeddingGemma
from serving import Server, save_tiny, serving
from test_program import PROGRAM

TEXTS = ["The ferry leaves at noon", "We", "", "a b c " * 20, "Mars is red."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedding.save(tmp_path_factory.mktemp("embedding"))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "--served_name", "tiny", "--max_queue", "1000") as running:
        yield running


@pytest.fixture(scope="module")
def model(folder: Path) -> EmbeddingGemma:
    return EmbeddingGemma.from_pretrained(folder, numerics="fast")


def embed(server: Server, inputs: Any, **fields: Any) -> torch.Tensor:
    """-> [N, dim]"""
    answer = server.post("/v1/embeddings", {"input": inputs, **fields})
    assert answer.status == 200, answer.body
    data = answer.json["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return torch.tensor([item["embedding"] for item in data])


def test_vectors_are_those_of_gemma_embed(server: Server, folder: Path) -> None:
    for fields, flags in [
        ({}, []),
        ({"dimensions": 8}, ["--dim", "8"]),
        ({"dimensions": 20}, []),
        ({"prompt_name": "query", "dimensions": 3}, ["--prompt-name", "query", "--dim", "3"]),
    ]:
        command = [str(PROGRAM), "embed", "--ckpt", str(folder), *flags, "--", *TEXTS]
        lines = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
        want = torch.tensor([json.loads(line)["embedding"] for line in lines.splitlines()])
        assert torch.equal(embed(server, TEXTS, **fields), want), fields
        for text, row in zip(TEXTS, want, strict=True):
            assert torch.equal(embed(server, text, **fields)[0], row)


def test_tokens_are_taken_as_they_are(server: Server, model: EmbeddingGemma) -> None:
    ids = [model.tokenizer.encode(text, eos=True) for text in TEXTS]
    want = model.forward(ids)
    assert torch.equal(embed(server, ids), want)
    assert torch.equal(embed(server, ids[0]), want[:1])
    assert torch.equal(embed(server, [TEXTS[0], ids[1]]), want[:2])


def test_the_answer_has_openais_form(server: Server, model: EmbeddingGemma) -> None:
    answer = server.post("/v1/embeddings", {"input": TEXTS, "encoding_format": "base64"}).json
    rows = [torch.frombuffer(bytearray(base64.b64decode(item["embedding"])), dtype=torch.float32)
            for item in answer["data"]]  # fmt: skip
    assert torch.equal(torch.stack(rows), model.embed(TEXTS))
    tokens = sum(len(model.tokenizer.encode(text, eos=True)) for text in TEXTS)
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert (answer["object"], answer["model"]) == ("list", "tiny")
    assert answer["data"][0]["object"] == "embedding"
    (listed,) = server.get("/v1/models").json["data"]
    assert (listed["capabilities"], listed["max_model_len"]) == (["embedding"], 256)
    tokens = server.post("/tokenize", {"prompt": "We"}).json["tokens"]
    assert server.post("/detokenize", {"tokens": tokens}).json["content"] == "We"


def test_those_at_once_are_what_each_is_alone(server: Server, model: EmbeddingGemma) -> None:
    batches = [[f"Number {i} {'and ' * (j % 40)}" for j in range(i % 50 + 1)] for i in range(60)]
    want = [model.embed(batch) for batch in batches]
    stop, slowest = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            assert server.get("/health").status == 200
            slowest.append(1)

    looker = threading.Thread(target=look)
    looker.start()
    with ThreadPoolExecutor(30) as threads:
        got = list(threads.map(lambda batch: embed(server, batch), batches))
    stop.set()
    looker.join()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert slowest


def test_a_client_that_goes_ends_its_texts(server: Server) -> None:
    body = json.dumps({"input": ["word " * 100] * 2048}).encode()
    connection = server.connect()
    connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
    connection.close()
    assert embed(server, "We").shape == (1, 20)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "input", "is missing"),
        ({"input": []}, "input", "a list"),
        ({"input": 4}, "input", "is 4"),
        ({"input": {"a": 1}}, "input", "an object"),
        ({"input": [[]]}, "input", "without tokens"),
        ({"input": [1, "a"]}, "input", 'is "a"'),
        ({"input": ["a", 1]}, "input", "is 1"),
        ({"input": [451]}, "input", "0 to 450"),
        ({"input": ["a"] * 2049}, "input", "2048 at most"),
        ({"input": ["a", "word " * 400]}, "input", "text 1 of input has"),
        ({"input": "a", "dimensions": 0}, "dimensions", "from 1 to 20"),
        ({"input": "a", "dimensions": 21}, "dimensions", "from 1 to 20"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "float or base64"),
        ({"input": "a", "prompt_name": "quest"}, "prompt_name", "one of document, query"),
        ({"input": "a", "truncate": 1}, "truncate", "true or false"),
    ],
)
def test_mistakes_are_named(server: Server, body: Any, param: str, message: str) -> None:
    answer = server.post("/v1/embeddings", body)
    error = answer.json["error"]
    assert (answer.status, error["param"]) == (400, param)
    assert message in error["message"]


def test_a_long_text_is_cut_where_that_is_asked_for(server: Server, model: EmbeddingGemma) -> None:
    long = "word " * 400
    got = embed(server, long, truncate=True)
    assert torch.equal(got, model.embed([long], truncate=True))


def test_each_model_does_what_it_can(server: Server, tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    for path, body in (("chat/completions", chat), ("completions", {"prompt": "a"})):
        error = server.post(f"/v1/{path}", body)
        assert (error.status, error.json["error"]["code"]) == (400, "unsupported_value")
        assert "embeddings only" in error.json["error"]["message"]
    with serving(save_tiny(tmp_path, 200)) as other:
        error = other.post("/v1/embeddings", {"input": "a"})
        assert (error.status, error.json["error"]["code"]) == (400, "unsupported_value")
        assert "makes no embeddings" in error.json["error"]["message"]


def test_flags_of_texts_are_refused(folder: Path, tmp_path: Path) -> None:
    for flags in (["--prompt_lookup", "3"], ["--variant", "1b"]):
        command = [str(PROGRAM), "serve", "--ckpt", str(folder), *flags]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (run.returncode, run.stderr.count("\n")) == (1, 1)
        assert "an EmbeddingGemma takes no" in run.stderr


def test_openais_client_gets_them(server: Server, model: EmbeddingGemma) -> None:
    openai = pytest.importorskip("openai", reason="openai is not installed: pip install openai")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none") as client:
        for given in ({}, {"encoding_format": "float"}, {"dimensions": 8}):
            answer = client.embeddings.create(model="tiny", input=TEXTS, **given)
            got = torch.tensor([item.embedding for item in answer.data])
            assert torch.equal(got, model.embed(TEXTS, dim=given.get("dimensions")))


def test_langchain_gets_them(server: Server, model: EmbeddingGemma) -> None:
    reason = "langchain-openai is not installed: pip install langchain-openai"
    langchain = pytest.importorskip("langchain_openai", reason=reason)
    embeddings = langchain.OpenAIEmbeddings(
        base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", model="tiny",
        check_embedding_ctx_length=False,
    )  # fmt: skip
    got = torch.tensor(embeddings.embed_documents(TEXTS))
    assert torch.equal(got, model.embed(TEXTS))
    assert embeddings.embed_query("We") == got[1].tolist()
