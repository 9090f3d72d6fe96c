"""A filter saves memory: values that no filter names are never made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

LENGTH = 512


def peak(names_filter: str | None) -> int:
    """In a process of its own: the bytes that a run with a cache takes at most."""
    script = f"from test_lens_memory import measure; measure({names_filter!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests/python", *sys.path])}
    run = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        cwd=tiny.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    return int(run.stdout)


def highest() -> int:
    """Of this program, in bytes; getrusage would count the process that started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@torch.no_grad()
def measure(names_filter: str | None) -> None:
    from test_lens_transformers import LensModel, real_model

    lens = LensModel(real_model())
    ids = tiny.random_ids((1, LENGTH), lens.cfg.d_vocab)
    end = lens.cfg.n_layers  # Without logits, which are 0.5 GB.
    lens(ids, stop_at_layer=end)
    before = highest()
    lens.run_with_cache(ids, names_filter=names_filter, stop_at_layer=end)
    print(highest() - before)


def test_one_name_takes_little_of_the_memory_of_all() -> None:
    if not (tiny.GEMMA_3_270M_FOLDER / "model.ckpt").exists():
        pytest.skip("no checkpoints/gemma-3-270m: run scripts/fetch_gemma_3_270m.py")
    one, every = peak("blocks.8.hook_resid_post"), peak(None)
    print(f"one name {one / 2**20:.0f} MiB, all names {every / 2**20:.0f} MiB")
    assert every > 500 * 2**20
    assert one < every / 8
