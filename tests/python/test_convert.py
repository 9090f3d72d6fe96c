"""gemma convert: what it writes is read by torch.load, by gemma_libtorch and by the reference."""

from __future__ import annotations

import importlib
import json
import os
import pty
import struct
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import reference
import tiny
import torch

# Of the build folder, or of the installed package.
_PACKAGE = Path(gemma_libtorch.__file__).parent
_EXTENSION = Path(gemma_libtorch._C.__file__).resolve()
PROGRAM = next(
    (
        path
        for path in (_EXTENSION.parents[2] / "bin" / "gemma", _PACKAGE / "bin" / "gemma")
        if path.is_file()
    ),
    None,
)
if PROGRAM is None:
    pytest.skip("the gemma program was not built", allow_module_level=True)

GEMMA_3 = tiny.CONFIGS["gemma3"]
DTYPES = pytest.mark.parametrize("dtype", tiny.DTYPES)
QUANTISED = ("embedder.weight", "_proj.weight")
State = dict[str, torch.Tensor]


def convert(*arguments: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "convert", *map(str, arguments)], capture_output=True, text=True, check=check
    )


def save(state: State, path: Path) -> Path:
    torch.save({"model_state_dict": state}, path)
    return path


def load(path: Path) -> State:
    contents = torch.load(path, weights_only=True, mmap=True)
    assert list(contents) == ["model_state_dict"]
    assert type(contents["model_state_dict"]) is OrderedDict
    return contents["model_state_dict"]


def weights(dtype: str = "bfloat16") -> State:
    model = tiny.make_model(gemma_libtorch, GEMMA_3, dtype)
    return OrderedDict((key, value.detach()) for key, value in model.named_parameters())


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """xla_model_parallel.py's recipe, in the operations that it comes down to."""
    x = weight.float()
    scale = torch.maximum(-x.amin(1).clamp(max=0), x.amax(1).clamp(min=0)) / 127.5
    scale = torch.maximum(scale, torch.tensor(torch.finfo(torch.float32).eps))
    ints = torch.clamp(torch.round(x * (1.0 / scale).view(-1, 1)), -128, 127).to(torch.int8)
    return ints, scale.to(weight.dtype)


def quantized(state: State, quantize: Callable = quantize) -> State:
    result = OrderedDict()
    for name, value in state.items():
        result[name] = value
        if name.endswith(QUANTISED):
            result[name], result[f"{name}_scaler"] = quantize(value)
    return result


def assert_same_state(got: State, want: State) -> None:
    assert list(got) == list(want)
    tiny.assert_same(dict(got), dict(want))


@pytest.fixture
def in_path(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return save(weights(), tmp_path / "in" / "model.ckpt")


@pytest.fixture
def out_path(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.ckpt"


# --- what is written ------------------------------------------------------------------------------


def test_torch_load_gives_equal_tensors_of_every_kind(tmp_path: Path, out_path: Path) -> None:
    base = torch.randn(6, 8)
    state = OrderedDict(weights())
    state |= {
        f"dtype.{dtype}": (base * 50).to(dtype)
        for dtype in (
            *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
            *(torch.complex128, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64),
            torch.bool,
        )
    }
    state |= {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(3, 0, 2),
        "transposed": base.t(),
        "column": base[:, 3],
        "expanded": base[:, :1].expand(6, 1000),
        "ä": torch.ones(2),
    }
    convert(save(state, tmp_path / "all.ckpt"), out_path)
    assert_same_state(load(out_path), state)


def test_the_archive_is_sound_and_its_records_are_aligned(in_path: Path, out_path: Path) -> None:
    convert(in_path, out_path)
    contents = out_path.read_bytes()
    with zipfile.ZipFile(out_path) as archive:
        assert archive.testzip() is None  # Compares every checksum.
        for entry in archive.infolist():
            at = entry.header_offset
            name_size, extra_size = struct.unpack_from("<HH", contents, at + 26)
            assert (at + 30 + name_size + extra_size) % 64 == 0


def test_more_tensors_than_an_old_zip_archive_holds(tmp_path: Path, out_path: Path) -> None:
    one = torch.ones(2, 2)  # A single record in the input, which is written faster.
    state = OrderedDict.fromkeys(["embedder.weight", *map(str, range(70_000))], one)
    convert(save(state, tmp_path / "many.ckpt"), out_path)
    got = load(out_path)
    assert list(got) == list(state)
    tiny.assert_same(got["69999"], one)


def test_the_same_input_gives_the_same_bytes(in_path: Path, out_path: Path) -> None:
    other = out_path.with_name("other.ckpt")
    convert(in_path, out_path, "--quant", "int8")
    convert(in_path, other, "--quant", "int8")
    assert out_path.read_bytes() == other.read_bytes()


@DTYPES
def test_a_dtype_is_that_of_all_floats(in_path: Path, out_path: Path, dtype: str) -> None:
    convert(in_path, out_path, "--dtype", dtype)
    want = {key: value.to(tiny.DTYPES[dtype]) for key, value in load(in_path).items()}
    assert_same_state(load(out_path), OrderedDict(want))


def test_shards_become_one_file(tmp_path: Path, out_path: Path) -> None:
    state = weights()
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    weight_map = {key: names[i % 2] for i, key in enumerate(state)}
    for name in names:
        torch.save({key: state[key] for key in state if weight_map[key] == name}, tmp_path / name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    convert(tmp_path, out_path)
    got = load(out_path)
    assert sorted(got) == sorted(state)
    assert_same_state(OrderedDict((key, got[key]) for key in state), state)


def test_rope_tables_are_left_out(tmp_path: Path, out_path: Path) -> None:
    model = tiny.make_model(gemma_libtorch, GEMMA_3, "bfloat16")
    state = OrderedDict(model.state_dict())
    assert "local_freqs_cis" in state
    convert(save(state, tmp_path / "with_tables.ckpt"), out_path)
    assert_same_state(load(out_path), weights())


# --- quantisation ---------------------------------------------------------------------------------


@DTYPES
def test_int8_is_the_references_recipe(tmp_path: Path, out_path: Path, dtype: str) -> None:
    state = weights(dtype)
    state["embedder.weight"] = (torch.randn(701, 513) * 0.03).to(tiny.DTYPES[dtype])
    state["embedder.weight"][7] = 0
    convert(save(state, tmp_path / "plain.ckpt"), out_path, "--quant", "int8")
    assert_same_state(load(out_path), quantized(state))


def test_a_quantised_file_loads_with_quant(in_path: Path, out_path: Path) -> None:
    convert(in_path, out_path, "--quant", "int8")
    model = tiny.make_model(gemma_libtorch, GEMMA_3, "bfloat16", quant=True)
    report = model.load_weights(str(out_path))
    assert report.missing == report.unexpected == []
    want = tiny.make_model(gemma_libtorch, GEMMA_3, "bfloat16", quant=True)
    want.load_state_dict(quantized(load(in_path)))
    tiny.assert_same(tiny.logits_of(model), tiny.logits_of(want))


@pytest.fixture
def gemma_pytorch() -> Any:
    if reference.checkout() is None:
        pytest.skip(f"compares with gemma_pytorch: set {reference.VARIABLE} to a checkout of it")
    return reference.load(reference.checkout())


@DTYPES
def test_int8_is_what_the_reference_makes(
    monkeypatch: pytest.MonkeyPatch, gemma_pytorch: Any, tmp_path: Path, out_path: Path, dtype: str
) -> None:
    monkeypatch.setenv("USE_CUDA", "1")  # Else it wants torch_xla, which quantising does not need.
    xla = importlib.import_module(f"{gemma_pytorch.__name__}.xla_model_parallel")

    def quantize_as_a_layer_does(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ints, scale, _ = xla.quantize_tensor(weight.float(), xla.TensorQConfig(axis=0))
        return ints, scale.to(weight.dtype)

    state = weights(dtype)
    state["embedder.weight"] = (torch.randn(701, 513) * 0.03).to(tiny.DTYPES[dtype])
    state["embedder.weight"][7] = 0
    convert(save(state, tmp_path / "plain.ckpt"), out_path, "--quant", "int8")
    assert_same_state(load(out_path), quantized(state, quantize_as_a_layer_does))


@pytest.mark.parametrize("quant", [False, True], ids=["plain", "quant"])
@pytest.mark.parametrize("name", ["gemma1_mha", "gemma2", "gemma3"])
def test_the_reference_loads_it_and_gives_the_same_logits(
    gemma_pytorch: Any, tmp_path: Path, out_path: Path, name: str, quant: bool
) -> None:
    fields = tiny.CONFIGS[name]
    source = tiny.make_model(gemma_pytorch, fields, "bfloat16")
    plain = save(source.state_dict(), tmp_path / "plain.ckpt")
    convert(plain, out_path, *(["--quant", "int8"] if quant else []))
    got = tiny.make_model(gemma_libtorch, fields, "bfloat16", quant)
    want = tiny.make_model(gemma_pytorch, fields, "bfloat16", quant)
    for model in (got, want):
        tiny.randomize(model, seed=99)  # So that what is not loaded shows.
        model.load_weights(str(out_path))
    assert_same_state(OrderedDict(want.named_parameters()), load(out_path))
    tiny.assert_same(tiny.logits_of(got), tiny.logits_of(want))


# --- the program ----------------------------------------------------------------------------------


def test_it_says_what_it_did_on_standard_error(in_path: Path, out_path: Path) -> None:
    result = convert(in_path, out_path, "--quant", "int8")
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"read {in_path}: no known variant, {len(weights())} tensors, ")
    assert lines[1].startswith(f"wrote {out_path}: {len(quantized(weights()))} tensors, 36 of them")
    assert len(lines) == 2


@pytest.mark.parametrize("fails", [False, True], ids=["success", "error"])
def test_a_terminal_sees_a_bar_that_is_erased(in_path: Path, out_path: Path, fails: bool) -> None:
    if fails:
        state = weights()
        state["model.layers.6.mlp.down_proj.weight"][0, 0] = torch.nan
        save(state, in_path)
    ours, its = pty.openpty()
    command = [PROGRAM, "convert", in_path, out_path, "--quant", "int8"]
    assert subprocess.run(command, stderr=its, check=False).returncode == int(fails)
    shown = os.read(ours, 100_000).decode()
    os.close(its)
    os.close(ours)
    assert "\rConverting [###############..." in shown
    after_the_bar = shown[shown.rindex("Converting") :].split("\r\x1b[K")[1]
    assert after_the_bar.startswith(f"gemma: {in_path}: " if fails else "wrote ")


def test_the_tokenizer_goes_along_but_replaces_none(in_path: Path, out_path: Path) -> None:
    tokenizer = out_path.with_name("tokenizer.model")
    in_path.with_name("tokenizer.model").write_bytes(b"pieces")
    result = convert(in_path, out_path)
    assert "brought tokenizer.model along\n" in result.stderr
    assert tokenizer.read_bytes() == b"pieces"
    tokenizer.write_bytes(b"another")
    convert(in_path, out_path, "--force")
    assert tokenizer.read_bytes() == b"another"


def test_a_file_is_replaced_only_by_force(in_path: Path, out_path: Path) -> None:
    out_path.write_text("precious")
    result = convert(in_path, out_path, check=False)
    assert result.returncode == 1
    assert f"{out_path}: is there already" in result.stderr and "--force" in result.stderr
    assert out_path.read_text() == "precious"
    convert(in_path, out_path, "--force")
    assert_same_state(load(out_path), weights())
    assert os.listdir(out_path.parent) == ["model.ckpt"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("{in} {in} --force", "{in}: is the input; give the output another name"),
        ("{in} {link} --force", "{link}: is the input"),
        ("{in} {out} --quant int3", "quant 'int3' is unknown; valid: int8"),
        ("{in} {out} --dtype int8", "dtype 'int8' is unknown; valid dtypes: float16"),
        ("{in} {out}.gguf", "{out}.gguf: end the output's name in .ckpt"),
        ("{in} {tmp}/nowhere/x.ckpt", "there is no folder {tmp}/nowhere; create it first"),
        ("{tmp}/nothing.ckpt {out}", "{tmp}/nothing.ckpt: there is no such file"),
        ("{quantised} {out} --quant int8", "tensor 'embedder.weight' is quantised already"),
        ("{other} {out}", "has no tensor 'embedder.weight'"),
        ("{huge} {out}", "{out}: takes 281474977 MB, but its disk has room for "),
        ("{nan} {out} --quant int8", "holds NaN or infinity"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(
    in_path: Path, out_path: Path, tmp_path: Path, arguments: str, message: str
) -> None:
    (tmp_path / "link.ckpt").symlink_to(in_path)
    state = weights()
    places = {
        "in": in_path,
        "out": out_path,
        "tmp": tmp_path,
        "link": tmp_path / "link.ckpt",
        "quantised": save(quantized(state), tmp_path / "quantised.ckpt"),
        "other": save({"transformer.wte.weight": torch.ones(2, 2)}, tmp_path / "other.ckpt"),
        "huge": save(
            {"embedder.weight": torch.ones(1, 1).expand(1 << 23, 1 << 23)}, tmp_path / "huge.ckpt"
        ),
        "nan": save({**state, "embedder.weight": torch.full((2, 2), torch.nan)}, tmp_path / "nan"),
    }
    before = in_path.read_bytes()
    result = convert(*(part.format(**places) for part in arguments.split()), check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("gemma: ")
    assert message.format(**places) in result.stderr.splitlines()[-1]
    assert os.listdir(out_path.parent) == []
    assert in_path.read_bytes() == before
