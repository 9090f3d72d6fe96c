"""summary(): shapes and counts against the modules themselves."""

from __future__ import annotations

import re
from typing import Any

import gemma_libtorch
import pytest
import tiny
import torch
from gemma_libtorch.summary import summary

LINE = re.compile(r"^(?P<branch>[│├└─ ]*)(?P<type>\w+)(?: \((?P<name>\w+)\): (?P<place>[\d-]+))? +")


def lines_of(model: Any, **options: Any) -> dict[str, tuple[str, str]]:
    """Path -> (shape, parameters) of the table's lines."""
    rows, path = {}, []
    for line in summary(model, **options).split("=\n")[2].splitlines()[:-1]:
        found = LINE.match(line)
        assert found, line
        depth = len(found["branch"]) // 5 + bool(found["branch"])
        path = [*path[: depth - 1], found["name"]] if depth else []
        shape, count = re.split(r" {2,}", line[found.end() :].strip())
        rows[".".join(path)] = (shape, count)
    return rows


@pytest.mark.parametrize("name", ["gemma1_mqa", "gemma2", "gemma3"])
def test_every_module_has_a_line_with_its_parameters(name: str) -> None:
    model = tiny.make_model(gemma_libtorch, tiny.CONFIGS[name], "float32")
    rows = lines_of(model, depth=10)
    assert set(rows) == {path for path, _ in model.named_modules()}
    for path, (_, count) in rows.items():
        own = sum(p.numel() for p in model.get_submodule(path).parameters(recurse=False))
        assert count == (f"{own:,}" if own else "--"), path


def test_shapes_are_those_of_what_the_modules_give() -> None:
    model = tiny.make_model(gemma_libtorch, tiny.CONFIGS["gemma3"], "float32")
    rows = lines_of(model, batch_size=2, length=7, depth=10)
    hidden, width = model.config.hidden_size, model.config.intermediate_size
    attention = model.model.layers[0].self_attn
    given = {
        "embedder": torch.zeros(2, 7, dtype=torch.int64),
        "model.norm": torch.zeros(2, 7, hidden),
        "model.layers.0.mlp": torch.zeros(2, 7, hidden),
        "model.layers.0.mlp.gate_proj": torch.zeros(2, 7, hidden),
        "model.layers.0.mlp.down_proj": torch.zeros(2, 7, width),
        "model.layers.0.self_attn.qkv_proj": torch.zeros(2, 7, hidden),
        "model.layers.0.self_attn.query_norm": torch.zeros(2, 7, attention.num_heads, 24),
        "model.layers.0.self_attn.key_norm": torch.zeros(2, 7, attention.num_kv_heads, 24),
    }
    for path, x in given.items():
        assert rows[path][0] == str(list(model.get_submodule(path)(x).shape)), path
    for path in ("model", "model.layers.0", "model.layers.0.self_attn"):
        assert rows[path][0] == f"[2, 7, {hidden}]"
    assert rows["sampler"][0] == rows[""][0] == f"[2, {model.config.vocab_size}]"
    assert rows["model.layers"][0] == "--"


def test_what_is_not_shown_is_counted_above_it() -> None:
    model = tiny.make_model(gemma_libtorch, tiny.CONFIGS["gemma2"], "float32")
    total = sum(p.numel() for p in model.parameters())
    assert lines_of(model, depth=0) == {"": (f"[1, {model.config.vocab_size}]", f"{total:,}")}
    rows = lines_of(model)
    layer = sum(p.numel() for p in model.model.layers[1].parameters())
    assert rows["model.layers.1"][1] == f"{layer:,}"
    assert f"Total params: {total:,}\nTrainable params: 0\n" in summary(model)
    assert f"Params size (MB): {total * 4 / 1e6:.2f}\n" in summary(model)


def test_modules_of_images_have_no_shape() -> None:
    model = tiny.make_multimodal(gemma_libtorch, "float32")
    rows = lines_of(model, depth=2)
    assert rows["text_token_embedder"][0] == f"[1, 1, {model.config.hidden_size}]"
    assert rows["mm_soft_embedding_norm"][0] == rows["siglip_vision_model"][0] == "--"


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"length": 0}, {"depth": -1}])
def test_sizes_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    model = tiny.make_model(gemma_libtorch, tiny.CONFIGS["gemma1_mqa"], "float32")
    with pytest.raises(ValueError, match=f"summary: {next(iter(wrong))} is"):
        summary(model, **wrong)
