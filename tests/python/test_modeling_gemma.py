"""modeling_gemma against transformers' own, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gemma_libtorch.modeling_gemma import (
    GemmaRMSNorm,
    GemmaRotaryEmbedding,
    apply_rotary_pos_emb,
)

pytest.importorskip("transformers", reason="transformers is not installed")
from transformers import GemmaConfig
from transformers.models.gemma import modeling_gemma as theirs

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])


def random(*sizes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed)).to(dtype)


def their_rotary(dim: int, base: float) -> Any:
    config = GemmaConfig(
        head_dim=dim, rope_parameters={"rope_type": "default", "rope_theta": base}
    )
    return theirs.GemmaRotaryEmbedding(config)


@DTYPES
def test_a_norm_is_theirs(dtype: torch.dtype) -> None:
    ours, want = GemmaRMSNorm(48, eps=1e-5), theirs.GemmaRMSNorm(48, eps=1e-5)
    with torch.no_grad():
        want.weight.copy_(random(48, seed=1))
        ours.weight = want.weight
        x = random(3, 5, 48, dtype=dtype)
        got = ours(x)
        assert got.dtype == dtype and torch.equal(got, want(x))


def test_a_new_norm_has_their_defaults() -> None:
    ours, want = GemmaRMSNorm(dim=8), theirs.GemmaRMSNorm(dim=8)
    assert ours.eps == want.eps == 1e-6
    assert torch.equal(ours.weight, want.weight)


@DTYPES
@pytest.mark.parametrize(("dim", "base"), [(256, 10_000.0), (8, 1_000_000.0), (2, 77.0)])
def test_cosines_and_sines_are_theirs(dtype: torch.dtype, dim: int, base: float) -> None:
    x = random(2, 4, dim, dtype=dtype)
    rows = torch.tensor([[0, 1, 2, 3], [8191, 17, 17, 131_071]])  # Of different positions.
    ours, want = GemmaRotaryEmbedding(dim, base=base), their_rotary(dim, base)
    assert torch.equal(ours.inv_freq, want.inv_freq)
    for got, wanted in zip(ours(x, rows), want(x, rows), strict=True):
        assert got.shape == (2, 4, dim) and got.dtype == dtype
        assert torch.equal(got, wanted)
        assert torch.equal(got[..., : dim // 2], got[..., dim // 2 :])


def test_the_api_page_can_be_followed() -> None:
    rope = GemmaRotaryEmbedding(dim=256, max_position_embeddings=8192, base=10000.0)
    cos, sin = rope(random(1, 3, 2048), torch.arange(3)[None])
    assert cos.shape == sin.shape == (1, 3, 256)
    assert (rope.dim, rope.max_position_embeddings, rope.base) == (256, 8192, 10000.0)
    assert repr(rope) == repr(their_rotary(256, 1e4))


@DTYPES
@pytest.mark.parametrize("unsqueeze_dim", [1, 2])
def test_rotation_is_theirs(dtype: torch.dtype, unsqueeze_dim: int) -> None:
    q, k = (random(2, heads, 5, 16, dtype=dtype, seed=heads) for heads in (4, 1))
    if unsqueeze_dim == 2:
        q, k = q.transpose(1, 2), k.transpose(1, 2)
    cos, sin = GemmaRotaryEmbedding(16)(q, torch.tensor([[0, 1, 2, 3, 4], [9, 8, 7, 6, 5]]))
    got = apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
    want = theirs.apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
    for ours, wanted in zip(got, want, strict=True):
        assert torch.equal(ours, wanted)


def test_frequencies_stay_in_float32() -> None:
    rope = GemmaRotaryEmbedding(8).to(torch.bfloat16)
    assert rope.inv_freq.dtype == torch.float32
    assert rope.load_state_dict({}).missing_keys == []  # As theirs, it is never in a file.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 7}, "dim is 7, but must be an even number above 0"),
        ({"dim": 0}, "dim is 0, but must be an even number above 0"),
        ({"dim": 8, "max_position_embeddings": 0}, "is 0, but must be at least 1"),
        ({"dim": 8, "base": 0.0}, "base is 0, but must be above 0"),
        ({"dim": 8, "base": float("nan")}, "base is nan, but must be above 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GemmaRotaryEmbedding(**arguments)


def test_positions_of_one_row_need_a_batch() -> None:
    with pytest.raises(ValueError, match=r"position_ids must be \[B, T\], got \[3\]"):
        GemmaRotaryEmbedding(8)(random(1, 3, 8), torch.arange(3))
