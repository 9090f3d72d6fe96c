"""Taps in PaliGemma's vision model and projector see and do what hooks on transformers' do."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import tiny_paligemma
import torch
from gemma_libtorch import paligemma
from module_hooks import Edit, at_ours, at_theirs, of_convolution, scaled
from test_transformers import transformers

MODULES = {
    "patch_embedding": "embeddings.patch_embedding",
    "encoder_blocks.1": "encoder.layers.1",
    "encoder_blocks.1.layer_norm1": "encoder.layers.1.layer_norm1",
    "encoder_blocks.1.self_attn": "encoder.layers.1.self_attn",
    "encoder_blocks.1.self_attn.q_proj": "encoder.layers.1.self_attn.q_proj",
    "encoder_blocks.1.self_attn.o_proj": "encoder.layers.1.self_attn.out_proj",
    "encoder_blocks.1.layer_norm2": "encoder.layers.1.layer_norm2",
    "encoder_blocks.1.mlp": "encoder.layers.1.mlp",
    "encoder_blocks.1.mlp.fc1": "encoder.layers.1.mlp.fc1",
    "encoder_blocks.1.mlp.fc2": "encoder.layers.1.mlp.fc2",
    "final_norm": "post_layernorm",
}


@pytest.mark.parametrize("edit", [None, scaled], ids=["seen", "edited"])
def test_paligemma_sees_what_transformers_does(edit: Edit | None) -> None:
    name = next(iter(tiny_paligemma.CONFIGS))
    theirs = tiny_paligemma.make_theirs(transformers, tiny_paligemma.CONFIGS[name])
    ours = paligemma.PaliGemmaForConditionalGeneration.from_transformers(
        theirs, str(tiny.TOKENIZER)
    )
    inputs = tiny_paligemma.prompt(name, 9, 3)
    tower = next(path for path, _ in theirs.named_modules() if path.endswith("vision_tower"))
    tower = next(
        path
        for path, module in theirs.named_modules()
        if path.startswith(tower) and hasattr(module, "post_layernorm")
    )
    modules = {f"siglip_vision_model.{m}": f"{tower}.{path}" for m, path in MODULES.items()}
    modules |= {"multi_modal_projector": "model.multi_modal_projector"}
    for module, path in modules.items():
        for end in ("in", "out"):
            is_patches = module.endswith("patch_embedding") and end == "out"
            their_edit = of_convolution(edit) if edit and is_patches else edit
            got, result = at_ours(ours, lambda: ours(**inputs), f"{module}.hook_{end}", edit)
            want, wanted = at_theirs(theirs, lambda: theirs(**inputs).logits, path, end, their_edit)
            assert_close(got, in_patches(want), (module, end))
            assert_close(result, wanted, (module, end))


def in_patches(value: torch.Tensor) -> torch.Tensor:
    """Of a convolution, [N, E, height, width], as [N, P, E]."""
    is_convolved = value.dim() == 4 and value.size(1) != 3
    return value.flatten(2).transpose(1, 2) if is_convolved else value


def assert_close(got: torch.Tensor, want: torch.Tensor, place: Any) -> None:
    """In float32 the two only sum in another order."""
    atol = 1e-5 * want.abs().max().item()
    torch.testing.assert_close(got, want, rtol=0, atol=atol, msg=lambda m: f"{place}: {m}")
