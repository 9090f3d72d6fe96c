"""The values of a run, by hooks on the reference's modules and taps on ours."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from .pairs import Pair, Place

Values = dict[str, torch.Tensor]
"""By the name of our point."""


def _first(value: Any) -> torch.Tensor:
    return value[0] if isinstance(value, tuple) else value


def _logits(output: Any) -> torch.Tensor:
    return output[1] if isinstance(output, tuple) else output.logits


_OF_OUTPUT: dict[str, Callable[[Any], torch.Tensor]] = {
    "out": _first,
    "out.1": lambda output: output[1],
    "logits": _logits,
}


def submodule(model: Any, path: str) -> Any:
    """None when there is none of that path."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


class Watch(contextlib.ExitStack):
    """A torch.nn.Module whose values at places are kept for as long as the context lasts.

    `rotation` names the function by which its attentions rotate: it returns both queries and keys,
    or is called for queries and then for keys.
    """

    def __init__(self, model: Any, places: Iterable[Place], rotation: str) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], Any] = {}
        self.ran: list[str] = []
        """Modules with parameters of their own, in the order in which they ran."""
        self._attention: list[str] = []  # The one that runs.
        parts: dict[str, set[str]] = {}
        for place in places:
            parts.setdefault(place.module, set()).add(place.part)
        for path, module in model.named_modules():
            self._watch(path, module, parts.get(path, set()))
            if "query" in parts.get(path, ()):
                self._watch_rotation(path, module, rotation)

    def _watch(self, path: str, module: Any, parts: set[str]) -> None:
        def before(_module: Any, args: Any, kwargs: Any) -> None:
            if "in" in parts:
                given = args[0] if args else next(iter(kwargs.values()))
                self.kept[path, "in"] = given.detach().clone()

        def after(_module: Any, args: Any, kwargs: Any, output: Any) -> None:
            if list(module.parameters(recurse=False)):
                self.ran.append(path)
            for part in parts & _OF_OUTPUT.keys():
                value = _OF_OUTPUT[part](output)
                if value is not None:
                    self.kept[path, part] = value.detach().clone()
            words = [given for given in (*args, *kwargs.values()) if isinstance(given, str)]
            table = ".".join(["table", *words])
            if table in parts:
                self.kept[path, table] = tuple(value.detach().clone() for value in output)

        for handle in (
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True),
        ):
            self.callback(handle.remove)
        for part in parts:
            name = part.removeprefix("buffer.")
            if name != part and hasattr(module, name):
                self.kept[path, part] = getattr(module, name)

    def _watch_rotation(self, path: str, attention: Any, name: str) -> None:
        enter = attention.register_forward_pre_hook(lambda *_: self._attention.append(path))
        leave = attention.register_forward_hook(lambda *_: self._attention.clear())
        self.callback(enter.remove)
        self.callback(leave.remove)
        for cls in type(attention).__mro__:
            module = sys.modules[cls.__module__]
            function = getattr(module, name, None)
            if function is not None and not hasattr(function, "watched_by"):
                self._replace(module, name, self._rotation(function))

    def _rotation(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            for path in self._attention:
                values = result if isinstance(result, tuple) else (result,)
                for value in values:
                    part = "key" if (path, "query") in self.kept else "query"
                    self.kept[path, part] = value.detach().clone()
            return result

        watched.watched_by = self  # type: ignore[attr-defined]
        return watched

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        self.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)

    def values(self, pairs: Iterable[Pair]) -> Values:
        """What was kept of the pairs' places, in our layout."""
        found = {}
        for pair in pairs:
            for place in pair.places:
                value = self.kept.get((place.module, place.part))
                if value is not None:
                    found[pair.point] = place.layout(value)
                    break
        return found


@contextlib.contextmanager
def tapped(model: Any, points: Iterable[str], fed: Mapping[str, torch.Tensor]) -> Iterator[Values]:
    """The values at points of one of our models, for as long as the context lasts. After a value is
    kept, the one that is fed to the point goes on in its place.
    """
    kept: Values = {}

    def keep(value: torch.Tensor, site: Any) -> None:
        kept[site.name] = value.detach().clone()
        given = fed.get(site.name)
        if given is not None and given.shape == value.shape:
            # Written, not returned: the value keeps its strides, on which a product may depend.
            value.copy_(given)

    with model.add_taps([(point, keep) for point in points]):
        yield kept
