"""How far two tensors are apart, on tensors whose distance is known."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import tiny
import torch
from gemma_libtorch.diff import measure

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def next_after(value: float, dtype: torch.dtype) -> torch.Tensor:
    """The neighbour above, by its bits."""
    x = torch.tensor([value], dtype=dtype)
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    step = 1 if value >= 0 else -1
    return (x.view(bits) + step).view(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_same_tensor_is_equal(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 5).to(dtype)
    got = measure(x, x.clone(), position_dim=1)
    assert got.is_equal
    assert (got.largest, got.mean, got.relative, got.ulps, got.where) == (0, 0, 0, 0, None)
    assert got.cosine == pytest.approx(1)
    assert got.by_position == [0, 0, 0]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [1.0, -1.0, 3.0, -0.1, 0.0, 1000.0])
def test_neighbours_are_one_unit_apart(dtype: torch.dtype, value: float) -> None:
    x = torch.tensor([value], dtype=dtype)
    got = measure(next_after(value, dtype), x)
    assert not got.is_equal
    assert got.ulps == 1
    assert measure(x, next_after(value, dtype)).ulps == 1


def test_units_are_counted_through_zero() -> None:
    smallest = torch.finfo(torch.float32).smallest_normal / 2**23  # The smallest number above 0.
    got = measure(torch.tensor([smallest]), torch.tensor([-smallest]))
    assert got.ulps == 2
    assert measure(torch.tensor([0.0]), torch.tensor([-0.0])).is_equal


def test_float64_of_opposite_signs_does_not_overflow() -> None:
    x = torch.tensor([1e300], dtype=torch.float64)
    assert measure(x, -x).ulps == torch.iinfo(torch.int64).max


def test_differences_are_those_that_a_reader_counts() -> None:
    got = measure(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 0)
    assert (got.largest, got.mean, got.relative, got.where) == (2.0, 0.5, 0.5, (1, 1))
    assert got.by_position == [0.0, 0.5]
    assert got.ulps == 2**22  # From 4 to 6: half of a binade of 2^23.
    assert got.cosine == pytest.approx((1 + 4 + 9 + 24) / (50**0.5 * 30**0.5))


def test_the_reference_alone_gives_the_scale() -> None:
    assert measure(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 10.0])).relative == 0.9
    assert measure(torch.tensor([2.0]), torch.tensor([0.0])).relative == 2.0
    assert measure(torch.tensor([2.0]), torch.tensor([0.0])).cosine == 0


def test_nan_beside_nan_is_equal_and_beside_a_number_is_not() -> None:
    x = torch.tensor([1.0, math.nan])
    assert measure(x, x.clone()).is_equal
    got = measure(x, torch.tensor([1.0, 2.0]))
    assert not got.is_equal
    assert (got.largest, got.relative, got.ulps) == (math.inf, math.inf, None)
    assert got.exceeds(None)
    assert got.exceeds(1e9)


def test_infinity_beside_itself_is_equal_and_beside_a_number_is_not() -> None:
    x = torch.tensor([1.0, math.inf, -math.inf])
    assert measure(x, x.clone()).is_equal
    got = measure(x, torch.tensor([1.0, math.inf, math.inf]))
    assert (got.largest, got.relative) == (math.inf, math.inf)
    assert got.where == (2,)
    largest = torch.finfo(torch.float32).max
    assert measure(torch.tensor([math.inf]), torch.tensor([largest])).ulps == 1


def test_units_are_those_of_the_coarser_type() -> None:
    x, reference = torch.tensor([1.0 + 2**-9]), torch.tensor([1.0], dtype=torch.bfloat16)
    got = measure(x, reference)
    assert not got.is_equal
    assert got.ulps == 0  # It rounds to 1.
    assert got.largest == 2**-9
    assert got.dtypes == ("float32", "bfloat16")
    assert measure(torch.tensor([1.0 + 2**-7]), reference).ulps == 1


def test_another_type_with_the_same_values_is_not_equal() -> None:
    got = measure(torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.bfloat16))
    assert not got.is_equal
    assert got.exceeds(None)
    assert not got.exceeds(0.0)


def test_other_shapes_differ_by_infinity() -> None:
    got = measure(torch.ones(2, 3), torch.ones(3, 2))
    assert not got.is_equal
    assert (got.largest, got.relative, got.ulps) == (math.inf, math.inf, None)
    assert got.exceeds(1.0)
    assert got.shapes == ((2, 3), (3, 2))


def test_complex_numbers_are_pairs() -> None:
    x = torch.polar(torch.ones(4, 2), torch.randn(4, 2))
    assert measure(x, x.clone(), position_dim=0).is_equal
    other = x.clone()
    other[2, 1] += 0.5j
    got = measure(other, x, position_dim=0)
    assert got.largest == pytest.approx(0.5)
    assert got.where == (2, 1, 1)
    assert [value > 0 for value in got.by_position] == [False, False, True, False]


def test_empty_tensors_are_equal() -> None:
    assert measure(torch.ones(0, 3), torch.ones(0, 3)).is_equal


def test_a_tolerance_includes_its_own_value() -> None:
    got = measure(torch.tensor([5.0]), torch.tensor([4.0]))
    assert not got.exceeds(0.25)
    assert got.exceeds(0.24)


def old_way(x: torch.Tensor, reference: torch.Tensor, dim: int | None) -> list[object]:
    """All at once, in float64."""
    wide, wide_reference = x.double(), reference.double()
    apart = (wide - wide_reference).abs()
    scale = wide_reference.abs().max()
    rows = [] if dim is None else (apart.movedim(dim, 0).flatten(1).amax(1) / scale).tolist()
    cosine = torch.cosine_similarity(wide.flatten(), wide_reference.flatten(), 0).item()
    place = tuple(int(i) for i in torch.unravel_index(apart.argmax(), apart.shape))
    return [
        apart.max().item(),
        (apart.max() / scale).item(),
        place,
        rows,
        apart.mean().item(),
        cosine,
    ]


@pytest.mark.parametrize("dim", [None, 0, 1, 2])
def test_parts_give_what_the_whole_does(dim: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["gemma_libtorch.diff.measure"]
    reference = torch.randn(3, 7, 5)
    x = reference + torch.randn(3, 7, 5) * 1e-3
    whole = measure(x, reference, dim)
    want = old_way(x, reference, dim)
    for chunk in (1, 4, 16, 40, 1000):
        monkeypatch.setattr(module, "_CHUNK", chunk)
        got = measure(x, reference, dim)
        assert [got.largest, got.relative, got.where, got.by_position] == want[:4]
        assert [got.mean, got.cosine] == pytest.approx(want[4:])
        assert got.ulps == whole.ulps


def test_a_measure_takes_memory_for_a_part() -> None:
    """Of 32 MiB beside 32 MiB; at once it would be some 650. In a process of its own."""
    script = """
import torch
from gemma_libtorch.diff import measure
from test_lens_memory import highest
x = torch.randn(1, 32, 1 << 18)
reference = x + 1e-3
before = highest()
measure(x, reference, 1)
print(highest() - before)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests/python", *sys.path])}
    taken = subprocess.check_output(
        [sys.executable, "-c", script], cwd=tiny.ROOT, env=environment, text=True
    )
    assert int(taken) < 200 << 20
