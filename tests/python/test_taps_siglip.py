"""Taps in the vision model see and do what hooks on gemma_pytorch's modules do, to the last bit."""

from __future__ import annotations

import pytest
import tiny
import torch
from module_hooks import Edit, at_ours, at_theirs, ends_of_modules, of_convolution, scaled
from test_reference_siglip import make, normal


def as_ours(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Patches of a convolution, [N, E, height, width], as [N, P, E]; positions of all images."""
    if value.dim() == 4 and like.dim() == 3:
        value = value.flatten(2).transpose(1, 2)
    return value.expand_as(like)


@pytest.mark.parametrize("edit", [None, scaled], ids=["seen", "edited"])
@pytest.mark.parametrize("dtype", tiny.DTYPES)
def test_the_vision_model_is_that_of_gemma_pytorch(dtype: str, edit: Edit | None) -> None:
    theirs, ours = make("SiglipVisionModel", dtype, image_size=56, conv2d_patch_size=14)
    pixels = normal((2, 3, 56, 56), dtype).clamp(-1, 1)
    places = ends_of_modules(ours)
    # Of positions, one row there and one for each image here.
    places.remove(("position_embedding", "in"))
    assert len(places) > 2 * 8 * len(ours.encoder_blocks)
    for module, end in places:
        is_patches = module.endswith("patch_embedding") and end == "out"
        their_edit = of_convolution(edit) if edit and is_patches else edit
        got, result = at_ours(ours, lambda: ours(pixels), f"{module}.hook_{end}", edit)
        want, wanted = at_theirs(theirs, lambda: theirs(pixels), module, end, their_edit)
        tiny.assert_same(got, as_ours(want, got))
        tiny.assert_same(result, wanted.clone())
