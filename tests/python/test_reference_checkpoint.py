"""What the reference saves is loaded here, and the names are the reference's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import reference
import tiny
import torch

gemma_pytorch = reference.required()

WEIGHTS = pytest.mark.parametrize("quant", [False, True], ids=["plain", "quant"])
DTYPES = pytest.mark.parametrize("dtype", tiny.DTYPES)
CONFIGS = pytest.mark.parametrize("name", tiny.CONFIGS)


def both(name: str, dtype: str = "float32", quant: bool = False) -> tuple[Any, Any]:
    """The reference with random weights, and a model of ours with others."""
    fields = tiny.CONFIGS[name]
    want = tiny.make_model(gemma_pytorch, fields, dtype, quant)
    return want, tiny.randomize(tiny.make_model(gemma_libtorch, fields, dtype, quant), seed=99)


def save_file(model: Any, path: Path) -> Path:
    torch.save({"model_state_dict": model.state_dict()}, path)
    return path


def save_shards(model: Any, directory: Path) -> Path:
    state = model.state_dict()
    names = [f"pytorch_model-0000{i}-of-00003.bin" for i in (1, 2, 3)]
    weight_map = {key: names[i % 3] for i, key in enumerate(state)}
    for name in names:
        torch.save({key: state[key] for key in state if weight_map[key] == name}, directory / name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return directory


def assert_same_model(got: Any, want: Any) -> None:
    """The same tensors under the same names, and the same tokens and logits from them."""
    tiny.assert_same(dict(got.state_dict()), dict(want.state_dict()))
    prompt = tiny.random_ids((2, 6), tiny.VOCAB_SIZE)
    tiny.assert_same(
        tiny.decode(got, prompt, 2, tiny.greedy(2)), tiny.decode(want, prompt, 2, tiny.greedy(2))
    )


@DTYPES
@WEIGHTS
@CONFIGS
def test_names_order_shapes_and_dtypes_of_the_state_are_the_references(
    dtype: str, quant: bool, name: str
) -> None:
    want, got = (
        [(key, value.dtype, tuple(value.shape)) for key, value in model.state_dict().items()]
        for model in both(name, dtype, quant)
    )
    assert got == want


@WEIGHTS
@CONFIGS
def test_names_and_order_of_parameters_buffers_and_modules_are_the_references(
    quant: bool, name: str
) -> None:
    want, got = both(name, quant=quant)
    for listing in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [key for key, _ in getattr(got, listing)()] == [
            key for key, _ in getattr(want, listing)()
        ]


@WEIGHTS
@CONFIGS
def test_rope_tables_of_a_model_are_the_references(quant: bool, name: str) -> None:
    want, got = both(name, quant=quant)
    tiny.assert_same(dict(got.named_buffers()), dict(want.named_buffers()))


@DTYPES
@WEIGHTS
@pytest.mark.parametrize("name", ["gemma1_mha", "gemma2", "gemma3"])
@pytest.mark.parametrize("save", [save_file, save_shards], ids=["file", "shards"])
def test_a_saved_reference_is_loaded(
    tmp_path: Path, dtype: str, quant: bool, name: str, save: Any
) -> None:
    want, got = both(name, dtype, quant)
    path = save(want, tmp_path if save is save_shards else tmp_path / "model.ckpt")
    report = got.load_weights(str(path))
    assert report.loaded == [key for key, _ in want.named_parameters()]
    assert report.missing == report.unexpected == []
    assert_same_model(got, want)


@pytest.mark.parametrize("file_dtype", tiny.DTYPES)
@DTYPES
def test_a_file_of_another_dtype_is_converted_as_the_reference_does(
    tmp_path: Path, file_dtype: str, dtype: str
) -> None:
    source, _ = both("gemma2", file_dtype)
    path = save_file(source, tmp_path / "model.ckpt")
    want, got = both("gemma2", dtype)
    want.load_weights(str(path))
    got.load_weights(str(path))
    assert_same_model(got, want)


@WEIGHTS
@pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
def test_a_state_dict_of_the_reference_is_loaded(quant: bool, assign: bool) -> None:
    want, got = both("gemma3", "bfloat16", quant)
    keys = got.load_state_dict(want.state_dict(), assign=assign)
    assert not keys.missing_keys and not keys.unexpected_keys
    assert_same_model(got, want)


@WEIGHTS
def test_the_reference_loads_a_state_dict_of_ours(quant: bool) -> None:
    want, got = both("gemma3", "bfloat16", quant)
    want.load_state_dict(got.state_dict())
    assert_same_model(got, want)


def test_the_reference_loads_a_file_with_a_state_dict_of_ours(tmp_path: Path) -> None:
    want, got = both("gemma2", "bfloat16")
    want.load_weights(str(save_file(got, tmp_path / "model.ckpt")))
    assert_same_model(got, want)
