"""torch.ops.gemma: shapes without data, torch.compile, and gradients, which they do not have."""

from __future__ import annotations

from collections.abc import Callable

import gemma_libtorch  # noqa: F401  It registers them.
import pytest
import torch

ops = torch.ops.gemma


def normal(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(1))


def cases() -> dict[str, tuple[Callable[..., object], tuple[object, ...]]]:
    """Of each operation, its arguments."""
    x, weight = normal(2, 5, 12), normal(8, 12)
    mlp = (normal(16, 12), None, normal(16, 12), None, normal(12, 16), None)
    angles = torch.polar(torch.ones(32, 4), normal(32, 4))
    cache = (torch.zeros(1, 1, 64, 8), torch.zeros(1, 1, 64, 8))
    heads = (2, 1, 8, None, None, 1e-6, 0.3, None, None, angles, 0, *cache)
    sampling = (None, None, 3.0, None, torch.ones(2), torch.ones(2, dtype=torch.long))
    drawn = (None, None, 3.0, torch.ones(2), torch.ones(2), torch.ones(2, dtype=torch.long))
    return {
        "linear": (ops.linear, (x, weight)),
        "linear in bfloat16": (ops.linear, (x.bfloat16(), weight.bfloat16())),
        "linear of int8": (ops.linear, (x, torch.ones(8, 12, dtype=torch.int8), normal(8))),
        "embedding": (ops.embedding, (torch.tensor([[1, 3, 2]]), weight)),
        "rms_norm": (ops.rms_norm, (x, normal(12))),
        "add_rms_norm": (ops.add_rms_norm, (x, x, normal(12))),
        "gated_mlp": (ops.gated_mlp, (x, *mlp)),
        "attend": (ops.attend, (normal(3, 32), *heads)),
        "sample": (ops.sample, (normal(2, 12), normal(50, 12), *sampling)),
        "sample one": (
            ops.sample,
            (normal(1, 12), normal(50, 12), *sampling[:4], *(t[:1] for t in sampling[4:])),
        ),
        "sample, drawn": (ops.sample, (normal(2, 12), normal(50, 12), *drawn)),
        "biased_linear": (ops.biased_linear, (x, weight, normal(8))),
        "layer_norm": (ops.layer_norm, (x, normal(12), normal(12))),
        "gelu_mlp": (ops.gelu_mlp, (x, normal(16, 12), normal(16), normal(12, 16), normal(12))),
        "attend_all": (ops.attend_all, (x, x, x, 2)),
        "embed_patches": (ops.embed_patches, (normal(2, 3, 8, 8), normal(6, 3, 4, 4), normal(6))),
        "pool_patches": (ops.pool_patches, (normal(2, 16, 6),)),
    }


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_shapes_without_data_are_those_with_it(name: str) -> None:
    op, arguments = CASES[name]
    on_meta = [a.to("meta") if torch.is_tensor(a) else a for a in arguments]
    want, got = op(*arguments), op(*on_meta)
    for with_data, without in zip(
        want if isinstance(want, tuple) else (want,),
        got if isinstance(got, tuple) else (got,),
        strict=True,
    ):
        assert without.is_meta
        assert (without.shape, without.dtype) == (with_data.shape, with_data.dtype)


def test_compiled_code_calls_them() -> None:
    def function(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return ops.linear(x, weight) * 2

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (3, 4):
        x, weight = normal(rows, 12), normal(8, 12)
        assert torch.equal(compiled(x, weight), function(x, weight))


@pytest.mark.parametrize("is_compiled", [False, True])
def test_gradients_are_refused(is_compiled: bool) -> None:
    def function(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return ops.linear(x, weight).sum()

    call = torch.compile(function, backend="aot_eager") if is_compiled else function
    weight = normal(8, 12).requires_grad_()
    with torch.enable_grad(), pytest.raises(Exception, match="gradient|not implemented"):
        call(normal(3, 12), weight).backward()
    assert weight.grad is None
