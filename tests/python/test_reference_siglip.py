"""The vision model gives what its twin in gemma_pytorch gives, to the last bit."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import gemma_libtorch
import pytest
import reference
import tiny
import torch
from gemma_libtorch.siglip_vision import siglip_vision_model

gemma_pytorch = reference.required()

PACKAGES = (gemma_pytorch, gemma_libtorch)
DTYPES = pytest.mark.parametrize("dtype", tiny.DTYPES)


def classes(package: ModuleType) -> ModuleType:
    return package.siglip_vision.siglip_vision_model


def make(name: str, dtype: str, *args: Any, **config: Any) -> tuple[Any, Any]:
    """The reference's module and ours, with the same random weights."""
    modules = []
    for package in PACKAGES:
        with tiny.default_dtype(tiny.DTYPES[dtype]):
            made = getattr(classes(package), name)(
                *(args or (tiny.make_siglip_config(package, **config),))
            )
        modules.append(tiny.randomize(made))
    return tuple(modules)


def normal(shape: tuple[int, ...], dtype: str = "float32", seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(tiny.DTYPES[dtype])


@DTYPES
@pytest.mark.parametrize("shape", [(1, 64, 20), (3, 16, 20), (2, 1, 20)])
def test_layers_are_equal(dtype: str, shape: tuple[int, ...]) -> None:
    x = normal(shape, dtype)
    for name, args in (
        ("SiglipAttention", (20, 3, 10)),
        ("SiglipMLP", (20, 28)),
        ("SiglipEncoderBlock", ()),
    ):
        want, got = make(name, dtype, *args)
        tiny.assert_same(got(x), want(x))


@DTYPES
def test_the_mlp_is_equal_while_its_dtype_is_the_default(dtype: str) -> None:
    """The root in its gelu is a tensor of the default dtype."""
    want, got = make("SiglipMLP", dtype, 20, 28)
    x = normal((3, 16, 20), dtype)
    with tiny.default_dtype(tiny.DTYPES[dtype]):
        tiny.assert_same(got(x), want(x))


@DTYPES
@pytest.mark.parametrize("side", [4, 8, 9])
def test_pooling_is_equal(dtype: str, side: int) -> None:
    want, got = make("AveragePool2D", dtype)
    x = normal((2, side * side, 7), dtype)
    tiny.assert_same(got(x), want(x))


def test_pooling_wants_a_square() -> None:
    for pool in make("AveragePool2D", "float32"):
        with pytest.raises(ValueError, match="square"):
            pool(normal((1, 15, 7)))


@DTYPES
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"image_size": 56, "conv2d_patch_size": 14},
        {"image_size": 66, "conv2d_patch_size": 8, "embedding_use_bias": False},
    ],
    ids=str,
)
def test_the_vision_model_is_equal(dtype: str, images: int, config: dict[str, Any]) -> None:
    want, got = make("SiglipVisionModel", dtype, **config)
    size = config.get("image_size", 896)
    pixels = normal((images, 3, size, size), dtype).clamp(-1, 1)
    tiny.assert_same(got(pixels), want(pixels).clone())


def test_the_vision_model_is_equal_at_the_real_width() -> None:
    """One layer of the published model's, on a smaller picture."""
    real = {"embedding_dim": 1152, "num_attention_heads": 16, "head_dim": 72}
    want, got = make(
        "SiglipVisionModel",
        "float32",
        **real,
        intermediate_size=4304,
        num_hidden_layers=1,
        image_size=112,
        conv2d_patch_size=14,
    )
    pixels = normal((2, 3, 112, 112)).clamp(-1, 1)
    tiny.assert_same(got(pixels), want(pixels).clone())


def test_parameters_have_the_references_names() -> None:
    want, got = make("SiglipVisionModel", "float32")
    assert list(got.state_dict()) == list(want.state_dict())
    assert [name for name, _ in got.named_modules()] == [name for name, _ in want.named_modules()]


def test_float32_pixels_fit_any_model_here_only() -> None:
    want, got = make("SiglipVisionModel", "bfloat16")
    pixels = normal((1, 3, 896, 896))
    with pytest.raises(RuntimeError, match="should be the same"):
        want(pixels)
    tiny.assert_same(got(pixels), got(pixels.bfloat16()))


def test_pixels_of_another_size_are_refused() -> None:
    _, got = make("SiglipVisionModel", "float32")
    with pytest.raises(ValueError, match=r"must be \[N, 3, 896, 896\], got \[1, 3, 56, 56\]"):
        got(normal((1, 3, 56, 56)))


@pytest.mark.parametrize("field", ["embedding_dim", "num_hidden_layers", "image_size", "head_dim"])
def test_a_config_that_cannot_be_is_refused_by_name(field: str) -> None:
    config = tiny.make_siglip_config(gemma_libtorch, **{field: 0})
    with pytest.raises(ValueError, match=f"{field} is 0, but must be at least 1"):
        siglip_vision_model.SiglipVisionModel(config)


@DTYPES
def test_fast_numerics_follow_the_float32_run(dtype: str) -> None:
    _, model = make("SiglipVisionModel", dtype)
    with tiny.default_dtype(torch.float32):
        wide = siglip_vision_model.SiglipVisionModel(model.config)
    wide.load_state_dict(model.state_dict())
    model.set_numerics("fast")
    pixels = normal((3, 3, 896, 896)).clamp(-1, 1)
    got, want = model(pixels), wide(pixels)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * want.abs().max().item())
    one = model(pixels[1:2])
    torch.testing.assert_close(one[0], got[1], rtol=0, atol=1e-6 * want.abs().max().item())
