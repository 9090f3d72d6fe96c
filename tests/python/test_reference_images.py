"""Images and prompts with images become the same tensors as in the reference, bit for bit."""

from __future__ import annotations

import importlib
from typing import Any

import gemma_libtorch
import pytest
import reference
import tiny
import torch
from gemma_libtorch import gemma3_preprocessor
from gemma_libtorch.siglip_vision import pan_and_scan, preprocessor
from pictures import picture
from test_images import HAS_COLUMNS_FIRST

gemma_pytorch = reference.required()
their_preprocessor = importlib.import_module("gemma.siglip_vision.preprocessor")
their_pan_and_scan = importlib.import_module("gemma.siglip_vision.pan_and_scan")
their_gemma3 = importlib.import_module("gemma.gemma3_preprocessor")

# Around the ratios where a crop is added, the sizes where one is left out, and the target's size.
WIDE = [
    (17, 17), (31, 17), (640, 480), (896, 896), (895, 897), (1024, 1024), (1792, 896), (1, 1),
    (300, 200), (299, 200), (449, 300), (450, 300), (768, 512), (767, 512), (511, 256), (512, 256),
    (513, 256), (640, 256), (639, 256), (641, 256), (750, 300), (749, 300), (751, 300), (900, 300),
    (1001, 300), (1050, 300), (1049, 300), (1200, 260), (1300, 260), (1301, 260), (1500, 300),
    (1000, 400), (2600, 1000), (1999, 1000), (2000, 801), (600, 255), (600, 257), (3000, 600),
]  # fmt: skip
SIZES = [*WIDE, *((height, width) for width, height in WIDE if width != height)]


def needs_pillow_13(size: tuple[int, int]) -> None:
    if not HAS_COLUMNS_FIRST and size[1] > size[0]:
        pytest.skip("tall images: this Pillow resizes rows first, Pillow 13 columns")


def expect_equal(got: list[Any], want: list[Any]) -> None:
    assert len(got) == len(want)
    for ours, theirs in zip(got, want, strict=True):
        if isinstance(theirs, str):
            assert ours == theirs
        else:
            assert torch.equal(ours, theirs)
            assert ours.dtype is theirs.dtype
            assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_crops_are_equal(size) -> None:
    image = picture(*size)
    for options in (
        {},
        {"min_crop_size": 100},
        {"max_num_crops": 3},
        {"min_crop_size": 1, "max_num_crops": 9},
    ):
        want, want_positions = their_pan_and_scan.pan_and_scan_os_with_crop_positions(
            image, **options
        )
        got, positions = pan_and_scan.pan_and_scan_os_with_crop_positions(image, **options)
        assert positions == want_positions
        assert [crop.size for crop in got] == [crop.size for crop in want]
        assert [crop.tobytes() for crop in got] == [crop.tobytes() for crop in want]
        assert len(pan_and_scan.pan_and_scan(image, **options)) == len(want)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_are_equal(size) -> None:
    needs_pillow_13(size)
    image = picture(*size)
    expect_equal(
        preprocessor.preprocess_images_for_siglip_vision([image]),
        their_preprocessor.preprocess_images_for_siglip_vision([image]),
    )


@pytest.mark.parametrize("image_size", [1, 14, 224, 448, 897])
def test_pixels_of_other_sizes_are_equal(image_size: int) -> None:
    images = [picture(61, 47), picture(900, 600)]
    got, want = (
        module.preprocess_images_for_siglip_vision(images, image_size)
        for module in (preprocessor, their_preprocessor)
    )
    for ours, theirs in zip(got, want, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("size", [(300, 200), (299, 200), (770, 500), (1300, 300)], ids=str)
def test_prompts_become_equal_parts(size) -> None:
    prompt = ["What is", picture(*size), "and", picture(40, 40), ""]
    expect_equal(
        gemma3_preprocessor.gemma3_input_preprocessor(prompt),
        their_gemma3.gemma3_input_preprocessor(prompt),
    )
    (got,) = gemma3_preprocessor.gemma3_batch_input_preprocessor([prompt])
    assert len(got) == len(their_gemma3.gemma3_input_preprocessor(prompt))


BATCHES = {
    "text": [["The ferry leaves."], ["The ferry leaves the harbour at seven.", "Why?"]],
    "image": [[picture(40, 40), "What is this?"]],
    "crops": [["Look: ", picture(1300, 300)]],
    "several": [
        ["one", picture(40, 60), "two", picture(800, 500), "three"],
        ["no image"],
        [picture(30, 20)],
        [],
    ],
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("output_len", [0, 7])
def test_tokenized_prompts_are_equal(name: str, output_len: int) -> None:
    results = []
    for package, module in ((gemma_libtorch, gemma3_preprocessor), (gemma_pytorch, their_gemma3)):
        config = package.config.get_model_config("4b", "float32")
        tokenizer = package.tokenizer.Tokenizer(str(tiny.TOKENIZER))
        results.append(
            module.tokenize_raw_input(tokenizer, BATCHES[name], config, output_len, "cpu")
        )
    got, want = results
    assert list(got) == list(want)
    for key, theirs in want.items():
        if isinstance(theirs, torch.Tensor):
            expect_equal([got[key]], [theirs])
        else:
            assert got[key] == theirs


def test_a_config_without_vision_is_a_value_error_in_both() -> None:
    for package, module in ((gemma_libtorch, gemma3_preprocessor), (gemma_pytorch, their_gemma3)):
        config = package.config.get_model_config("1b", "float32")
        tokenizer = package.tokenizer.Tokenizer(str(tiny.TOKENIZER))
        with pytest.raises(ValueError, match="vision_config"):
            module.tokenize_raw_input(tokenizer, [["text"]], config, 3, "cpu")
