"""A model of ours beside its reference: what the comparisons of all references share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from .capture import Values, Watch, submodule, tapped
from .pairs import Pair, Place


class Beside:
    """A model of ours and its reference, a torch.nn.Module with the same weights, on the same token
    ids [B, L].
    """

    title = ""
    """What the reference is."""
    rotation = ""
    """The function by which it rotates queries and keys."""

    def __init__(self, ours: Any, theirs: Any, ids: torch.Tensor) -> None:
        self.ours = ours
        self.theirs = theirs
        self.ids = ids
        self.theirs_only: list[str] = []
        """Modules with parameters that ran in the reference, and that no pair names."""
        self.pairs = list(self._pairs())

    def _pairs(self) -> Iterable[Pair]:
        raise NotImplementedError

    def _run_theirs(self) -> None:
        raise NotImplementedError

    def ours_at(self, fed: Mapping[str, torch.Tensor]) -> Values:
        """Our values, each computed from those that are fed to the points before it."""
        raise NotImplementedError

    def theirs_at(self) -> Values:
        places = [place for pair in self.pairs for place in pair.places]
        with torch.no_grad(), Watch(self.theirs, places, self.rotation) as watch:
            self._run_theirs()
        self._take(watch)
        named = {place.module for place in places}
        self.theirs_only = [path for path in watch.ran if path not in named]
        return watch.values(self.pairs)

    def _take(self, watch: Watch) -> None:
        """What else a run of the reference is watched for."""

    def is_fused(self, pair: Pair) -> bool:
        """Whether our numerics compute the value as a part of something larger."""
        return pair.is_fused and self.ours.numerics == "fast"

    def place_of(self, pair: Pair) -> Place | None:
        """The first of a pair's places whose module the reference has; None when it has none."""
        return next(
            (place for place in pair.places if submodule(self.theirs, place.module) is not None),
            None,
        )


class LanguageModelBeside(Beside):
    """Of a GemmaForCausalLM or a Gemma3ForMultimodalLM, by its taps."""

    def __init__(self, ours: Any, theirs: Any, ids: torch.Tensor) -> None:
        longest = ours.config.max_position_embeddings
        if ids.size(1) > longest:
            raise ValueError(
                f"compare: {ids.size(1)} tokens, but must be 1 to max_position_embeddings, {longest}"
            )
        super().__init__(ours, theirs, ids)

    def _logits(self) -> torch.Tensor:
        """The value of the last pair."""
        raise NotImplementedError

    def _tapped(self, model: Any, fed: Mapping[str, torch.Tensor]) -> Values:
        known = {name for names in model.tap_names() for name in names}
        points = [pair.point for pair in self.pairs if not self.is_fused(pair)]
        with torch.no_grad():
            with tapped(model, [point for point in points if point in known], fed) as values:
                last = self._logits()
            if not fed:  # As without taps, which leave some operations unfused.
                last = self._logits()
        tables = {name: table[: self.ids.size(1)] for name, table in model.named_buffers()}
        return values | tables | {self.pairs[-1].point: last}

    def ours_at(self, fed: Mapping[str, torch.Tensor]) -> Values:
        return self._tapped(self.ours, fed)

    def _embedder(self) -> str:
        return next(name for name, _ in self.ours.named_children() if "embedder" in name)
