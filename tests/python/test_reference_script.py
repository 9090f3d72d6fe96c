"""The reference's own scripts/run.py, unchanged, prints the same result when `gemma` means
gemma_libtorch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import reference
import tiny
import torch

gemma_pytorch = reference.required()

RUNNER = Path(__file__).with_name("run_script.py")
SCRIPT = reference.checkout() / "scripts" / "run.py"


def printed(package: str, config: Path, *flags: str) -> str:
    command = [sys.executable, str(RUNNER), package, str(config), str(SCRIPT), *flags]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("quant", [False, True], ids=["plain", "quant"])
@pytest.mark.parametrize("name", ["gemma1_mqa", "gemma2", "gemma3"])
def test_run_py_prints_the_same_result(tmp_path: Path, name: str, quant: bool) -> None:
    fields: dict[str, Any] = tiny.CONFIGS[name]
    model = tiny.make_model(gemma_pytorch, fields, "bfloat16", quant)
    ckpt, config = tmp_path / "model.ckpt", tmp_path / "config.json"
    torch.save({"model_state_dict": model.state_dict()}, ckpt)
    config.write_text(json.dumps(fields))
    flags = [
        f"--ckpt={ckpt}",
        "--variant=1b",
        "--output_len=24",
        "--prompt=The road becomes a path, the path",
        "--seed=5",
        "--quant" if quant else "--noquant",
    ]
    want = printed(str(reference.checkout()), config, *flags)
    got = printed("gemma_libtorch", config, *flags)
    assert "RESULT: " in want
    assert got == want
