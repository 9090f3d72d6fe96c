"""What every test starts from; what it changes is put back.

One thread, as on tiny tensors a second one only waits; tests about threads ask for more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gemma_libtorch
import pytest
import tiny
import torch
from gemma_libtorch.lens import LensModel


@pytest.fixture(autouse=True)
def fresh_torch_state() -> Iterator[None]:
    with tiny.default_dtype(torch.float32), tiny.threads(1), torch.no_grad():
        torch.manual_seed(0)
        yield


@pytest.fixture
def model() -> gemma_libtorch.model.GemmaForCausalLM:
    """A tiny Gemma 3."""
    return tiny.make_model(gemma_libtorch, tiny.CONFIGS["gemma3"], "float32")


@pytest.fixture(params=["gemma1_mqa", "gemma2", "gemma3"])
def lens(request: pytest.FixtureRequest, tmp_path: Path) -> LensModel:
    """Of a tiny model, which is in model.ckpt of tmp_path, too."""
    made = tiny.make_model(gemma_libtorch, tiny.CONFIGS[request.param], "float32")
    tiny.save_checkpoint(made, tmp_path)
    return LensModel(made)
