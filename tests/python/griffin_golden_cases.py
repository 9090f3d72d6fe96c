"""What is run for tests/golden/griffin.pt, and compared with it.

A golden has tensors "weights.NAME" in bfloat16, "input.NAME", and for each dtype "DTYPE.RESULT".
"""

from __future__ import annotations

from typing import Any

import tiny
import tiny_griffin
import torch
from tiny_griffin import A, R

Tensors = dict[str, torch.Tensor]

DTYPES = ("float32", "bfloat16")
CONFIG: dict[str, Any] = {
    "vocab_size": 43,
    "width": 24,
    "mlp_expanded_width": 20,
    "num_heads": 2,
    "block_types": [R, A, R],
    "embeddings_scale_by_sqrt_dim": True,
    "attention_window_size": 4,
    "logits_soft_cap": 3.3,
    "lru_width": 30,
}
PROMPT_LENGTH, STEPS = 9, 6


def make_weights(package: Any, rng: torch.Generator) -> Tensors:
    model = package.Griffin(tiny_griffin.make_config(package, CONFIG))
    return {
        name: tiny_griffin.random_weight(parameter, name, rng).bfloat16()
        for name, parameter in model.named_parameters()
    }


def make_inputs(rng: torch.Generator) -> Tensors:
    """A text; one behind padding; two documents in a row."""
    length = PROMPT_LENGTH + STEPS
    places = torch.arange(length)
    rows = [places, (places - 4).clamp(min=-1), torch.where(places < 5, places, places - 5)]
    return {
        "tokens": torch.randint(0, CONFIG["vocab_size"], (len(rows), length), generator=rng),
        "segment_pos": torch.stack(rows),
    }


def outputs(package: Any, weights: Tensors, inputs: Tensors, dtype: str) -> Tensors:
    """The logits of the prompt and of single tokens, and what is kept after each of the two."""
    config = tiny_griffin.make_config(package, CONFIG)
    model = package.Griffin(config, gradient_checkpointing=False, dtype=tiny.DTYPES[dtype])
    model.load_state_dict(weights)
    model.eval()

    def run(begin: int, end: int, cache: Any = None) -> tuple[torch.Tensor, Any]:
        part = slice(begin, end)
        return model(inputs["tokens"][:, part], inputs["segment_pos"][:, part], cache)

    logits, cache = run(0, PROMPT_LENGTH)
    out = {"prompt.logits": logits, **kept("prompt", cache)}
    steps = []
    for t in range(PROMPT_LENGTH, PROMPT_LENGTH + STEPS):
        logits, cache = run(t, t + 1, cache)
        steps.append(logits)
    return {**out, "steps.logits": torch.cat(steps, dim=1), **kept("steps", cache)}


def kept(prefix: str, cache: dict[str, Any]) -> Tensors:
    return {
        f"{prefix}.{block}.{name}": value.clone()
        for block, state in cache.items()
        for name, value in state._asdict().items()
    }
