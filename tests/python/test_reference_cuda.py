"""On a CUDA GPU, too, every number is the reference's, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gemma_libtorch
import pictures
import pytest
import reference
import tiny
import torch

gemma_pytorch = reference.required()

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")

WEIGHTS = pytest.mark.parametrize("quant", [False, True], ids=["plain", "quant"])
DTYPES = pytest.mark.parametrize("dtype", tiny.DTYPES)
CONFIGS = pytest.mark.parametrize("name", tiny.CONFIGS)

GREEDY = {"temperature": None}
SEEDED = {"temperature": 1.2, "top_p": 0.97, "top_k": 200}


def both(name: str, dtype: str = "float32", quant: bool = False) -> tuple[Any, Any]:
    return tuple(
        tiny.make_model(package, tiny.CONFIGS[name], dtype, quant).to("cuda")
        for package in (gemma_pytorch, gemma_libtorch)
    )


def assert_same_text(models: tuple[Any, Any], prompts: Any, **kwargs: Any) -> None:
    """The texts and the random numbers used up are equal."""
    results = []
    for model in models:
        torch.manual_seed(11)
        text = model.generate(prompts, "cuda", **{"output_len": 9, **kwargs})
        results.append((text, torch.cuda.get_rng_state()))
    (want, want_rng), (got, got_rng) = results
    assert got == want
    tiny.assert_same(got_rng, want_rng)


@DTYPES
@WEIGHTS
@CONFIGS
def test_prefill_and_decoding_are_equal(dtype: str, quant: bool, name: str) -> None:
    models = both(name, dtype, quant)
    for batch, choice in ((1, tiny.greedy), (3, tiny.greedy), (3, tiny.sampling)):
        prompt = tiny.random_ids((batch, 7), tiny.CONFIGS[name]["vocab_size"]).cuda()
        results = []
        for model in models:
            torch.manual_seed(3)
            out = tiny.decode(model, prompt, 5, choice(batch))
            results.append({**out, "rng": torch.cuda.get_rng_state()})
        tiny.assert_same(results[1], results[0])


@WEIGHTS
@pytest.mark.parametrize("name", ["gemma1_mqa", "gemma2", "gemma3"])
def test_prompts_are_continued_alike(quant: bool, name: str) -> None:
    models = both(name, "bfloat16", quant)
    prompts = ["If the wind is from the north, bring the nets in", "The ferry", "Küste 😀"]
    for choice in (GREEDY, SEEDED):
        assert_same_text(models, prompts, **choice)
        assert_same_text(models, prompts[0], **choice)


@WEIGHTS
def test_prompts_with_images_are_continued_alike(tmp_path: Path, quant: bool) -> None:
    tokenizer = str(tiny.large_tokenizer(tmp_path / "large.model"))
    models = tuple(
        tiny.make_multimodal(package, quant=quant, tokenizer=tokenizer).to("cuda")
        for package in (gemma_pytorch, gemma_libtorch)
    )
    prompts = [
        [pictures.picture(300, 260), "What is this?"],
        [pictures.picture(200, 200), "If the wind is from the north"],
    ]
    for choice in (GREEDY, SEEDED):
        assert_same_text(models, prompts, **choice)


@WEIGHTS
def test_a_checkpoint_loaded_into_a_model_on_the_device_gives_the_same(
    tmp_path: Path, quant: bool
) -> None:
    want, got = both("gemma3", "bfloat16", quant)
    path = str(tmp_path / "model.ckpt")
    torch.save({"model_state_dict": want.cpu().state_dict()}, path)
    want.cuda()
    with torch.no_grad():
        for parameter in got.parameters():
            parameter.zero_()
    got.load_weights(path)
    assert all(parameter.is_cuda for parameter in got.parameters())
    prompt = tiny.random_ids((2, 7), tiny.VOCAB_SIZE).cuda()
    tiny.assert_same(
        tiny.decode(got, prompt, 3, tiny.greedy(2)), tiny.decode(want, prompt, 3, tiny.greedy(2))
    )
