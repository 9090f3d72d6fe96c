#!/usr/bin/env python3
"""Runs gemma_pytorch on tiny models and writes down what it gives: tests/golden.

    git clone https://github.com/google/gemma_pytorch
    scripts/make_golden.py --reference gemma_pytorch

tests/python/golden_cases.py says what is run and how a golden is laid out; manifest.json says where
the numbers are from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "python"))

import golden_cases as cases
import reference
import tiny

SEED = 20250312
MAX_FILE_BYTES, MAX_ALL_BYTES = 100_000, 600_000


def prefixed(prefix: str, tensors: cases.Tensors) -> cases.Tensors:
    # Clones: torch.save writes a view's whole storage.
    return {f"{prefix}.{name}": value.clone() for name, value in tensors.items()}


def functions(package: ModuleType, rng: torch.Generator) -> cases.Tensors:
    inputs = cases.make_function_inputs(rng)
    golden = {**prefixed("input", inputs), **cases.rope_tables(package)}
    for dtype in ("float32", "bfloat16"):
        golden |= prefixed(dtype, cases.function_outputs(package, inputs, dtype))
    return golden


def model(package: ModuleType, fields: dict[str, Any], rng: torch.Generator) -> cases.Tensors:
    weights = cases.make_weights(package, fields, rng)
    inputs = cases.make_inputs(fields, rng)
    golden = {**prefixed("weights", weights), **prefixed("input", inputs)}
    for mode in cases.MODES:
        golden |= prefixed(mode, cases.model_outputs(package, fields, weights, inputs, mode))
    return golden


def multimodal(
    package: ModuleType, fields: dict[str, Any], rng: torch.Generator
) -> cases.Tensors:
    weights = cases.make_weights(package, fields, rng)
    inputs = cases.make_image_inputs(fields, rng)
    golden = {**prefixed("weights", weights), **prefixed("input", inputs)}
    for mode in cases.MODES:
        golden |= prefixed(mode, cases.multimodal_outputs(package, fields, weights, inputs, mode))
    return golden


def texts(package: ModuleType, fields: dict[str, Any], weights: cases.Tensors) -> dict[str, Any]:
    return {
        mode: {
            choice: cases.texts(package, fields, weights, mode, choice) for choice in cases.CHOICES
        }
        for mode in cases.MODES
    }


def commit_of(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def describe(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def write_goldens(package: ModuleType, out: Path) -> list[Path]:
    written = []

    def save(name: str, golden: cases.Tensors) -> None:
        written.append(out / f"{name}.pt")
        torch.save(golden, written[-1])

    rng = torch.Generator().manual_seed(SEED)
    save("functions", functions(package, rng))
    for name, fields in cases.CONFIGS.items():
        save(name, model(package, fields, rng))
    text = {}
    for name, fields in cases.TEXT_CONFIGS.items():
        weights = cases.make_weights(package, fields, rng)
        save(name, prefixed("weights", weights))
        text[name] = texts(package, fields, weights)
    for name, fields in cases.MULTIMODAL_CONFIGS.items():
        save(name, multimodal(package, fields, rng))
    written.append(out / "text.json")
    write_json(
        written[-1],
        {
            "prompts": cases.PROMPTS,
            "output_len": cases.OUTPUT_LEN,
            "seed": cases.SAMPLING_SEED,
            "choices": cases.CHOICES,
            "texts": text,
        },
    )
    return written


def manifest(checkout: Path, files: list[Path]) -> dict[str, Any]:
    return {
        "command": "scripts/make_golden.py --reference gemma_pytorch",
        "reference": {
            "repository": "https://github.com/google/gemma_pytorch",
            "commit": commit_of(checkout),
        },
        "seed": SEED,
        **cases.machine(),
        "configs": {**cases.CONFIGS, **cases.TEXT_CONFIGS, **cases.MULTIMODAL_CONFIGS},
        "files": {path.name: describe(path) for path in files},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--reference", type=Path, required=True, help="a checkout of google/gemma_pytorch"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "golden")
    arguments = parser.parse_args()
    checkout = arguments.reference.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), tiny.threads(1):
        files = write_goldens(reference.load(checkout), arguments.out)
        write_json(arguments.out / "manifest.json", manifest(checkout, files))
    sizes = {path.name: path.stat().st_size for path in files}
    for name, size in sizes.items():
        print(f"{name}: {size} bytes")
    if max(sizes.values()) > MAX_FILE_BYTES or sum(sizes.values()) > MAX_ALL_BYTES:
        sys.exit(
            f"make_golden.py: {sum(sizes.values())} bytes: "
            f"keep a file under {MAX_FILE_BYTES} and all under {MAX_ALL_BYTES}"
        )


if __name__ == "__main__":
    main()
