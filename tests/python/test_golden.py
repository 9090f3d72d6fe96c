"""What gemma_pytorch gave on tiny models, kept in tests/golden; needs no checkout of it.

Equal to the last bit on a machine that computes as the one where the goldens were made. Elsewhere
LibTorch itself rounds otherwise: then numbers are compared within TOLERANCE of the largest, and
what hangs on a draw or a near-tie is not.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import Any

import gemma_libtorch
import golden_cases as cases
import pytest
import tiny
import torch

GOLDEN = tiny.ROOT / "tests" / "golden"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))
TEXT = json.loads((GOLDEN / "text.json").read_text(encoding="utf-8"))

# Relative to the largest number: 1e-5, or two units in the last place of bfloat16.
TOLERANCE = {torch.float32: 1e-5, torch.complex64: 1e-5, torch.bfloat16: 2 * 2**-8}

MODES = pytest.mark.parametrize("mode", cases.MODES)
MODELS = pytest.mark.parametrize("name", cases.CONFIGS)


def is_exact(manifest: dict[str, Any]) -> bool:
    """Whether this machine computes as the one where the goldens of `manifest` were made."""
    differing = [
        f"{key} {manifest[key]:.10}, here {value:.10}"
        for key, value in cases.machine().items()
        if value != manifest[key]
    ]
    if differing:
        warnings.warn(
            "goldens are compared within a tolerance, not bit for bit, as this machine differs from"
            " the one where they were made: " + "; ".join(differing),
            stacklevel=1,
        )
    return not differing


@pytest.fixture(scope="module")
def exact() -> bool:
    return is_exact(MANIFEST)


def load(name: str) -> dict[str, cases.Tensors]:
    """The tensors of a golden by the first word of their names."""
    groups: dict[str, cases.Tensors] = {}
    for key, value in torch.load(GOLDEN / f"{name}.pt", weights_only=True).items():
        group, _, rest = key.partition(".")
        groups.setdefault(group, {})[rest] = value
    return groups


def assert_golden(got: cases.Tensors, want: cases.Tensors, exact: bool) -> None:
    if exact:
        tiny.assert_same(got, want)
        return
    assert got.keys() == want.keys()
    for name, value in want.items():
        if value.dtype in TOLERANCE:
            atol = TOLERANCE[value.dtype] * value.abs().max().item()
            torch.testing.assert_close(
                got[name], value, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.parametrize("name", MANIFEST["files"])
def test_the_files_are_those_of_the_manifest(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    described = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert described == MANIFEST["files"][name]


def test_the_manifest_has_the_configs_that_are_run() -> None:
    configs = {**cases.CONFIGS, **cases.TEXT_CONFIGS, **cases.MULTIMODAL_CONFIGS}
    assert MANIFEST["configs"] == configs


def test_rope_tables_are_the_references(exact: bool) -> None:
    want = {f"rope.{name}": value for name, value in load("functions")["rope"].items()}
    assert_golden(cases.rope_tables(gemma_libtorch), want, exact)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rotation_norms_and_sampler_are_the_references(dtype: str, exact: bool) -> None:
    golden = load("functions")
    got = cases.function_outputs(gemma_libtorch, golden["input"], dtype)
    assert_golden(got, golden[dtype], exact)


@MODES
@MODELS
def test_modules_and_decoding_are_the_references(name: str, mode: str, exact: bool) -> None:
    golden = load(name)
    fields = MANIFEST["configs"][name]
    got = cases.model_outputs(gemma_libtorch, fields, golden["weights"], golden["input"], mode)
    assert_golden(got, golden[mode], exact)


@MODES
@pytest.mark.parametrize("name", cases.MULTIMODAL_CONFIGS)
def test_images_are_seen_as_the_reference_sees_them(name: str, mode: str, exact: bool) -> None:
    golden = load(name)
    fields = MANIFEST["configs"][name]
    got = cases.multimodal_outputs(gemma_libtorch, fields, golden["weights"], golden["input"], mode)
    assert_golden(got, golden[mode], exact)


@pytest.mark.parametrize("choice", cases.CHOICES)
@MODES
@pytest.mark.parametrize("name", cases.TEXT_CONFIGS)
def test_text_is_the_references(name: str, mode: str, choice: str, exact: bool) -> None:
    if not exact and (choice, mode) != ("greedy", "float32"):
        pytest.skip("text that hangs on a draw or a near-tie, and this machine rounds otherwise")
    weights = load(name)["weights"]
    got: Any = cases.texts(gemma_libtorch, MANIFEST["configs"][name], weights, mode, choice)
    assert got == TEXT["texts"][name][mode][choice]
