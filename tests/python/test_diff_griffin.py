"""gemma_libtorch.diff beside recurrentgemma: equal to the last bit, but for faults that are planted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import recurrentgemma_reference
import safetensors.torch as safetensors
import tiny
import tiny_griffin
import torch
from gemma_libtorch.diff import compare, griffin
from gemma_libtorch.diff.__main__ import main
from test_griffin_files import HF_CONFIG

google = recurrentgemma_reference.required()

ours_package = gemma_libtorch.recurrentgemma
CHECKOUT = recurrentgemma_reference.checkout()


def pair_of(name: str, dtype: str = "float32") -> tuple[Any, Any]:
    ours, theirs = (
        tiny_griffin.make(package, tiny_griffin.CONFIGS[name], dtype)
        for package in (ours_package, google)
    )
    return ours, theirs


def ids_of(model: Any) -> torch.Tensor:
    return tiny.random_ids((2, 12), model.config.vocab_size)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", tiny_griffin.CONFIGS)
def test_every_value_is_equal(name: str, dtype: str) -> None:
    ours, theirs = pair_of(name, dtype)
    report = compare(ours, theirs, ids_of(ours))
    assert report.status == 0, report.as_text()
    assert all(row.fed and row.end_to_end for row in report.rows)
    assert report.theirs_only == []
    modules = {path for path, _ in ours.named_modules()} - {"", "blocks"}
    assert modules - {row.name for row in report.rows} == set()


@pytest.mark.parametrize("name", tiny_griffin.CONFIGS)
def test_rows_stand_in_the_order_of_execution(name: str) -> None:
    ours, theirs = pair_of(name)
    ended: list[str] = []
    for path, module in theirs.named_modules():
        module.register_forward_hook(lambda *_, path=path: ended.append(path))
    rows = [row.name for row in compare(ours, theirs, ids_of(ours)).rows]
    assert [path for path in ended if path] == [path for path in rows if path in ended]


def wrong_weight(path: str) -> Callable[[Any], None]:
    def change(theirs: Any) -> None:
        theirs.get_parameter(path).view(-1)[:4] += 0.05

    return change


def wrong_activation(theirs: Any) -> None:
    block = theirs.blocks[2].mlp_block
    block.forward = lambda x: block.ffw_down(torch.relu(block.ffw_up(x)[0]) * block.ffw_up(x)[1])


def wrong_scale(theirs: Any) -> None:
    theirs.embedder.scale_by_sqrt_dim = False


def wrong_window(theirs: Any) -> None:
    theirs.blocks[2].attention_block.window_size = 1


FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "an embedding scale": (wrong_scale, "embedder"),
    "a norm": (wrong_weight("blocks.1.temporal_pre_norm.scale"), "blocks.1.temporal_pre_norm"),
    "a linear": (
        wrong_weight("blocks.1.recurrent_block.linear_x.weight"),
        "blocks.1.recurrent_block.linear_x",
    ),
    "a convolution": (
        wrong_weight("blocks.1.recurrent_block.conv_1d.w"),
        "blocks.1.recurrent_block.conv_1d",
    ),
    "a gate": (
        wrong_weight("blocks.1.recurrent_block.rg_lru.a_gate.w"),
        "blocks.1.recurrent_block.rg_lru.a_gate",
    ),
    "a recurrence": (
        wrong_weight("blocks.1.recurrent_block.rg_lru.a_param"),
        "blocks.1.recurrent_block.rg_lru",
    ),
    "a projection": (
        wrong_weight("blocks.2.attention_block.proj_k.weight"),
        "blocks.2.attention_block.proj_k",
    ),
    "a window": (wrong_window, "blocks.2.attention_block"),
    "an activation": (wrong_activation, "blocks.2.mlp_block"),
    "an einsum": (wrong_weight("blocks.2.mlp_block.ffw_up.w"), "blocks.2.mlp_block.ffw_up"),
    "the final norm": (wrong_weight("final_norm.scale"), "final_norm"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_named(fault: str) -> None:
    plant, where = FAULTS[fault]
    ours, theirs = pair_of("griffin")
    plant(theirs)
    report = compare(ours, theirs, ids_of(ours))
    first = report.first("fed")
    assert first and first.name == where
    assert report.status == 1
    assert report.rows[-1].differs("end_to_end")
    block = where.split(".")[1] if where.startswith("blocks") else None
    others = [row.layer for row in report.rows if row.differs("fed") and str(row.layer) != block]
    assert others in ([], [None])


def test_a_checkpoint_is_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, _ = pair_of("griffin")
    state = ours.to_transformers_state_dict()
    del state["lm_head.weight"]
    tensors = {name: value.contiguous() for name, value in state.items()}
    safetensors.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(HF_CONFIG))
    (tmp_path / "tokenizer.model").write_bytes(tiny.TOKENIZER.read_bytes())
    words = ["--reference", f"griffin:{CHECKOUT}", "--ckpt", str(tmp_path)]
    status = main(words)
    out, err = capsys.readouterr()
    assert (status, err) == (0, ""), out
    assert out.splitlines()[-1].endswith("values are equal to the last bit")
    assert "weights by the loader of gemma_libtorch" in out
    assert main([*words, "--numerics", "fast"]) == 2
    assert main([*words, "--variant", "2b"]) == 2
    assert [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "--numerics fast",
        "--variant 2b",
    ]


def test_a_file_of_google_is_read_without_our_loader(tmp_path: Path) -> None:
    ours, _ = pair_of("griffin")
    path = tmp_path / "2b.pt"
    torch.save(dict(ours.state_dict()), path)
    theirs, loader = griffin.load(griffin.package_of(CHECKOUT), ours, path)
    assert loader.startswith("torch.load")
    assert compare(ours, theirs, ids_of(ours)).status == 0
