"""TransformerLens' own functions on a LensModel: caches, patching. Of its version 3 or 4."""

from __future__ import annotations

from typing import Any

import gemma_libtorch
import pytest
import tiny
import torch
from gemma_libtorch.lens import LensModel

transformer_lens = pytest.importorskip(
    "transformer_lens", reason="transformer_lens is not installed"
)
patching = transformer_lens.patching

CLEAN, CORRUPTED = "the name of the", "the day of the"
LAYERS = 2
MLP_OUT = "blocks.0.mlp.hook_out"
NAMES = ("gemma1_mqa", "gemma2", "gemma3")


@pytest.fixture(params=NAMES)
def lens(request: pytest.FixtureRequest) -> LensModel:
    fields = {**tiny.CONFIGS[request.param], "num_hidden_layers": LAYERS}
    lens = LensModel(tiny.make_model(gemma_libtorch, fields, "float32"))
    lens.set_use_attn_result(True)
    return lens


def tokens_of(lens: LensModel) -> tuple[torch.Tensor, torch.Tensor]:
    clean, corrupted = lens.to_tokens(CLEAN), lens.to_tokens(CORRUPTED)
    length = min(clean.size(1), corrupted.size(1))
    return clean[:, :length], corrupted[:, :length]


def their_cache(lens: LensModel, tokens: torch.Tensor) -> Any:
    _, cache = lens.run_with_cache(tokens)
    return transformer_lens.ActivationCache(cache.cache_dict, lens)


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * want.abs().max().item())


def test_their_cache_decomposes_the_residual(lens: LensModel) -> None:
    clean, _ = tokens_of(lens)
    cache = their_cache(lens, clean)
    parts = cache.decompose_resid(layer=LAYERS, mode="attn")
    close(parts.sum(0) + sum(cache["mlp_out", i] for i in range(LAYERS)), cache["resid_post", -1])
    accumulated = cache.accumulated_resid(layer=LAYERS)
    assert torch.equal(accumulated[0], cache["embed"])
    assert torch.equal(accumulated[-1], cache["resid_post", LAYERS - 1])


def test_their_cache_stacks_heads_and_neurons(lens: LensModel) -> None:
    clean, _ = tokens_of(lens)
    cache = their_cache(lens, clean)
    _, sums = lens.run_with_cache(clean, names_filter=["blocks.0.attn.hook_out", MLP_OUT])
    heads = cache.stack_head_results(layer=1)
    assert heads.shape == (lens.cfg.n_heads, *clean.shape, lens.cfg.d_model)
    close(heads.sum(0), sums["blocks.0.attn.hook_out"])
    neurons = cache.stack_neuron_results(layer=1)
    assert neurons.size(0) == lens.cfg.d_mlp
    close(neurons.sum(0), sums[MLP_OUT])
    cache.get_full_resid_decomposition(layer=1, expand_neurons=False)
    attributed = cache.logit_attrs(cache.accumulated_resid(layer=LAYERS), tokens=clean[0, 1].item())
    assert torch.isfinite(attributed).all()


def test_their_patching_is_that_of_hooks(lens: LensModel) -> None:
    clean, corrupted = tokens_of(lens)
    cache = their_cache(lens, clean)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, -1, 5] - logits[0, -1, 7]

    got = patching.get_act_patch_resid_pre(lens, corrupted, cache, metric)
    assert got.shape == (LAYERS, corrupted.size(1))
    for layer in range(LAYERS):
        for position in range(corrupted.size(1)):

            def patch(value: torch.Tensor, hook: Any, p: int = position) -> torch.Tensor:
                value[:, p] = cache[hook.name][:, p]
                return value

            name = f"blocks.{layer}.hook_resid_pre"
            want = metric(lens.run_with_hooks(corrupted, fwd_hooks=[(name, patch)]))
            assert torch.equal(got[layer, position], want)


# Paths from one head to another are of models without a norm after the attention.
WAYS = [name for name in dir(patching) if "get_act_patch" in name and "direct_path" not in name]


@pytest.mark.parametrize("name", WAYS)
def test_all_their_ways_of_patching_run(lens: LensModel, name: str) -> None:
    clean, corrupted = tokens_of(lens)
    cache = their_cache(lens, clean)
    got = getattr(patching, name)(lens, corrupted, cache, lambda logits: logits[0, -1, 5])
    assert torch.isfinite(got).all()
    plain = lens(corrupted)[0, -1, 5]
    assert not torch.allclose(got, plain.expand_as(got))
