"""Compares a model with its reference, value by value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .beside import Beside
from .gemma_pytorch import GemmaPytorch, Itself
from .griffin import RecurrentGemma
from .huggingface import Transformers
from .measure import Measure, measure
from .pairs import Pair
from .report import Report, Row

_BY_PACKAGE: dict[str, type[Beside]] = {
    "gemma": GemmaPytorch,
    "transformers": Transformers,
    "recurrentgemma": RecurrentGemma,
    "gemma_libtorch": Itself,
}


def _beside(ours: Any, reference: Any, ids: torch.Tensor) -> Beside:
    for cls in type(reference).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in _BY_PACKAGE:
            return _BY_PACKAGE[package](ours, reference, ids)
    raise ValueError(
        f"compare: reference is a {type(reference).__name__}, but must be a model of gemma_pytorch, "
        "transformers, recurrentgemma or gemma_libtorch"
    )


def compare(
    ours: Any,
    reference: Any,
    inputs: torch.Tensor,
    *,
    tolerance: float | None = None,
    tokens: Sequence[str] | None = None,
    facts: dict[str, str] | None = None,
) -> Report:
    """A model of this package beside `reference`, a model of gemma_pytorch, transformers,
    recurrentgemma or this package, with the same weights, on the same device.

    inputs are token ids [B, L] of texts from position 0 on; `tokens` are the words for them, and
    `facts` what else a report says. Every value is compared twice: computed from the reference's
    values, and end to end. Without a tolerance any difference counts, else one that is larger than
    tolerance times the largest value of the reference's tensor. Raises ValueError for a reference of
    another package, and for inputs of another shape.
    """
    if inputs.dim() != 2 or inputs.numel() == 0:
        raise ValueError(f"compare: inputs are {list(inputs.shape)}, but must be token ids [B, L]")
    beside = _beside(ours, reference, inputs)
    theirs = beside.theirs_at()
    fed, whole = beside.ours_at(theirs), beside.ours_at({})

    def measured(pair: Pair, values: dict[str, torch.Tensor]) -> Measure | None:
        if pair.point not in values or pair.point not in theirs:
            return None
        return measure(values[pair.point], theirs[pair.point], pair.position_dim)

    def row(pair: Pair) -> Row:
        note, place = pair.note, beside.place_of(pair)
        is_missing = bool(pair.places) and place is None
        if beside.is_fused(pair):
            note, is_missing = "fused in fast numerics", False
        elif is_missing:
            note = f"{beside.title} has no such module"
        elif place is not None and pair.point not in theirs:
            note = f"{beside.title} did not give it"
        return Row(
            name=pair.name,
            theirs="" if place is None else str(place),
            layer=pair.layer,
            fed=measured(pair, fed),
            end_to_end=measured(pair, whole),
            note=note,
            meaning=pair.meaning,
            is_missing=is_missing,
        )

    return Report(
        rows=[row(pair) for pair in beside.pairs],
        reference=beside.title,
        tokens=list(tokens or map(str, inputs[0].tolist())),
        tolerance=tolerance,
        facts=dict(facts or {}),
        theirs_only=beside.theirs_only,
    )
