"""Hooks as TransformerLens has them, on the taps of the extension."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

HookFunction = Callable[..., Any]
"""hook(value, hook=HookPoint) -> None, or another value of the same shape."""
Names = "str | Callable[[str], bool] | Sequence[str] | None"
"""One name, some names, a function that says of a name whether it is meant, or None: all."""
Tap = tuple[str, Callable[[torch.Tensor, Any], "torch.Tensor | None"]]


@dataclasses.dataclass(eq=False)
class Hook:
    """A function at a point; its equal may be there twice, and each is a hook of its own."""

    user_hook: HookFunction
    point: HookPoint
    is_permanent: bool
    level: int | None

    def call_backward(self, gradient: torch.Tensor) -> torch.Tensor | None:
        result = self.user_hook(gradient, hook=self.point)
        return result[0] if isinstance(result, tuple) else result


class HookPoint:
    """A point of a model by one of its names; what a hook is given as `hook`. `twin` is the same
    point by another name: they share their hooks.
    """

    def __init__(self, name: str, model: Any, twin: HookPoint | None = None) -> None:
        self.name = name
        self.ctx: dict[str, Any] = {} if twin is None else twin.ctx
        self.texts: list[int] = []  # While a hook runs: whose the rows of the value are,
        self.positions: list[int] = []  # and the position of the first token in each.
        self.fwd_hooks: list[Hook] = [] if twin is None else twin.fwd_hooks
        self.bwd_hooks: list[Hook] = [] if twin is None else twin.bwd_hooks
        self._model = model

    @property
    def is_on(self) -> bool:
        """Whether a function that chooses names may mean it."""
        return True

    def layer(self) -> int:
        """The number of the block that the point is in."""
        return int(self.name.split(".")[1])

    def add_hook(
        self,
        hook: HookFunction,
        dir: str = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """See LensModel.add_hook."""
        self._model.add_hook(self.name, hook, dir, is_permanent, level, prepend)

    def hooks_of(self, dir: str) -> list[Hook]:
        """Those of "fwd" or "bwd". Raises ValueError for another word."""
        if dir not in ("fwd", "bwd"):
            raise ValueError(f"LensModel: dir is '{dir}', but must be 'fwd' or 'bwd'")
        return self.fwd_hooks if dir == "fwd" else self.bwd_hooks

    def has_hooks(
        self, dir: str = "both", including_permanent: bool = True, level: int | None = None
    ) -> bool:
        """Whether there are hooks of "fwd", "bwd" or "both", of a level or of all."""
        found = self.fwd_hooks + self.bwd_hooks if dir == "both" else self.hooks_of(dir)
        return any(
            (including_permanent or not hook.is_permanent)
            and (level is None or hook.level == level)
            for hook in found
        )

    def remove_hooks(
        self, dir: str = "fwd", including_permanent: bool = False, level: int | None = None
    ) -> None:
        """Those of "fwd", "bwd" or "both", of a level or of all."""
        mine = {id(hook) for hook in self.fwd_hooks + self.bwd_hooks}
        self._model.remove_hooks(
            lambda hook: (
                id(hook) in mine
                and (including_permanent or not hook.is_permanent)
                and (level is None or hook.level == level)
            ),
            dir,
        )

    def taps(self) -> list[Tap]:
        """What the extension calls for the hooks that are here when it comes to the value."""
        return [(self.name, self.fire)]

    def fire(self, value: torch.Tensor, site: Any) -> torch.Tensor | None:
        """Calls the hooks in their order. -> what they made of the value, None: itself."""
        given = value
        if value.requires_grad:
            value = value.clone()  # A hook may write into it; a part of a split may not be.
        for hook in tuple(self.fwd_hooks):
            hook.point.texts, hook.point.positions = site.texts, site.positions
            result = hook.user_hook(value, hook=hook.point)
            value = value if result is None else result
        for hook in self.bwd_hooks:
            if not value.requires_grad:
                raise ValueError(
                    f"LensModel: {self.name} takes no gradient; call model.requires_grad_(), and "
                    "compute in exact numerics, with gradients enabled"
                )
            value.register_hook(hook.call_backward)
        return None if value is given else value

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


class Hooked:
    """LensModel's part about hooks. A point with hooks has one tap, which calls them in order."""

    model: Any
    hook_dict: dict[str, HookPoint]
    _first_names: list[str]

    def __init__(self) -> None:
        self._armed: list[tuple[Any, list[HookPoint]]] = []  # Handles of taps, and their points.

    def add_hook(
        self,
        name: Any,
        hook: HookFunction,
        dir: str = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """hook(value, hook=HookPoint) at points by name, until reset_hooks; dir "bwd": with the
        gradient of the value. It runs after the hooks that are there, with prepend before them.
        """
        self.add_hooks([(name, hook)], dir, is_permanent, level, prepend)

    def add_perma_hook(self, name: Any, hook: HookFunction, dir: str = "fwd") -> None:
        """A hook that reset_hooks leaves."""
        self.add_hook(name, hook, dir, is_permanent=True)

    def add_hooks(
        self,
        hooks: Sequence[tuple[Any, HookFunction]],
        dir: str = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> list[Hook]:
        """add_hook of each, in one walk over the model."""
        new = [
            Hook(hook, self.hook_dict[name], is_permanent, level)
            for names, hook in hooks
            for name in self._hook_names(names)
        ]
        armed = {id(point.fwd_hooks) for _, points in self._armed for point in points}
        unarmed = {id(hook.point.fwd_hooks): hook.point for hook in new}
        points = [point for key, point in unarmed.items() if key not in armed]
        lists = [hook.point.hooks_of(dir) for hook in new]
        if points:
            taps = [tap for point in points for tap in point.taps()]
            self._armed.append((self.model.add_taps(taps), points))
        for hook, there in zip(new, lists, strict=True):
            there.insert(0 if prepend else len(there), hook)
        return new

    def _hook_names(self, names: Any) -> list[str]:
        if not callable(names):
            return chosen(names, self.hook_dict)
        # A filter means a point once, whatever names it has.
        return [name for name in chosen(names, self._first_names) if self.hook_dict[name].is_on]

    def remove_hooks(self, is_meant: Callable[[Hook], bool], dir: str = "both") -> None:
        """Removes hooks, and the taps of the points that have none any more."""
        left = []
        for handle, points in self._armed:
            for point in points:
                for direction in ("fwd", "bwd") if dir == "both" else (dir,):
                    there = point.hooks_of(direction)
                    there[:] = [hook for hook in there if not is_meant(hook)]
            if any(point.fwd_hooks or point.bwd_hooks for point in points):
                left.append((handle, points))
            else:
                handle.remove()
        self._armed = left

    def reset_hooks(
        self,
        clear_contexts: bool = True,
        direction: str = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Removes hooks: of "fwd", "bwd" or "both", of a level or of all; permanent ones if told.
        Clears `ctx` of all points.
        """
        self.remove_hooks(
            lambda hook: (
                (including_permanent or not hook.is_permanent)
                and (level is None or hook.level == level)
            ),
            direction,
        )
        if clear_contexts:
            self.clear_contexts()

    def remove_all_hook_fns(
        self, direction: str = "both", including_permanent: bool = False, level: int | None = None
    ) -> None:
        """reset_hooks that leaves `ctx`."""
        self.reset_hooks(False, direction, including_permanent, level)

    def clear_contexts(self) -> None:
        for point in self.hook_dict.values():
            point.ctx.clear()

    def list_hooks(self) -> dict[str, list[Hook]]:
        """The hooks that there are, by the names of their points."""
        found: dict[str, list[Hook]] = {}
        for _, points in self._armed:
            for point in points:
                for hook in point.fwd_hooks + point.bwd_hooks:
                    found.setdefault(hook.point.name, []).append(hook)
        return found
