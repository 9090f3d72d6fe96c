#!/usr/bin/env python3
"""Says whether fast numerics write the texts that exact numerics do.

    scripts/compare_numerics.py --ckpt checkpoints/gemma-3-270m/model.ckpt

Ten prompts, greedy and drawn from a seed, by exact numerics in float32 (the reference's own run)
and by fast numerics with bfloat16 weights. Two logits that are nearer to each other than float32
can tell apart may be ranked either way; such a place is shown with both texts.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from gemma_libtorch import config, model

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):",
    "The three laws of thermodynamics are",
    "Zutaten für einen Apfelkuchen:",
    "Dear Sir or Madam,",
    "In 1969, the first humans",
    "Q: Why is the sky blue?\nA:",
    "日本の首都は",
    "1, 1, 2, 3, 5, 8, 13,",
]


def load(args: argparse.Namespace, dtype: str, numerics: str) -> model.GemmaForCausalLM:
    settings = config.get_model_config(args.variant, dtype)
    settings.tokenizer = str(args.tokenizer or args.ckpt.with_name("tokenizer.model"))
    torch.set_default_dtype(settings.get_dtype())
    loaded = model.GemmaForCausalLM(settings).eval()
    torch.set_default_dtype(torch.float32)
    loaded.load_weights(args.ckpt)
    loaded.set_numerics(numerics)
    return loaded


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ckpt", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--variant", default="270m")
    parser.add_argument("--greedy_len", type=int, default=256)
    parser.add_argument("--seeded_len", type=int, default=64)
    args = parser.parse_args()

    exact, fast = load(args, "float32", "exact"), load(args, "bfloat16", "fast")
    different = 0
    for task, length, temperature in [
        ("greedy", args.greedy_len, None),
        ("seeded", args.seeded_len, 1.0),
    ]:
        for seed, prompt in enumerate(PROMPTS):
            texts, seconds = [], []
            for each in (exact, fast):
                torch.manual_seed(seed)
                start = time.perf_counter()
                texts.append(each.generate(prompt, "cpu", length, temperature=temperature))
                seconds.append(time.perf_counter() - start)
            same = texts[0] == texts[1]
            different += not same
            print(
                f"{task} {length}: {'same' if same else 'DIFFERENT'}, exact {seconds[0]:.1f} s, "
                f"fast {seconds[1]:.1f} s: {prompt!r}",
                flush=True,
            )
            if not same:
                print(f"  exact: {texts[0]!r}\n  fast:  {texts[1]!r}")
    print(f"{2 * len(PROMPTS) - different} of {2 * len(PROMPTS)} texts are the same")
    return different > 0


if __name__ == "__main__":
    sys.exit(main())
