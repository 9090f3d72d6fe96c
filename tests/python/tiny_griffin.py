"""RecurrentGemmas small enough to compare in full.

`package` is gemma_libtorch.recurrentgemma, or the reference's recurrentgemma.torch.
"""

from __future__ import annotations

from typing import Any

import tiny
import torch

R, A = "RECURRENT", "ATTENTION"

CONFIGS: dict[str, dict[str, Any]] = {
    # A head of 12: its root is exact in no dtype, and half of its half is 3. Nor is 48's.
    "griffin": {
        "vocab_size": tiny.VOCAB_SIZE,
        "width": 48,
        "mlp_expanded_width": 40,
        "num_heads": 4,
        "block_types": (R, R, A, R),
        "embeddings_scale_by_sqrt_dim": True,
        "attention_window_size": 6,
        "logits_soft_cap": 3.3,
    },
    "griffin_wide": {
        "vocab_size": 37,
        "width": 32,
        "mlp_expanded_width": 20,
        "num_heads": 2,
        "block_types": (A, R, A),
        "embeddings_scale_by_sqrt_dim": False,
        "attention_window_size": 1,
        "logits_soft_cap": 0.0,
        "lru_width": 44,
    },
    "hawk": {
        "vocab_size": 37,
        "width": 20,
        "mlp_expanded_width": 24,
        "num_heads": 2,
        "block_types": (R, R),
        "embeddings_scale_by_sqrt_dim": False,
        "attention_window_size": 9,
        "logits_soft_cap": 0.0,
        "lru_width": 36,
    },
}


def make_config(package: Any, fields: dict[str, Any]) -> Any:
    types = package.TemporalBlockType
    return package.GriffinConfig(
        **{**fields, "block_types": tuple(types[name] for name in fields["block_types"])}
    )


def random_weight(tensor: torch.Tensor, name: str, rng: torch.Generator) -> torch.Tensor:
    """Recurrences that remember some tokens: at |a_param| of 1 they forget within three."""
    value = tiny.random_tensor(tensor, name, rng)
    return value - 4 if name.endswith("a_param") else value * 2


def randomize(module: Any, seed: int = 1) -> Any:
    """As tiny.randomize. The embedding's numbers are smaller where it is multiplied."""
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        parameter.copy_(random_weight(parameter, name, rng))
    return module


def make(package: Any, fields: dict[str, Any], dtype: str) -> Any:
    config = make_config(package, fields)
    model = package.Griffin(config, gradient_checkpointing=False, dtype=tiny.DTYPES[dtype])
    return randomize(model).eval()


def positions(batch: int, length: int, pads: list[int] | None = None) -> torch.Tensor:
    """Of rows that end together: row i has pads[i] tokens of padding, at -1."""
    pads = pads or [0] * batch
    return torch.stack([torch.arange(length) - pad for pad in pads]).clamp(min=-1).int()
