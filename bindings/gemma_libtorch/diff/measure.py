"""How far a tensor is from another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

_CHUNK = 1 << 20
"""Numbers that are compared at a time: a row at least."""
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


class _Sums:
    """What is known of two tensors after some of their rows, [rows, ...], in float64."""

    def __init__(self) -> None:
        self.largest = -1.0
        self.where = 0  # Among all numbers, in the order of the rows.
        self.total = 0.0
        self.scale = 0.0
        self.of_rows: list[torch.Tensor] = []
        self.ulps: int | None = 0
        self.dot = 0.0
        self.norms = (0.0, 0.0)
        self.are_finite_ones_equal = True
        self._done = 0

    def add(self, x: torch.Tensor, reference: torch.Tensor) -> None:
        ulps = None if self.ulps is None else _ulps(x, reference)
        self.ulps = None if ulps is None or self.ulps is None else max(self.ulps, ulps)
        wide, wide_reference = x.double(), reference.double()
        apart = _differences(wide, wide_reference).flatten(1)
        if float(apart.max()) > self.largest:
            self.largest = float(apart.max())
            self.where = self._done + int(apart.argmax())
        self._done += apart.numel()
        self.total += float(apart.sum())
        self.of_rows.append(apart.amax(1))
        finite = wide.isfinite() & wide_reference.isfinite()
        scale = wide_reference.abs().masked_fill(~wide_reference.isfinite(), 0.0)
        self.scale = max(self.scale, float(scale.max()))
        a, b = wide[finite], wide_reference[finite]
        self.dot += float(a @ b)
        self.norms = (
            math.hypot(self.norms[0], float(a.norm())),
            math.hypot(self.norms[1], float(b.norm())),
        )
        self.are_finite_ones_equal = self.are_finite_ones_equal and torch.equal(a, b)

    def cosine(self) -> float:
        norms = self.norms[0] * self.norms[1]
        if norms == 0:
            return 1.0 if self.are_finite_ones_equal else 0.0
        return max(-1.0, min(1.0, self.dot / norms))


def measure(x: torch.Tensor, reference: torch.Tensor, position_dim: int | None = None) -> Measure:
    """Compares two tensors of floats; position_dim is the dimension of tokens in them. Takes memory
    for some of the rows at a time.
    """
    names = (_name(x.dtype), _name(reference.dtype))
    shapes = (tuple(x.shape), tuple(reference.shape))
    if shapes[0] != shapes[1]:
        return Measure(False, math.inf, math.inf, math.inf, None, math.nan, None, [], names, shapes)
    is_same_type = names[0] == names[1]
    if x.numel() == 0 or (is_same_type and torch.equal(x, reference)):
        equal = [] if position_dim is None else [0.0] * x.size(position_dim)
        return Measure(is_same_type, 0.0, 0.0, 0.0, 0, 1.0, None, equal, names, shapes)
    ours, theirs = _real(x), _real(reference)
    dim = position_dim or 0
    if position_dim is None:
        rows, reference_rows = ours.reshape(-1), theirs.reshape(-1)
    else:
        rows, reference_rows = ours.movedim(dim, 0), theirs.movedim(dim, 0)
    sums = _Sums()
    step = max(1, _CHUNK * len(rows) // rows.numel())
    for begin in range(0, len(rows), step):
        part = slice(begin, begin + step)
        size = min(step, len(rows) - begin)
        sums.add(rows[part].reshape(size, -1), reference_rows[part].reshape(size, -1))
    scale = sums.scale or 1.0
    place: tuple[int, ...] | None = None
    if sums.largest > 0:
        shape = ours.shape if position_dim is None else rows.shape
        row, *others = (int(i) for i in torch.unravel_index(torch.tensor(sums.where), shape))
        place = (*others[:dim], row, *others[dim:])
    return Measure(
        is_equal=is_same_type and sums.largest == 0,
        largest=sums.largest,
        mean=sums.total / rows.numel(),
        relative=sums.largest / scale,
        ulps=sums.ulps,
        cosine=sums.cosine(),
        where=place,
        by_position=[] if position_dim is None else (torch.cat(sums.of_rows) / scale).tolist(),
        dtypes=names,
        shapes=shapes,
    )
