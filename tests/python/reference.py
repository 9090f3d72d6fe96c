"""Google's gemma_pytorch, when the environment variable GEMMA_PYTORCH names a checkout of it."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

VARIABLE = "GEMMA_PYTORCH"


def checkout() -> Path | None:
    path = os.environ.get(VARIABLE)
    return Path(path).resolve() if path else None


def required() -> ModuleType:
    """The package `gemma` of the checkout; without one the calling test module is skipped."""
    if checkout() is None:
        pytest.skip(
            f"compares with gemma_pytorch: set {VARIABLE} to a checkout of it",
            allow_module_level=True,
        )
    return load(checkout())


@functools.cache
def load(root: Path) -> ModuleType:
    # As `gemma`, not gemma_pytorch.gemma: its modules import each other by either name, and there
    # would be two AttentionType.
    sys.path.insert(0, str(root))
    package = importlib.import_module("gemma")
    if not (root / "gemma" / "model.py").is_file() or Path(package.__path__[0]).parent != root:
        raise RuntimeError(f"{root} is not a checkout of gemma_pytorch")
    siglip = "siglip_vision.siglip_vision_model"
    for name in ("config", "model", "tokenizer", siglip, "gemma3_model"):
        importlib.import_module(f"gemma.{name}")
    return package
