"""Google's recurrentgemma, when the environment variable RECURRENTGEMMA names a checkout of it.

Only its common.py and torch/*.py are imported. Its packages' own __init__.py import JAX, so empty
modules stand in for them.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

VARIABLE = "RECURRENTGEMMA"


def checkout() -> Path | None:
    path = os.environ.get(VARIABLE)
    return Path(path).resolve() if path else None


def required() -> Any:
    """The names of its recurrentgemma.torch; without a checkout the calling module is skipped."""
    root = checkout()
    if root is None:
        pytest.skip(
            f"compares with recurrentgemma: set {VARIABLE} to a checkout of it",
            allow_module_level=True,
        )
    return load(root)


@functools.cache
def load(root: Path) -> Any:
    if not (root / "recurrentgemma" / "torch" / "griffin.py").is_file():
        raise RuntimeError(f"{root} is not a checkout of recurrentgemma")
    for name in ("recurrentgemma", "recurrentgemma.torch"):
        package = ModuleType(name)
        package.__path__ = [str(root / name.replace(".", "/"))]
        sys.modules[name] = package
    parts = [
        importlib.import_module(f"recurrentgemma.{name}")
        for name in ("common", "torch.layers", "torch.modules", "torch.griffin", "torch.sampler")
    ]
    return SimpleNamespace(
        **{key: value for part in parts for key, value in vars(part).items() if key[0] != "_"}
    )
