#!/usr/bin/env python3
"""Runs recurrentgemma on a tiny model and writes down what it gives: tests/golden/griffin.*

    scripts/make_griffin_golden.py --reference <checkout of recurrentgemma>

tests/python/griffin_golden_cases.py says what is run and how the golden is laid out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "python"))

import golden_cases
import griffin_golden_cases as cases
import recurrentgemma_reference
import tiny

SEED = 20240409


def prefixed(prefix: str, tensors: cases.Tensors) -> cases.Tensors:
    # Clones: torch.save writes a view's whole storage.
    return {f"{prefix}.{name}": value.clone() for name, value in tensors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--reference", type=Path, required=True, help="a checkout of google-deepmind/recurrentgemma"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "golden")
    arguments = parser.parse_args()
    package = recurrentgemma_reference.load(arguments.reference.resolve())
    rng = torch.Generator().manual_seed(SEED)
    with torch.no_grad(), tiny.threads(1):
        weights, inputs = cases.make_weights(package, rng), cases.make_inputs(rng)
        golden = {**prefixed("weights", weights), **prefixed("input", inputs)}
        for dtype in cases.DTYPES:
            golden |= prefixed(dtype, cases.outputs(package, weights, inputs, dtype))
        torch.save(golden, arguments.out / "griffin.pt")
        data = (arguments.out / "griffin.pt").read_bytes()
        manifest = {
            "command": "scripts/make_griffin_golden.py --reference recurrentgemma",
            "reference": "https://github.com/google-deepmind/recurrentgemma",
            "seed": SEED,
            **golden_cases.machine(),
            "config": cases.CONFIG,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    text = json.dumps(manifest, indent=1) + "\n"
    (arguments.out / "griffin.json").write_text(text, encoding="utf-8")
    print(f"griffin.pt: {len(data)} bytes")


if __name__ == "__main__":
    main()
