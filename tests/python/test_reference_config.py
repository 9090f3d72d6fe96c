"""Configs, arguments and Tokenizer have the reference's names, defaults and answers."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from typing import Any

import gemma_libtorch
import pytest
import reference
import tiny
from gemma_libtorch.siglip_vision import config as siglip_config

gemma_pytorch = reference.required()

VARIANTS = ["2b", "7b", "2b-v2", "9b", "27b", "1b", "4b", "12b", "27b_v3"]


def plain(value: Any) -> Any:
    """A field's value, free of the classes of either package."""
    if isinstance(value, enum.Enum):
        return value.name, value.value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if hasattr(value, "__match_args__"):
        return fields_of(value)
    return value


def fields_of(config: Any) -> dict[str, Any]:
    return {name: plain(getattr(config, name)) for name in config.__match_args__}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16", "float"])
def test_variants_are_equal_field_by_field(variant: str, dtype: str) -> None:
    want, got = (
        package.config.get_model_config(variant, dtype)
        for package in (gemma_pytorch, gemma_libtorch)
    )
    assert fields_of(got) == fields_of(want)
    assert got.get_dtype() is want.get_dtype()


@pytest.mark.parametrize("variant", VARIANTS)
def test_functions_of_the_variants_are_equal_field_by_field(variant: str) -> None:
    name = "get_config_for_" + variant.replace("-", "_")
    want, got = (
        getattr(package.config, name)("float32") for package in (gemma_pytorch, gemma_libtorch)
    )
    assert fields_of(got) == fields_of(want)


@pytest.mark.parametrize("variant", ["2b", "7b", "2b-v2", "9b", "27b"])
def test_functions_of_the_older_variants_default_to_bfloat16(variant: str) -> None:
    name = "get_config_for_" + variant.replace("-", "_")
    assert fields_of(getattr(gemma_libtorch.config, name)()) == fields_of(
        getattr(gemma_pytorch.config, name)()
    )


def test_defaults_are_equal_field_by_field() -> None:
    want = gemma_pytorch.config.GemmaConfig()
    got = gemma_libtorch.config.GemmaConfig()
    assert list(got.__match_args__) == [field.name for field in dataclasses.fields(want)]
    assert fields_of(got) == fields_of(want)


def test_defaults_of_the_vision_config_are_equal_field_by_field() -> None:
    want = gemma_pytorch.siglip_vision.config.get_siglip_vision_model_config()
    got = siglip_config.get_siglip_vision_model_config()
    assert list(got.__match_args__) == [field.name for field in dataclasses.fields(want)]
    assert fields_of(got) == fields_of(want)
    assert got.conv2d_patch_size == want.conv2d_patch_size


@pytest.mark.parametrize("name", ["AttentionType", "Architecture"])
def test_enumerations_are_equal(name: str) -> None:
    want, got = (
        getattr(package.config, name).__members__ for package in (gemma_pytorch, gemma_libtorch)
    )
    assert {key: item.value for key, item in got.items()} == {
        key: item.value for key, item in want.items()
    }


def test_an_unknown_variant_is_a_value_error_in_both() -> None:
    for package in (gemma_pytorch, gemma_libtorch):
        with pytest.raises(ValueError, match="3b"):
            package.config.get_model_config("3b")


# --- arguments ------------------------------------------------------------------------------------

CLASSES = [
    "Embedding",
    "Gemma2DecoderLayer",
    "GemmaAttention",
    "GemmaDecoderLayer",
    "GemmaForCausalLM",
    "GemmaMLP",
    "GemmaModel",
    "Linear",
    "RMSNorm",
    "Sampler",
]
METHODS = [
    *(("model", f"{cls}.{method}") for cls in CLASSES for method in ("__init__", "forward")),
    ("model", "GemmaForCausalLM.generate"),
    ("model", "GemmaForCausalLM.load_weights"),
    ("model", "apply_rotary_emb"),
    ("model", "precompute_freqs_cis"),
    ("tokenizer", "Tokenizer.__init__"),
    ("tokenizer", "Tokenizer.encode"),
    ("tokenizer", "Tokenizer.decode"),
    ("config", "get_model_config"),
]
OURS_ALONE = ["progress"]


def lookup(package: Any, module: str, path: str) -> Any:
    found = getattr(package, module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize(("module", "path"), METHODS)
def test_arguments_have_the_references_names_and_order(module: str, path: str) -> None:
    want = inspect.signature(lookup(gemma_pytorch, module, path)).parameters
    signature = lookup(gemma_libtorch, module, path).__doc__.splitlines()[0]  # pybind11 writes it.
    signature = signature.split(", *, ")[0]  # What is ours alone after that can only be named.
    got = re.findall(r"[(,] ?\**(\w+)(?=[:,)=])", signature)
    assert [name for name in got if name not in OURS_ALONE] == list(want)


# --- tokenizer ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizers() -> tuple[Any, Any]:
    return tuple(
        package.tokenizer.Tokenizer(str(tiny.TOKENIZER))
        for package in (gemma_pytorch, gemma_libtorch)
    )


@pytest.mark.parametrize(
    "name",
    ["n_words", "bos_id", "eos_id", "pad_id", "boi_id", "eoi_id", "image_token_placeholder_id"],
)
def test_attributes_of_the_tokenizer_are_equal(tokenizers: tuple[Any, Any], name: str) -> None:
    want, got = tokenizers
    assert getattr(got, name) == getattr(want, name)


@pytest.mark.parametrize("text", ["The ferry leaves.", "", "Küste 😀\n\n  x\0y"])
@pytest.mark.parametrize("marks", [{}, {"bos": False}, {"eos": True}, {"bos": False, "eos": True}])
def test_marks_around_the_tokens_are_equal(
    tokenizers: tuple[Any, Any], text: str, marks: dict[str, bool]
) -> None:
    want, got = tokenizers
    ids = want.encode(text, **marks)
    assert got.encode(text, **marks) == ids
    assert got.decode(ids) == want.decode(ids)
