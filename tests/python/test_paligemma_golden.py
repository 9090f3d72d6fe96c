"""What transformers' PaliGemma gave on tiny models, kept in tests/golden; needs no transformers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_paligemma
import torch
from gemma_libtorch import paligemma
from test_golden import GOLDEN

MANIFEST = json.loads((GOLDEN / "paligemma.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-5  # Relative to the largest logit: the two sum in another order.


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return torch.load(GOLDEN / "paligemma.pt")


def part(golden: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): v for key, v in golden.items() if key.startswith(prefix)}


def test_the_file_is_that_of_the_manifest() -> None:
    data = (GOLDEN / "paligemma.pt").read_bytes()
    assert MANIFEST["sha256"] == hashlib.sha256(data).hexdigest()
    assert MANIFEST["configs"] == tiny_paligemma.GOLDEN_CONFIGS


@pytest.mark.parametrize("name", tiny_paligemma.GOLDEN_CONFIGS)
@pytest.mark.parametrize("numerics", ["exact", "fast"])
def test_logits_are_those_of_transformers(
    golden: dict[str, Any], name: str, numerics: str, tmp_path: Path
) -> None:
    config = tiny_paligemma.GOLDEN_CONFIGS[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = part(golden, f"{name}.weights.")
    torch.save({key: value.float() for key, value in weights.items()}, tmp_path / "pytorch_model.bin")
    model = paligemma.PaliGemmaForConditionalGeneration(
        paligemma.PaliGemmaConfig.from_pretrained(tmp_path)
    )
    assert model.load_weights(tmp_path).unexpected == []
    model.set_numerics(numerics)
    want = golden[f"{name}.logits"]
    got = model(**part(golden, f"{name}.input."))
    torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCE * want.abs().max().item())
