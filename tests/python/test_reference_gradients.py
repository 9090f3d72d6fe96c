"""Gradients of exact numerics are those of the reference's autograd, bit for bit."""

from __future__ import annotations

from typing import Any

import gemma_libtorch
import pytest
import reference
import tiny
import torch

gemma_pytorch = reference.required()

NAMES = ("gemma1_mqa", "gemma1_mha", "gemma2", "gemma3", "gemma3_mha")
LENGTH = 9


def models(name: str, dtype: str) -> list[Any]:
    """The reference and ours, with the same weights, all of which take gradients."""
    pair = [
        tiny.make_model(package, tiny.CONFIGS[name], dtype)
        for package in (gemma_pytorch, gemma_libtorch)
    ]
    for model in pair:
        model.requires_grad_(True)
    return pair


def reference_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Of all positions: the reference's own steps, without torch.no_grad()."""
    config = model.config
    hidden = model.embedder(ids)
    hidden = hidden * torch.tensor(config.hidden_size**0.5, dtype=hidden.dtype)
    positions = torch.arange(ids.size(1))
    types = gemma_pytorch.config.AttentionType
    if config.architecture == gemma_pytorch.config.Architecture.GEMMA_3:
        tables = {
            types.LOCAL_SLIDING: model.local_freqs_cis,
            types.GLOBAL: model.global_freqs_cis,
        }
    else:
        tables = {types.LOCAL_SLIDING: model.freqs_cis, types.GLOBAL: model.freqs_cis}
    mask, local_mask = tiny.make_masks(config, ids.size(1))
    hidden = model.model(
        hidden_states=hidden,
        freqs_cis={key: table.index_select(0, positions) for key, table in tables.items()},
        kv_write_indices=positions,
        kv_caches=tiny.make_caches(config, *ids.shape),
        mask=mask,
        local_mask=local_mask,
    )
    logits = torch.matmul(hidden, model.embedder.weight.t())
    if config.final_logit_softcapping is not None:
        logits = torch.tanh(logits / config.final_logit_softcapping)
        logits = logits * config.final_logit_softcapping
    return logits


def loss_of(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_all_parameters_are_equal(name: str, dtype: str) -> None:
    theirs, ours = models(name, dtype)
    ids = tiny.random_ids((2, LENGTH), tiny.VOCAB_SIZE)
    with torch.enable_grad():
        losses = [loss_of(reference_logits(theirs, ids), ids), loss_of(ours.logits(ids), ids)]
        for loss in losses:
            loss.backward()
    assert torch.equal(losses[1], losses[0])
    want = dict(theirs.named_parameters())
    got = dict(ours.named_parameters())
    assert got.keys() == want.keys()
    for path, parameter in want.items():
        assert torch.equal(got[path].grad, parameter.grad), path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_the_input_are_equal(name: str, dtype: str) -> None:
    ids = tiny.random_ids((2, LENGTH), tiny.VOCAB_SIZE)
    grads = []
    for model in models(name, dtype):
        with torch.enable_grad():
            table = model.embedder.weight
            hidden = table.detach()[ids].requires_grad_()
            run = gradient_input(model, hidden)
            run.float().square().sum().backward()
        grads.append(hidden.grad)
    assert torch.equal(grads[1], grads[0])


def gradient_input(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    package = gemma_libtorch if type(model).__module__.startswith("gemma_libtorch") else None
    types = (package or gemma_pytorch).config.AttentionType
    positions = torch.arange(LENGTH)
    table = gemma_pytorch.model.precompute_freqs_cis(model.config.head_dim, LENGTH)
    mask, local_mask = tiny.make_masks(model.config, LENGTH)
    return model.model(
        hidden_states=hidden,
        freqs_cis={types.LOCAL_SLIDING: table, types.GLOBAL: table},
        kv_write_indices=positions,
        kv_caches=tiny.make_caches(model.config, 2, LENGTH),
        mask=mask,
        local_mask=local_mask,
    )


@pytest.mark.parametrize("name", ["gemma1_mqa", "gemma2", "gemma3"])
def test_steps_of_adamw_are_equal(name: str) -> None:
    theirs, ours = models(name, "float32")
    ids = tiny.random_ids((2, LENGTH), tiny.VOCAB_SIZE)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-2) for model in (theirs, ours)]
    losses = []
    for _ in range(5):
        for model, optimizer in zip((theirs, ours), optimizers, strict=True):
            with torch.enable_grad():
                logits = reference_logits(model, ids) if model is theirs else model.logits(ids)
                loss = loss_of(logits, ids)
                model.zero_grad()
                loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] == losses[-2]
        for (key, got), want in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(got, want), key
    assert losses[-1] < losses[0]
