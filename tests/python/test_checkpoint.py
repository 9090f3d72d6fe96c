"""load_weights: what it takes, reports, raises, maps, and leaves alone."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import tiny
import torch
from gemma_libtorch.model import GemmaForCausalLM, LoadProgress

GEMMA_3 = tiny.CONFIGS["gemma3"]


def save(path: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save({"model_state_dict": state}, path)
    return path


def zeros_like(model: Any) -> dict[str, torch.Tensor]:
    """A state that would show at once if any of it were loaded."""
    return {name: torch.zeros_like(value) for name, value in model.named_parameters()}


def bad_checkpoint(kind: str, model: Any, path: Path) -> Path:
    state = zeros_like(model)
    if kind == "shape":
        state["model.norm.weight"] = torch.zeros(59)
    elif kind == "missing":
        del state["model.layers.2.mlp.up_proj.weight"]
    elif kind == "int8":
        state["embedder.weight"] = state["embedder.weight"].to(torch.int8)
    elif kind == "integers":
        state["model.norm.weight"] = torch.zeros(60, dtype=torch.int64)
    save(path, state)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "not a checkpoint":
        path.write_text("hello")
    return path


@pytest.mark.parametrize(
    "kind, message",
    [
        ("shape", r"'model.norm.weight' is \[59\], but the model's is \[60\]"),
        ("missing", "no tensor 'model.layers.2.mlp.up_proj.weight'"),
        ("int8", "'embedder.weight' is int8, but the model's is float32; set quant"),
        ("integers", "'model.norm.weight' is Long"),
        ("truncated", ""),
        ("not a checkpoint", ""),
    ],
)
def test_a_bad_checkpoint_is_a_runtime_error_and_changes_nothing(
    model: GemmaForCausalLM, tmp_path: Path, kind: str, message: str
) -> None:
    before = tiny.logits_of(model)
    path = bad_checkpoint(kind, model, tmp_path / "model.ckpt")
    with pytest.raises(RuntimeError, match=f"^{re.escape(str(path))}: .*{message}") as error:
        model.load_weights(path)
    assert "\n" not in str(error.value)
    tiny.assert_same(tiny.logits_of(model), before)


@pytest.mark.parametrize("name", ["nowhere.ckpt", "shards"])
def test_a_missing_checkpoint_is_a_file_not_found_error(
    model: GemmaForCausalLM, tmp_path: Path, name: str
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    index = {"weight_map": {"embedder.weight": "nowhere.bin"}}
    (shards / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        model.load_weights(tmp_path / name)


def test_a_folder_without_an_index_is_a_runtime_error_that_says_what_is_missing(
    model: GemmaForCausalLM, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="a directory without any of model.safetensors"):
        model.load_weights(tmp_path)


def test_a_path_may_be_a_string_or_a_path(model: GemmaForCausalLM, tmp_path: Path) -> None:
    path = save(tmp_path / "model.ckpt", model.state_dict())
    for given in (path, str(path)):
        assert model.load_weights(given).missing == []
    with pytest.raises(TypeError):
        model.load_weights(3)


def test_names_that_the_model_does_not_have_are_reported(
    model: GemmaForCausalLM, tmp_path: Path
) -> None:
    state = {**model.state_dict(), "lm_head.weight": torch.zeros(3)}
    report = model.load_weights(save(tmp_path / "model.ckpt", state))
    assert report.unexpected == ["lm_head.weight"]
    assert report.loaded == [name for name, _ in model.named_parameters()]


def test_progress_is_told_after_each_tensor(model: GemmaForCausalLM, tmp_path: Path) -> None:
    names = [name for name, _ in model.named_parameters()]
    sizes = [parameter.nbytes for parameter in model.parameters()]
    path = save(tmp_path / "model.ckpt", model.state_dict())
    seen: list[tuple[Any, ...]] = []
    model.load_weights(
        path,
        progress=lambda p: seen.append(
            (p.tensor, p.tensors_done, p.tensors_total, p.bytes_done, p.bytes_total)
        ),
    )
    assert seen == [
        (name, i + 1, len(names), sum(sizes[: i + 1]), sum(sizes)) for i, name in enumerate(names)
    ]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_what_progress_raises_ends_the_loading_and_changes_nothing(
    model: GemmaForCausalLM, tmp_path: Path, error: type[BaseException]
) -> None:
    before = tiny.logits_of(model)
    path = save(tmp_path / "model.ckpt", zeros_like(model))

    def fail_halfway(progress: LoadProgress) -> None:
        if progress.tensors_done == 5:
            raise error("enough")

    with pytest.raises(error, match="enough"):
        model.load_weights(path, progress=fail_halfway)
    tiny.assert_same(tiny.logits_of(model), before)


def mapping_of(address: int) -> str:
    """The file that is mapped at an address of this process; empty when none is."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *rest = line.split(maxsplit=5)
        begin, end = (int(part, 16) for part in span.split("-"))
        if begin <= address < end:
            return rest[-1] if len(rest) == 5 else ""
    return ""


@pytest.mark.parametrize("dtype", tiny.DTYPES)
@pytest.mark.parametrize("quant", [False, True], ids=["plain", "quant"])
def test_weights_of_the_files_dtype_are_not_copied(tmp_path: Path, dtype: str, quant: bool) -> None:
    model = tiny.make_model(gemma_libtorch, GEMMA_3, dtype, quant)
    path = save(tmp_path / "model.ckpt", model.state_dict())
    model.load_weights(path)
    for name, parameter in model.named_parameters():
        assert mapping_of(parameter.data_ptr()) == str(path), name


def test_weights_of_another_dtype_are_not_kept_in_the_file(tmp_path: Path) -> None:
    model = tiny.make_model(gemma_libtorch, GEMMA_3, "bfloat16")
    path = save(
        tmp_path / "model.ckpt", tiny.make_model(gemma_libtorch, GEMMA_3, "float32").state_dict()
    )
    model.load_weights(path)
    assert {mapping_of(parameter.data_ptr()) == str(path) for parameter in model.parameters()} == {
        False
    }


def test_writing_to_a_loaded_weight_leaves_the_file_as_it_was(
    model: GemmaForCausalLM, tmp_path: Path
) -> None:
    path = save(tmp_path / "model.ckpt", model.state_dict())
    digest = hashlib.sha256(path.read_bytes()).digest()
    model.load_weights(path)
    before = tiny.logits_of(model)
    for parameter in model.parameters():
        parameter.mul_(2)
    assert not torch.equal(tiny.logits_of(model), before)
    assert hashlib.sha256(path.read_bytes()).digest() == digest
    model.load_weights(path)
    tiny.assert_same(tiny.logits_of(model), before)


def test_tensors_that_share_memory_in_the_file_share_it_when_loaded(
    model: GemmaForCausalLM, tmp_path: Path
) -> None:
    state = dict(model.state_dict())
    one, other = (f"model.layers.{i}.input_layernorm.weight" for i in (0, 1))
    state[other] = state[one]
    model.load_weights(save(tmp_path / "model.ckpt", state))
    model.get_parameter(one).fill_(0.25)
    assert model.get_parameter(other).eq(0.25).all()


def test_a_model_outlives_its_file(model: GemmaForCausalLM, tmp_path: Path) -> None:
    path = save(tmp_path / "model.ckpt", model.state_dict())
    before = tiny.logits_of(model)
    model.load_weights(path)
    path.unlink()
    tiny.assert_same(tiny.logits_of(model), before)
