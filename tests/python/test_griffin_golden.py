"""What recurrentgemma.torch gave on a tiny model, kept in tests/golden; needs no checkout of it.

Where this machine does not compute as the one of the golden, within a tolerance: see test_golden.
"""

from __future__ import annotations

import hashlib
import json

import griffin_golden_cases as cases
import pytest
import test_golden
from gemma_libtorch import recurrentgemma

MANIFEST = json.loads((test_golden.GOLDEN / "griffin.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def exact() -> bool:
    return test_golden.is_exact(MANIFEST)


def test_the_file_is_that_of_the_manifest() -> None:
    data = (test_golden.GOLDEN / "griffin.pt").read_bytes()
    assert MANIFEST["sha256"] == hashlib.sha256(data).hexdigest()
    assert MANIFEST["config"] == cases.CONFIG


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_logits_and_caches_are_the_references(dtype: str, exact: bool) -> None:
    golden = test_golden.load("griffin")
    got = cases.outputs(recurrentgemma, golden["weights"], golden["input"], dtype)
    test_golden.assert_golden(got, golden[dtype], exact)
