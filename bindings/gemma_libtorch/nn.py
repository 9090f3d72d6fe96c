"""Modules of this package as torch.nn.Module."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch.nn.cpp import ModuleWrapper

__all__ = ["as_module"]


class _Frontend:
    """A module of ours as ModuleWrapper takes those of LibTorch's C++ frontend."""

    def __init__(self, module: Any) -> None:
        self._module = module

    @property
    def _parameters(self) -> OrderedDict[str, torch.Tensor]:
        return OrderedDict(self._module.named_parameters(recurse=False))

    @property
    def _buffers(self) -> OrderedDict[str, torch.Tensor]:
        own = self._module.named_buffers(recurse=False)
        return OrderedDict(own)

    @property
    def _modules(self) -> OrderedDict[str, torch.nn.Module]:
        return OrderedDict(
            (name, as_module(child)) for name, child in self._module.named_children()
        )

    @property
    def training(self) -> bool:
        return self._module.training

    def train(self, mode: bool = True) -> None:
        self._module.train(mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._module(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self._module)


def as_module(module: Any) -> torch.nn.Module:
    """A torch.nn.Module around a module of this package, with its parameters: for optimisers, for a
    place in a Python module, for torch.nn.utils. `cpp_module._module` is what it is around.
    """
    return ModuleWrapper(_Frontend(module))
