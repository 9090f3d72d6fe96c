#!/usr/bin/env python3
"""Times gemma_libtorch with exact numerics against gemma_pytorch, and prints a table in Markdown.

    scripts/compare_speed.py --reference gemma_pytorch \\
        --ckpt checkpoints/gemma-3-270m/model.ckpt --tokenizer checkpoints/gemma-3-270m/tokenizer.model

Both models live in one process and generate in turns, reference first, a round after an unmeasured
one: what the machine does meanwhile, its clock and its memory then meet both alike, and each pair
of neighbours gives a ratio. Every figure is of generate() as a user calls it, tokens in and text
out, and the texts of a pair have to be equal. prefill is a prompt and one token of output; decode
is a short prompt and more tokens.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "python"))

import gemma_libtorch
import reference
import tiny

PROMPT = "The capital of France is"
PREFILL_LEN = {"float32": 512, "bfloat16": 128}  # The reference is slow at bfloat16 matrices.
GREEDY = {"temperature": None}
SAMPLED = {"temperature": 1.0, "top_p": 0.95, "top_k": 64}


@dataclass
class Task:
    name: str
    tokens: int  # Whose rate is given.
    run: Callable[[Any], str]


def plain_fields(config: Any) -> dict[str, Any]:
    """A config of ours as plain values, to make the reference's from: it has no 270m."""
    fields = {name: getattr(config, name) for name in config.__match_args__}
    fields["architecture"] = config.architecture.name
    fields["attn_types"] = config.attn_types and [kind.name for kind in config.attn_types]
    bases = config.rope_wave_length
    fields["rope_wave_length"] = bases and {kind.name: base for kind, base in bases.items()}
    return fields


def load(package: ModuleType, fields: dict[str, Any], dtype: str, ckpt: str) -> Any:
    config = tiny.make_config(package, fields, dtype=dtype)
    with tiny.default_dtype(tiny.DTYPES[dtype]):
        model = package.model.GemmaForCausalLM(config).eval()
    model.load_weights(ckpt)
    return model


def prompt_of(model: Any, length: int) -> str:
    """A text of so many tokens, with the one that starts it."""
    ids = model.tokenizer.encode(" The road becomes a path, the path becomes a stream." * length)
    text = model.tokenizer.decode(ids[1:length])
    if len(model.tokenizer.encode(text)) != length:
        raise RuntimeError(f"no prompt of {length} tokens with this tokenizer")
    return text


def tasks(model: Any, dtype: str, output_len: int) -> list[Task]:
    prefill_len = PREFILL_LEN[dtype]
    long_prompt = prompt_of(model, prefill_len)

    def generate(prompt: str, length: int, choice: dict[str, Any]) -> Callable[[Any], str]:
        def run(model: Any) -> str:
            torch.manual_seed(1)
            return model.generate(prompt, "cpu", output_len=length, **choice)

        return run

    return [
        Task(f"prefill {prefill_len}", prefill_len, generate(long_prompt, 1, GREEDY)),
        Task(f"decode {output_len} greedy", output_len, generate(PROMPT, output_len, GREEDY)),
        Task(f"decode {output_len} sampled", output_len, generate(PROMPT, output_len, SAMPLED)),
    ]


def timed(task: Task, model: Any) -> tuple[float, str]:
    """Tokens per second, and the text."""
    start = time.perf_counter()
    text = task.run(model)
    return task.tokens / (time.perf_counter() - start), text


def compare(task: Task, want: Any, got: Any, rounds: int) -> tuple[list[float], list[float]]:
    rates: tuple[list[float], list[float]] = ([], [])
    for index in range(rounds + 1):
        pair = [timed(task, model) for model in (want, got)]
        if pair[0][1] != pair[1][1]:
            raise RuntimeError(f"{task.name}: texts differ: {pair[0][1]!r}, {pair[1][1]!r}")
        if index > 0:  # The first round warms up.
            for column, (rate, _) in zip(rates, pair, strict=True):
                column.append(rate)
    return rates


def row(dtype: str, threads: int, task: Task, rates: tuple[list[float], list[float]]) -> str:
    theirs, ours = (statistics.median(column) for column in rates)
    ratios = [b / a for a, b in zip(*rates, strict=True)]
    return (
        f"| {dtype} | {threads} | {task.name} | {theirs:.2f} | {ours:.2f} | {ours / theirs:.3f} "
        f"| {statistics.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--reference", type=Path, required=True, help="a checkout of google/gemma_pytorch"
    )
    parser.add_argument("--ckpt", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--variant", default="270m")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=PREFILL_LEN)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output_len", type=int, default=32)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    gemma_pytorch = reference.load(arguments.reference.resolve())
    fields = plain_fields(gemma_libtorch.config.get_model_config(arguments.variant))
    fields["tokenizer"] = arguments.tokenizer
    print(
        f"{arguments.variant}, torch {torch.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}, {arguments.rounds} rounds, "
        f"load average at the start {os.getloadavg()[0]:.2f}\n"
    )
    print(
        "| dtype | threads | task | gemma_pytorch tok/s | gemma_libtorch tok/s | ratio of medians "
        "| median of ratios | ratios |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for dtype in arguments.dtype:
        want, got = (
            load(package, fields, dtype, arguments.ckpt)
            for package in (gemma_pytorch, gemma_libtorch)
        )
        for threads in arguments.threads:
            with tiny.threads(threads):
                for task in tasks(got, dtype, arguments.output_len):
                    rates = compare(task, want, got, arguments.rounds)
                    print(row(dtype, threads, task, rates), flush=True)
        del want, got
    print(f"\nload average at the end {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
