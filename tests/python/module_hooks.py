"""A value of a model, seen or edited: by a tap of ours, and by a hook on a torch.nn.Module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Edit = Callable[[torch.Tensor], torch.Tensor]
Compute = Callable[[], torch.Tensor]
Seen = tuple[torch.Tensor, torch.Tensor]
"""The value, and the result when it is edited there."""


def scaled(value: torch.Tensor) -> torch.Tensor:
    """Numbers of a row by different factors: a norm takes one factor back."""
    return value * torch.linspace(0.25, 1.5, value.size(-1)).to(value.dtype)


def at_ours(model: Any, compute: Compute, point: str, edit: Edit | None = None) -> Seen:
    """At a point that is computed once."""
    seen = []

    def tap(value: torch.Tensor, _site: Any) -> torch.Tensor | None:
        seen.append(value.clone())
        return None if edit is None else edit(value)

    with model.add_taps([(point, tap)]):
        result = compute()
    assert len(seen) == 1, point
    return seen[0], result


def at_theirs(
    model: Any, compute: Compute, module: str, end: str, edit: Edit | None = None
) -> Seen:
    """At a module's input ("in") or output ("out"), the first of several."""
    seen = []

    def changed(value: torch.Tensor) -> torch.Tensor:
        seen.append(value.clone())
        return value if edit is None else edit(value)

    def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (changed(args[0]), *args[1:]), kwargs
        name = next(iter(kwargs))
        return args, kwargs | {name: changed(kwargs[name])}

    def after(_module: Any, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (changed(output[0]), *output[1:])
        return changed(output)

    part = model.get_submodule(module)
    if end == "in":
        handle = part.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = part.register_forward_hook(after)
    with handle:
        result = compute()
    return seen[0], result


def ends_of_modules(model: Any) -> list[tuple[str, str]]:
    """The modules below a model of ours that have points for their input and output, and which."""
    ends = [names[0].rpartition("hook_")[::2] for names in model.tap_names()]
    return [(m.rstrip("."), end) for m, end in ends if end in ("in", "out") and m]


def of_convolution(edit: Edit) -> Edit:
    """An edit of patches [N, P, E], of what a convolution gives, [N, E, height, width]."""
    return lambda value: edit(value.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(value.shape)
