"""Continues the prompts of a file on the machines of a Ray cluster, or on this one, with Ray Data.

    pip install "ray[data]"
    python examples/ray_data_batch.py --ckpt model.ckpt --prompts prompts.jsonl --out answers

Each line of the file is {"prompt": "..."}. The folder `answers` gets files of the same lines, each
with an "answer". An actor keeps a model, whose file is mapped: those of one machine share its
memory. The answers do not depend on how many actors there are, nor on which prompts go together.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import ray
import ray.data


class Gemma:
    """Lives in an actor: a model is made where it runs, from a path that is the same everywhere."""

    def __init__(self, ckpt: str, threads: int, max_tokens: int) -> None:
        import torch
        from gemma_libtorch import config, model
        from gemma_libtorch.engine import Engine

        torch.set_num_threads(threads)
        model_config = config.GemmaConfig.from_pretrained(ckpt)
        torch.set_default_dtype(model_config.get_dtype())
        gemma = model.GemmaForCausalLM(model_config)
        gemma.load_weights(ckpt, mmap=True)
        gemma.set_numerics("fast")
        self.engine = Engine(gemma)
        self.max_tokens = max_tokens

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from gemma_libtorch.engine import Request

        requests = [
            Request(str(prompt), max_tokens=self.max_tokens, temperature=0.0)
            for prompt in batch["prompt"]
        ]
        batch["answer"] = [answer.text for answer in self.engine.generate(requests)]
        return batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", required=True, help="checkpoint, at this path on every machine")
    parser.add_argument("--prompts", required=True, help="JSON lines with a field prompt")
    parser.add_argument("--out", required=True, help="folder for JSON lines with an answer")
    parser.add_argument("--actors", type=int, default=2, help="models at work")
    parser.add_argument("--threads", type=int, default=1, help="CPUs of each")
    parser.add_argument("--max_tokens", type=int, default=64, help="of each answer")
    options = parser.parse_args()

    # Reading and writing are tasks that want a CPU, too: without one left for them nothing goes on.
    busy = options.actors * options.threads
    is_cluster = "RAY_ADDRESS" in os.environ
    ray.init(num_cpus=None if is_cluster else max(os.cpu_count() or 1, busy + 2))
    prompts = ray.data.read_json(os.path.abspath(options.prompts))
    answers = prompts.map_batches(
        Gemma,
        fn_constructor_args=(os.path.abspath(options.ckpt), options.threads, options.max_tokens),
        batch_size=32,
        compute=ray.data.ActorPoolStrategy(size=options.actors),
        num_cpus=options.threads,
    )
    answers.write_json(os.path.abspath(options.out))


if __name__ == "__main__":
    main()
