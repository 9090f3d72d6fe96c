"""gemma serve, spoken to by lm-eval, whose log-likelihoods are those of gemma perplexity."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Server, save_tiny, serving
from test_program import run

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lm-eval")

TEXT = "The ferry leaves at noon, and so do we. Nobody knows how long it takes.\n" * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), 600)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "--served_name", "tiny") as running:
        yield running


@pytest.fixture(scope="module")
def lm(server: Server) -> Any:
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    url = f"http://127.0.0.1:{server.port}/v1/completions"
    lm = LocalCompletionsAPI(base_url=url, model="tiny", max_length=599, num_concurrent=1)
    assert lm.tokenizer_backend == "remote"
    return lm


def ask(lm: Any, kind: str, *arguments: tuple[Any, ...]) -> Any:
    from lm_eval.api.instance import Instance

    requests = [
        Instance(request_type=kind, doc={}, arguments=each, idx=i)
        for i, each in enumerate(arguments)
    ]
    return getattr(lm, kind)(requests)


def nll(folder: Path, text: Path) -> float:
    done = run(
        "perplexity", text, "--ckpt", folder / "model.ckpt", "--kv_dtype", "bfloat16"
    )
    found = re.search(r"tokens +(\d+)\nnll +(\S+) a token", done.stdout)
    assert found, done.stderr
    return int(found[1]) * float(found[2])


def test_a_text_is_as_likely_as_to_gemma_perplexity(lm: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    (got,) = ask(lm, "loglikelihood_rolling", (TEXT,))
    assert -got == pytest.approx(nll(folder, tmp_path / "text.txt"), abs=5e-4)


def test_a_continuation_is_as_likely_as_its_tokens(lm: Any, server: Server) -> None:
    greedy = server.complete("The ferry", max_tokens=1, temperature=0)["choices"][0]["text"]
    pairs = [("The ferry", " leaves"), ("The ferry", " at noon"), ("We", " do")]
    got = ask(lm, "loglikelihood", *pairs, ("The ferry", greedy))
    for (context, rest), (likelihood, is_greedy) in zip(pairs, got[:3], strict=True):
        answer = server.complete(context + rest, echo=True, logprobs=1, max_tokens=0)
        logprobs = answer["choices"][0]["logprobs"]
        count = len(server.post("/tokenize", {"content": context}).json["tokens"])
        assert likelihood == pytest.approx(sum(logprobs["token_logprobs"][1 + count :]), rel=1e-6)
        assert not is_greedy
    assert got[3][1]


def test_texts_are_generated(lm: Any, server: Server) -> None:
    (got,) = ask(lm, "generate_until", ("The ferry", {"until": ["zzz"], "max_gen_toks": 8}))
    assert got == server.complete("The ferry", max_tokens=8, temperature=0)["choices"][0]["text"]
