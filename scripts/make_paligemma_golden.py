#!/usr/bin/env python3
"""Runs transformers' PaliGemma on tiny models and writes down what it gives: tests/golden/paligemma.*

    scripts/make_paligemma_golden.py

tests/python/tiny_paligemma.py says what is run. A golden has tensors "NAME.weights.…" in bfloat16,
"NAME.input.…", and "NAME.logits", which float32 gives.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "python"))

import tiny
import tiny_paligemma
import transformers

GOLDEN = ROOT / "tests" / "golden"


def golden_of(name: str) -> dict[str, torch.Tensor]:
    theirs = tiny_paligemma.make_theirs(transformers, tiny_paligemma.GOLDEN_CONFIGS[name])
    for parameter in theirs.parameters():  # Numbers that bfloat16 holds.
        parameter.copy_(parameter.bfloat16())
    inputs = tiny_paligemma.prompt(name, prefix=7, suffix=6)
    weights = {key: value.bfloat16() for key, value in theirs.state_dict().items()}
    del weights["lm_head.weight"]  # The embedding once more.
    return {
        **{f"{name}.weights.{key}": value for key, value in weights.items()},
        **{f"{name}.input.{key}": value for key, value in inputs.items()},
        f"{name}.logits": theirs(**inputs).logits,
    }


def main() -> None:
    with torch.no_grad(), tiny.threads(1):
        golden = {}
        for name in tiny_paligemma.GOLDEN_CONFIGS:
            golden |= golden_of(name)
    torch.save(golden, GOLDEN / "paligemma.pt")
    data = (GOLDEN / "paligemma.pt").read_bytes()
    manifest = {
        "command": "scripts/make_paligemma_golden.py",
        "reference": f"transformers {transformers.__version__}",
        "torch": torch.__version__,
        "configs": tiny_paligemma.GOLDEN_CONFIGS,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(manifest, indent=1) + "\n"
    (GOLDEN / "paligemma.json").write_text(text, encoding="utf-8")
    print(f"paligemma.pt: {len(data)} bytes")


if __name__ == "__main__":
    main()
