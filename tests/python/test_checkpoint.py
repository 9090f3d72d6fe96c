"""load_weights: what it takes, reports, raises, maps, and leaves alone."""

from __future__ import annotations

import collections
import hashlib
import json
import re
import warnings
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
        ("integers", "'model.norm.weight' is int64"),
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


def with_attribute(tensor: torch.Tensor) -> torch.Tensor:
    tensor.note = "x"
    return tensor


def parameter_with_attribute() -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.note = "x"
    return parameter


def beside() -> dict[str, Any]:
    """What torch.load(weights_only=True) reads; some of it warns that it is in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "dtype": torch.bfloat16,
            "dtype without a storage": torch.float8_e4m3fn,
            "dtype of bits": torch.uint3,
            "Size": torch.Size([1, 2]),
            "device": torch.device("cuda", 1),
            "layout": torch.strided,
            "quantisation scheme": torch.per_tensor_affine,
            "set": {1, 2},
            "empty set": set(),
            "complex": 1 + 2j,
            "bytes": bytes(range(256)),
            "bytearray": bytearray(b"a"),
            "Counter": collections.Counter("aab"),
            "OrderedDict": collections.OrderedDict(a=1),
            "large int": 1 << 80,
            "larger int": -(1 << 2000),
            "surrogate": "\ud800",
            "long key": {"k" * 5000: 1},
            "keys": {(1, 2): 3, 1.5: 2, None: 1, True: 0, b"a": 1, torch.float16: 2},
            "nested": [({"a": [(1, [2, {3}])]},)],
            "float8": torch.zeros(4).to(torch.float8_e4m3fn),
            "float8_e8m0fnu": torch.zeros(4, dtype=torch.uint8).view(torch.float8_e8m0fnu),
            "float4": torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
            "uint16": torch.zeros(2, dtype=torch.uint16),
            "uint64": torch.zeros(2, dtype=torch.uint64),
            "complex128": torch.zeros(2, dtype=torch.complex128),
            "conjugated": torch.zeros(2, dtype=torch.complex64).conj(),
            "negated": torch.zeros(2, dtype=torch.complex64).conj().imag,
            "sparse": torch.eye(3).to_sparse(),
            "sparse rows": torch.eye(3).to_sparse_csr(),
            "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
            "quantised by channel": torch.quantize_per_channel(
                torch.ones(3, 2), torch.ones(3), torch.zeros(3), 0, torch.quint8
            ),
            "meta": torch.empty(3, device="meta"),
            "nested tensor": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "nine dimensions": torch.ones((1,) * 9),
            "parameter": torch.nn.Parameter(torch.ones(2)),
            "parameter with an attribute": parameter_with_attribute(),
            "tensor with an attribute": with_attribute(torch.ones(2)),
            "storage": torch.ones(2).untyped_storage(),
            "typed storage": torch.ones(2).storage(),
            "expanded": torch.ones(1).expand(5),
        }


BESIDE = beside()
# What torch.load(weights_only=True) refuses, although nothing would run.
MORE_BESIDE = {
    "frozenset": frozenset({1, 2}),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "empty bytes": b"",
}


@pytest.mark.parametrize("kind", [*BESIDE, *MORE_BESIDE])
@pytest.mark.filterwarnings("ignore")
def test_what_stands_beside_the_weights_does_not_matter(
    model: GemmaForCausalLM, tmp_path: Path, kind: str
) -> None:
    value = {**BESIDE, **MORE_BESIDE}[kind]
    state = model.state_dict()
    path = tmp_path / "model.ckpt"
    for protocol in (2, 3, 4, 5):
        torch.save(
            {"a": value, "model_state_dict": state, "config": {"x": value}, "list": [value]},
            path,
            pickle_protocol=protocol,
        )
        if protocol == 2 and kind in BESIDE:
            torch.load(path, weights_only=True)
        report = model.load_weights(path)
        assert (report.missing, report.unexpected) == ([], [])


@pytest.mark.parametrize("kind", ["dtype", "Size", "set", "bytes", "Counter", "keys", "nested"])
def test_what_is_no_tensor_may_stand_among_the_weights(
    model: GemmaForCausalLM, tmp_path: Path, kind: str
) -> None:
    report = model.load_weights(
        save(tmp_path / "model.ckpt", {"a": BESIDE[kind], **model.state_dict()})
    )
    assert (report.missing, report.unexpected) == ([], [])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16])
def test_a_weight_of_a_dtype_that_weights_do_not_have_is_named(
    model: GemmaForCausalLM, tmp_path: Path, dtype: torch.dtype
) -> None:
    state = dict(model.state_dict())
    state["model.norm.weight"] = torch.zeros(60, dtype=torch.uint8 if dtype.itemsize == 1 else dtype)
    state["model.norm.weight"] = state["model.norm.weight"].view(dtype)
    name = str(dtype).removeprefix("torch.")
    message = rf"'model.norm.weight' is {name}, .*weights are float32, bfloat16, float16 or float64"
    with pytest.raises(RuntimeError, match=message):
        model.load_weights(save(tmp_path / "model.ckpt", state))


def test_the_checkpoint_of_lightning_loads(model: GemmaForCausalLM, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, tmp_path / "model.ckpt")
    assert model.load_weights(tmp_path / "model.ckpt").missing == []


def test_a_folder_without_an_index_is_a_runtime_error_that_says_what_is_missing(
    model: GemmaForCausalLM, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="a directory without model.safetensors"):
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
    with pytest.warns(UserWarning, match=r"model\.ckpt: left out a tensor .*'lm_head\.weight'"):
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
def test_weights_of_the_files_dtype_are_not_copied_with_mmap(tmp_path: Path, dtype: str, quant: bool) -> None:
    model = tiny.make_model(gemma_libtorch, GEMMA_3, dtype, quant)
    path = save(tmp_path / "model.ckpt", model.state_dict())
    model.load_weights(path)
    for name, parameter in model.named_parameters():
        assert mapping_of(parameter.data_ptr()) != str(path), name
    model.load_weights(path, mmap=True)
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


def test_tensors_that_share_memory_in_the_file_share_it_when_mapped(
    model: GemmaForCausalLM, tmp_path: Path
) -> None:
    state = dict(model.state_dict())
    one, other = (f"model.layers.{i}.input_layernorm.weight" for i in (0, 1))
    state[other] = state[one]
    model.load_weights(save(tmp_path / "model.ckpt", state), mmap=True)
    model.get_parameter(one).fill_(0.25)
    assert model.get_parameter(other).eq(0.25).all()


def test_a_model_outlives_its_file(model: GemmaForCausalLM, tmp_path: Path) -> None:
    path = save(tmp_path / "model.ckpt", model.state_dict())
    before = tiny.logits_of(model)
    model.load_weights(path)
    path.unlink()
    tiny.assert_same(tiny.logits_of(model), before)
