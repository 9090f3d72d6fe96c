"""GemmaConfig as a Python object, and what a config that fits nothing raises."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gemma_libtorch
import pytest
import tiny
from gemma_libtorch import config as gemma_config

GEMMA_3 = tiny.CONFIGS["gemma3"]


@pytest.fixture
def config() -> gemma_config.GemmaConfig:
    return tiny.make_config(gemma_libtorch, GEMMA_3, dtype="float32")


def test_a_config_is_made_from_keywords_or_positions() -> None:
    architecture = gemma_config.Architecture.GEMMA_2
    config = gemma_config.GemmaConfig(architecture, 300, head_dim=24)
    assert (config.architecture, config.vocab_size, config.head_dim) == (architecture, 300, 24)
    assert config.num_hidden_layers == gemma_config.GemmaConfig().num_hidden_layers


def test_a_copy_of_a_config_is_equal_and_independent(config: gemma_config.GemmaConfig) -> None:
    for other in (copy.copy(config), copy.deepcopy(config)):
        assert other == config
        other.head_dim += 2
        assert other != config


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", gemma_config.model_variants())
def test_a_config_can_be_pickled(name: str, protocol: int) -> None:
    config = gemma_config.get_model_config(name)
    config.tokenizer = "elsewhere/tokenizer.model"
    if config.vision_config is not None:
        vision_config = config.vision_config
        vision_config.conv2d_patch_size = 7
        config.vision_config = vision_config
    other = pickle.loads(pickle.dumps(config, protocol))
    assert type(other) is gemma_config.GemmaConfig
    assert other == config and repr(other) == repr(config)


def test_a_pickle_with_an_unknown_field_is_refused(config: gemma_config.GemmaConfig) -> None:
    pickled = pickle.dumps(config).replace(b"head_dim", b"head_dam")
    with pytest.raises(AttributeError, match="no attribute 'head_dam'"):
        pickle.loads(pickled)


def test_a_config_prints_its_fields(config: gemma_config.GemmaConfig) -> None:
    text = repr(config)
    assert text.startswith("GemmaConfig(architecture=<Architecture.GEMMA_3: 3>, vocab_size=451, ")
    assert "dtype='float32'" in text and "final_logit_softcapping=None" in text


def test_a_config_is_not_hashable_and_equals_nothing_else(config: gemma_config.GemmaConfig) -> None:
    assert config != "config"
    with pytest.raises(TypeError, match="unhashable"):
        hash(config)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: gemma_config.GemmaConfig(hidden=3),
            "unexpected keyword argument 'hidden'; fields: arch",
        ),
        (lambda: gemma_config.GemmaConfig(vocab_size="many"), "vocab_size cannot be 'many'"),
        (lambda: gemma_config.GemmaConfig(head_dim=1.5), "head_dim cannot be 1.5"),
        (lambda: gemma_config.GemmaConfig("GEMMA_1"), "architecture cannot be 'GEMMA_1'"),
        (
            lambda: gemma_config.GemmaConfig(*range(99)),
            "takes at most 24 positional arguments, got 99",
        ),
    ],
)
def test_a_field_that_does_not_fit_is_a_type_error(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_an_unknown_variant_is_a_value_error_that_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError) as error:
        gemma_config.get_model_config("3b")
    assert "'3b'" in str(error.value)
    for name in ("2b", "7b", "2b-v2", "9b", "27b", "270m", "1b", "4b", "12b", "27b_v3"):
        assert name in str(error.value)
        assert name in gemma_config.model_variants()
        assert gemma_config.get_model_config(name, dtype="float32").dtype == "float32"


def test_an_unknown_dtype_is_a_value_error_that_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="'int4' is unknown; valid dtypes: float16, float"):
        gemma_config.get_model_config("1b", dtype="int4")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_key_value_heads": 3}, r"num_attention_heads \(4\) must be a multiple of num_key"),
        ({"hidden_size": 37}, r"hidden_size \(37\) must be a multiple of num_attention_heads"),
        ({"head_dim": 7}, "head_dim is 7, but rotary embedding needs an even one"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"rope_wave_length": None}, "rope_wave_length must be given for GEMMA_3"),
        ({"attn_types": []}, "attn_types is empty"),
    ],
    ids=str,
)
def test_a_config_that_makes_no_model_is_a_value_error(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.make_model(gemma_libtorch, {**GEMMA_3, **changes}, "float32")
