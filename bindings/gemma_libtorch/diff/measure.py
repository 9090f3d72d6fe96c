"""How far a tensor is from another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # By the bytes of a number.


@dataclass(frozen=True)
class Measure:
    """Of a tensor beside its reference. A place where one alone is NaN, or infinite, differs by
    infinity; where both are NaN, by nothing.
    """

    is_equal: bool
    """Of the same dtype and shape, and torch.equal; NaN beside NaN counts as equal."""
    largest: float
    """The largest absolute difference; infinity for other shapes."""
    mean: float
    """The mean absolute difference."""
    relative: float
    """The largest difference over the largest absolute value of the reference."""
    ulps: int | None
    """Numbers of the coarser of the two dtypes that lie between the two values, at most, the second
    included: 1 for neighbours. None where NaN is beside a number, and for other shapes.
    """
    cosine: float
    """Of all values as one vector, where both are finite; NaN for other shapes."""
    where: tuple[int, ...] | None
    """The index of the largest difference; None when there is none."""
    by_position: list[float]
    """`relative` of each token, or empty."""
    dtypes: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]

    def exceeds(self, tolerance: float | None) -> bool:
        """Whether it is a difference: any is without a tolerance, else a relative one beyond it."""
        return not self.is_equal if tolerance is None else not self.relative <= tolerance


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _real(x: torch.Tensor) -> torch.Tensor:
    x = x.detach().cpu()
    return torch.view_as_real(x) if x.is_complex() else x


def _ordered(x: torch.Tensor) -> torch.Tensor:
    """int64: neighbours of a floating-point type differ by 1; both zeros are 0."""
    bits = x.contiguous().view(_BITS[x.element_size()])
    lowest = torch.iinfo(bits.dtype).min
    wide = bits.long()
    return torch.where(wide < 0, lowest - wide, wide)


def _ulps(x: torch.Tensor, reference: torch.Tensor) -> int | None:
    if bool((x.isnan() != reference.isnan()).any()):
        return None
    coarse = max((x.dtype, reference.dtype), key=lambda dtype: torch.finfo(dtype).eps)
    a, b = _ordered(x.to(coarse)), _ordered(reference.to(coarse))
    distance = a - b
    overflows = ((a ^ b) & (a ^ distance)) < 0  # In float64 alone.
    distance = distance.abs().masked_fill(overflows, torch.iinfo(torch.int64).max)
    return int(distance.masked_fill(x.isnan(), 0).max())


def _differences(x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    same = (x == reference) | (x.isnan() & reference.isnan())
    apart = (x - reference).abs()
    return apart.masked_fill(apart.isnan(), math.inf).masked_fill(same, 0.0)


def _cosine(x: torch.Tensor, reference: torch.Tensor) -> float:
    finite = x.isfinite() & reference.isfinite()
    a, b = x[finite], reference[finite]
    norms = float(a.norm() * b.norm())
    if norms == 0:
        return 1.0 if torch.equal(a, b) else 0.0
    return max(-1.0, min(1.0, float(a @ b) / norms))


def measure(x: torch.Tensor, reference: torch.Tensor, position_dim: int | None = None) -> Measure:
    """Compares two tensors of floats; position_dim is the dimension of tokens in them."""
    names = (_name(x.dtype), _name(reference.dtype))
    shapes = (tuple(x.shape), tuple(reference.shape))
    if shapes[0] != shapes[1]:
        return Measure(False, math.inf, math.inf, math.inf, None, math.nan, None, [], names, shapes)
    is_same_type = names[0] == names[1]
    if x.numel() == 0 or (is_same_type and torch.equal(x, reference)):
        equal = [] if position_dim is None else [0.0] * x.size(position_dim)
        return Measure(is_same_type, 0.0, 0.0, 0.0, 0, 1.0, None, equal, names, shapes)
    ours, theirs = _real(x), _real(reference)
    wide, wide_reference = ours.double(), theirs.double()
    apart = _differences(wide, wide_reference)
    largest = float(apart.max())
    finite = wide_reference.abs().masked_fill(~wide_reference.isfinite(), 0.0)
    scale = float(finite.max()) or 1.0
    by_position: list[float] = []
    if position_dim is not None:
        rows = apart.movedim(position_dim, 0).flatten(1)
        by_position = (rows.amax(1) / scale).tolist()
    place = torch.unravel_index(apart.argmax(), apart.shape) if largest > 0 else None
    return Measure(
        is_equal=is_same_type and largest == 0,
        largest=largest,
        mean=float(apart.mean()),
        relative=largest / scale,
        ulps=_ulps(ours, theirs),
        cosine=_cosine(wide.flatten(), wide_reference.flatten()),
        where=None if place is None else tuple(int(i) for i in place),
        by_position=by_position,
        dtypes=names,
        shapes=shapes,
    )
