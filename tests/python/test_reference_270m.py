"""A real model, Gemma 3 270M, writes the same text here and in the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gemma_libtorch
import pytest
import reference
import tiny
import torch

gemma_pytorch = reference.required()

CHECKPOINT = tiny.GEMMA_3_270M_FOLDER
if not CHECKPOINT.is_dir():
    pytest.skip(
        "no checkpoints/gemma-3-270m: run scripts/fetch_gemma_3_270m.py", allow_module_level=True
    )

PROMPT = "The capital of France is"
CHOICES = {
    "greedy": {"temperature": None},
    "seeded": {"temperature": 1.0, "top_p": 0.95, "top_k": 64},
}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def models(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    loaded = []
    for package in (gemma_pytorch, gemma_libtorch):
        with tiny.default_dtype(tiny.DTYPES[request.param]):
            config = tiny.make_config(package, tiny.GEMMA_3_270M, dtype=request.param)
            model = package.model.GemmaForCausalLM(config).eval()
        model.load_weights(str(CHECKPOINT / "model.ckpt"))
        loaded.append(model)
    yield tuple(loaded)
    loaded.clear()


def test_our_variant_of_it_is_the_config_that_is_compared() -> None:
    config = gemma_libtorch.config.get_model_config("270m", "float32")
    config.tokenizer = tiny.GEMMA_3_270M["tokenizer"]
    assert config == tiny.make_config(gemma_libtorch, tiny.GEMMA_3_270M, dtype="float32")


@pytest.mark.parametrize("choice", CHOICES)
def test_text_is_equal(models: tuple[Any, Any], choice: str) -> None:
    results = []
    for model in models:
        torch.manual_seed(1)
        text = model.generate(PROMPT, "cpu", output_len=32, **CHOICES[choice])
        results.append((text, torch.get_rng_state()))
    (want, want_rng), (got, got_rng) = results
    assert got == want
    tiny.assert_same(got_rng, want_rng)


@pytest.mark.parametrize("threads", [1, 2])
def test_logits_and_caches_are_equal(models: tuple[Any, Any], threads: int) -> None:
    prompt = torch.tensor([models[0].tokenizer.encode(PROMPT)])
    with tiny.threads(threads):
        want, got = (tiny.decode(model, prompt, 4, tiny.greedy(1)) for model in models)
    tiny.assert_same(got, want)
