"""RecurrentGemma's files: those of Google, and those of Hugging Face transformers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch as safetensors
import tiny
import tiny_griffin
import torch
from gemma_libtorch import recurrentgemma
from test_program import output_of
from tiny_griffin import A, R

FIELDS = tiny_griffin.CONFIGS["griffin"]
# What Hugging Face says of it. Its window counts the token itself.
HF_CONFIG = {
    "model_type": "recurrent_gemma",
    "attention_window_size": FIELDS["attention_window_size"],
    "logits_soft_cap": FIELDS["logits_soft_cap"],
    "embeddings_scale_by_sqrt_dim": True,
}


def logits_of(model: Any, length: int = 15) -> torch.Tensor:
    tokens = tiny.random_ids((2, length), model.config.vocab_size)
    return model(tokens, tiny_griffin.positions(2, length))[0]


@pytest.fixture
def model() -> Any:
    return tiny_griffin.make(recurrentgemma, FIELDS, "float32")


def empty(dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    config = tiny_griffin.make_config(recurrentgemma, {**FIELDS, **changes})
    return recurrentgemma.Griffin(config, dtype=dtype)


@pytest.fixture
def google(model: Any, tmp_path: Path) -> Path:
    """A file of Google's: a dict of tensors."""
    path = tmp_path / "2b.pt"
    torch.save(dict(model.state_dict()), path)
    return path


# --- files of Google ------------------------------------------------------------------------------


@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_of_google_is_loaded(model: Any, google: Path, mmap: bool) -> None:
    other = empty()
    report = other.load_weights(google, mmap=mmap)
    assert report.loaded == list(model.state_dict()) and report.unexpected == []
    tiny.assert_same(logits_of(other), logits_of(model))


def test_weights_are_cast_to_the_models_dtype(model: Any, google: Path) -> None:
    other = empty(torch.bfloat16)
    other.load_weights(google)
    tiny.assert_same(logits_of(other), logits_of(model.to(torch.bfloat16)))


def test_a_prefix_before_all_names_is_no_part_of_them(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({f"module.{name}": value for name, value in model.state_dict().items()}, path)
    other = empty()
    other.load_weights(path)
    tiny.assert_same(logits_of(other), logits_of(model))


def refusal_of(state: dict[str, torch.Tensor], path: Path) -> str:
    torch.save(state, path)
    other = empty()
    before = logits_of(tiny_griffin.randomize(other))
    with pytest.raises(RuntimeError) as error:
        other.load_weights(path)
    tiny.assert_same(logits_of(other), before)
    return str(error.value)


def test_a_file_that_is_not_the_model_is_refused(model: Any, tmp_path: Path) -> None:
    state, path = dict(model.state_dict()), tmp_path / "2b.pt"
    gate = "blocks.0.recurrent_block.rg_lru.a_gate.w"
    without = {name: value for name, value in state.items() if name != gate}
    assert f"no tensor '{gate}'; it is a RecurrentGemma of another config" in refusal_of(
        without, path
    )
    assert f"'{gate}' is [2, 12, 12], but the model's is [4, 12, 12]" in refusal_of(
        {**state, gate: state[gate][:2].clone()}, path
    )
    more = {"blocks.4.channel_pre_norm.scale": torch.zeros(48)}
    assert "'blocks.4.channel_pre_norm.scale' are of modules" in refusal_of({**state, **more}, path)


def test_a_config_says_what_it_cannot_know(google: Path) -> None:
    with pytest.raises(RuntimeError, match="sizes fit no preset, and nothing says its window"):
        recurrentgemma.GriffinConfig.from_pretrained(google)


def test_a_config_of_other_sizes_than_the_preset_is_refused(model: Any) -> None:
    preset = recurrentgemma.Preset.RECURRENT_GEMMA_2B_V1
    with pytest.raises(ValueError, match="the weights' width is not that of RECURRENT_GEMMA_2B_V1"):
        recurrentgemma.GriffinConfig.from_torch_params(model.state_dict(), preset)
    with pytest.raises(ValueError, match="no attention_window_size, which the weights do not say"):
        recurrentgemma.GriffinConfig.from_torch_params(
            model.state_dict(), embeddings_scale_by_sqrt_dim=True, logits_soft_cap=30.0
        )


# --- files of Hugging Face ------------------------------------------------------------------------


@pytest.fixture
def hugging_face(tmp_path: Path) -> tuple[Path, Any]:
    """A directory that transformers wrote, and the model that it is of."""
    transformers = pytest.importorskip("transformers")
    config = transformers.RecurrentGemmaConfig(
        num_hidden_layers=4,
        vocab_size=FIELDS["vocab_size"],
        hidden_size=FIELDS["width"],
        intermediate_size=2 * FIELDS["mlp_expanded_width"],
        num_attention_heads=FIELDS["num_heads"],
        num_key_value_heads=1,
        lru_width=FIELDS["width"],
        # Its windows count the token itself.
        attention_window_size=FIELDS["attention_window_size"] + 1,
        logits_soft_cap=FIELDS["logits_soft_cap"],
        block_types=("recurrent", "recurrent", "attention", "recurrent"),
    )
    model = tiny_griffin.randomize(transformers.RecurrentGemmaForCausalLM(config).eval())
    model.save_pretrained(tmp_path / "hf")
    return tmp_path / "hf", model


def test_a_directory_of_hugging_face_computes_as_transformers(
    hugging_face: tuple[Path, Any],
) -> None:
    folder, want = hugging_face
    config = recurrentgemma.GriffinConfig.from_pretrained(folder)
    window = FIELDS["attention_window_size"]
    assert config == tiny_griffin.make_config(
        recurrentgemma, {**FIELDS, "attention_window_size": window + 1, "lru_width": 48}
    )
    got = recurrentgemma.Griffin(config._replace(attention_window_size=window))
    report = got.load_weights(folder)
    assert report.unexpected == []
    tokens = tiny.random_ids((2, 20), config.vocab_size)
    logits = got(tokens, tiny_griffin.positions(2, 20))[0]
    torch.testing.assert_close(logits, want(tokens).logits, rtol=0, atol=2e-5)


def test_transformers_takes_the_weights(model: Any, hugging_face: tuple[Path, Any]) -> None:
    _, theirs = hugging_face
    theirs.load_state_dict(model.to_transformers_state_dict())
    tokens = tiny.random_ids((2, 20), model.config.vocab_size)
    logits = model(tokens, tiny_griffin.positions(2, 20))[0]
    torch.testing.assert_close(theirs(tokens).logits, logits, rtol=0, atol=2e-5)


def test_weights_that_went_to_transformers_come_back_as_they_were(
    model: Any, hugging_face: tuple[Path, Any]
) -> None:
    folder, theirs = hugging_face
    theirs.load_state_dict(model.to_transformers_state_dict())
    theirs.save_pretrained(folder)
    other = empty()
    other.load_weights(folder)
    tiny.assert_same(dict(other.state_dict()), dict(model.state_dict()))


def test_a_directory_of_hugging_face_that_is_not_whole_is_refused(
    model: Any, tmp_path: Path
) -> None:
    theirs = model.to_transformers_state_dict()
    gate, up = (f"model.layers.0.mlp_block.{name}_proj.weight" for name in ("gate", "up"))
    for changes, words in [
        ({up: None}, f"has no tensor '{up}', which belongs to 'blocks.0.mlp_block.ffw_up.w'"),
        ({up: theirs[up][:1]}, r"is \[41, 48\], of which 'blocks.0.mlp_block.ffw_up.w'"),
        ({gate: theirs[gate][0]}, "ffw_up.w"),
        ({"lm_head.weight": theirs["lm_head.weight"] + 1}, "'lm_head.weight' is not"),
        ({"model.layers.0.temporal_block.linear_x.lora_A": theirs[gate]}, "of an adapter"),
    ]:
        state = {name: value for name, value in {**theirs, **changes}.items() if value is not None}
        tensors = {name: value.clone().contiguous() for name, value in state.items()}
        safetensors.save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(RuntimeError, match=words):
            empty().load_weights(tmp_path / "model.safetensors")


def test_what_every_recurrentgemma_has_must_not_be_otherwise(
    hugging_face: tuple[Path, Any],
) -> None:
    folder, _ = hugging_face
    text = json.loads((folder / "config.json").read_text())
    for change, words in {
        ("conv1d_width", 3): "'conv1d_width' is 3, but every RecurrentGemma has 4",
        ("hidden_activation", "relu"): "'hidden_activation' is not",
        ("model_type", "gemma2"): "'model_type' is \"gemma2\"",
        ("attention_window_size", -1): "'attention_window_size' is -1",
    }.items():
        (folder / "config.json").write_text(json.dumps({**text, change[0]: change[1]}))
        with pytest.raises(RuntimeError, match="config.json") as error:
            recurrentgemma.GriffinConfig.from_pretrained(folder)
        assert words in str(error.value)


# --- the program ----------------------------------------------------------------------------------


def test_info_shows_the_size_of_a_published_models_state() -> None:
    text = output_of("info", "RECURRENT_GEMMA_2B_V1")
    assert "RRARRARRARRARRARRARRARRARR  (R recurrent, A attention)" in text
    config = recurrentgemma.GriffinConfig.from_preset(recurrentgemma.Preset.RECURRENT_GEMMA_2B_V1)
    # 18 recurrent blocks of 4 bytes and 3 inputs of 2; 8 attention blocks of keys and values.
    recurrent, attention = 18 * 2560 * (4 + 3 * 2), 8 * 2048 * 256 * 2 * 2
    assert config.width == 2560
    assert f"State: {recurrent + attention:,} bytes a text, of any length (bfloat16)" in text
    assert f"{recurrent:,} in recurrent blocks, {attention:,} in attention blocks" in text


def test_info_shows_a_file(model: Any, google: Path, tmp_path: Path) -> None:
    torch.save({"model_state_dict": dict(model.state_dict()), "config.json": json.dumps(HF_CONFIG)},
               tmp_path / "model.ckpt")  # fmt: skip
    text = output_of("info", str(tmp_path / "model.ckpt"))
    assert "(recurrentgemma's names)" in text and "RRAR  (R recurrent" in text
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"{count:,}" in text


# --- what Python has ------------------------------------------------------------------------------


def test_a_config_is_a_named_tuple() -> None:
    config = tiny_griffin.make_config(recurrentgemma, FIELDS)
    assert config._replace(width=4).width == 4
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(tiny_griffin.make_config(recurrentgemma, FIELDS))
    with pytest.raises(TypeError):
        recurrentgemma.GriffinConfig()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 0}, "GriffinConfig: width is 0, but must be at least 1"),
        ({"block_types": ()}, "block_types is empty"),
        ({"num_heads": 5}, r"width \(48\) must be a multiple of num_heads \(5\)"),
        ({"lru_width": 50}, r"lru_width \(50\) must be a multiple of num_heads \(4\)"),
        ({"num_heads": 8}, "a head is 6 wide"),
    ],
)
def test_a_config_of_no_model_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        empty(**changes)


def test_what_does_not_fit_is_refused_in_one_line(model: Any) -> None:
    tokens, positions = tiny.random_ids((2, 3), 37), tiny_griffin.positions(2, 3)
    _, cache = model(tokens, positions)
    for arguments, words in [
        ((tokens, positions[:1]), r"segment_pos must be \[2, 3\]"),
        ((tokens, positions, cache), "x has 3 tokens, but with a cache takes one"),
        ((tokens[:, :1], positions[:, :1], {**cache, "blocks.0": cache["blocks.2"]}), "another"),
        ((tokens, positions, {"blocks.0": cache["blocks.0"]}), "the cache has no 'blocks.1'"),
    ]:
        with pytest.raises(ValueError, match=words) as error:
            model(*arguments)
        assert "\n" not in str(error.value)


def test_fast_numerics_are_refused(model: Any) -> None:
    model.set_numerics("fast")
    with pytest.raises(RuntimeError, match="forward has exact numerics alone"):
        logits_of(model)


def test_the_order_of_block_types_decides() -> None:
    blocks = [empty(block_types=types).blocks for types in ((R, A), (A, R))]
    assert [hasattr(part[0], "recurrent_block") for part in blocks] == [True, False]
    assert [hasattr(part[0], "attention_block") for part in blocks] == [False, True]
