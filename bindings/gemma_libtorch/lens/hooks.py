"""Hooks as TransformerLens has them, on the taps of the extension."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

HookFunction = Callable[..., Any]
"""hook(value, hook=HookPoint) -> None, or another value of the same shape."""
Names = "str | Callable[[str], bool] | Sequence[str] | None"
"""One name, some names, a function that says of a name whether it is meant, or None: all."""


class HookPoint:
    """A point of a model by one of its names; what a hook is given as `hook`."""

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self.ctx: dict[str, Any] = {}
        self.texts: list[int] = []  # While a hook runs: whose the rows of the value are,
        self.positions: list[int] = []  # and the position of the first token in each.
        self._model = model

    def layer(self) -> int:
        """The number of the block that the point is in."""
        return int(self.name.split(".")[1])

    def add_hook(self, hook: HookFunction, dir: str = "fwd", is_permanent: bool = False) -> None:
        self._model.add_hook(self.name, hook, dir=dir, is_permanent=is_permanent)

    def __repr__(self) -> str:
        return f"HookPoint({self.name!r})"


def chosen(names: Any, known: Iterable[str]) -> list[str]:
    """Those of the known names that a filter means. Raises ValueError for a name not known."""
    known = list(known)
    if names is None:
        return known
    if callable(names):
        return [name for name in known if names(name)]
    wanted: Sequence[str] = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in known:
            raise ValueError(f"LensModel: no hook point '{name}'; hook_dict lists them")
    return list(wanted)


def tap_function(point: HookPoint, hook: HookFunction, direction: str) -> HookFunction:
    """What the extension calls with a value and where it is from."""
    if direction not in ("fwd", "bwd"):
        raise ValueError(f"LensModel: dir is '{direction}', but must be 'fwd' or 'bwd'")

    def forward(value: torch.Tensor, site: Any) -> torch.Tensor | None:
        point.texts, point.positions = site.texts, site.positions
        return hook(value, hook=point)

    def backward(value: torch.Tensor, site: Any) -> None:
        if not value.requires_grad:
            raise ValueError(
                f"LensModel: {point.name} takes no gradient; call model.requires_grad_(), and "
                "compute in exact numerics, with gradients enabled"
            )
        value.register_hook(functools.partial(hook, hook=point))

    return forward if direction == "fwd" else backward
