"""PaliGemma from big_vision's files: the same weights as from transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_paligemma
import torch
from gemma_libtorch import paligemma
from test_program import run

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

PaliGemma = paligemma.PaliGemmaForConditionalGeneration


class Weights:
    """The tensors of a model of transformers, by the ends of their names."""

    def __init__(self, theirs: Any) -> None:
        self.state = theirs.state_dict()

    def __call__(self, end: str) -> torch.Tensor:
        [name] = [name for name in self.state if name.endswith(end)]
        return self.state[name]

    def layers(self, part: str, end: str) -> torch.Tensor:
        names = [name for name in self.state if f"{part}.layers." in name and name.endswith(end)]
        return torch.stack([self.state[name] for name in names])


def image_arrays(weights: Weights, config: Any) -> dict[str, torch.Tensor]:
    heads = config.vision_config.num_attention_heads
    block = "Transformer/encoderblock"

    def of(end: str) -> torch.Tensor:
        return weights.layers("encoder", end)

    arrays = {
        "embedding/kernel": weights("patch_embedding.weight").permute(2, 3, 1, 0),
        "embedding/bias": weights("patch_embedding.bias"),
        "pos_embedding": weights("position_embedding.weight")[None],
        "Transformer/encoder_norm/scale": weights("post_layernorm.weight"),
        "Transformer/encoder_norm/bias": weights("post_layernorm.bias"),
        "head/kernel": weights("multi_modal_projector.linear.weight").T,
        "head/bias": weights("multi_modal_projector.linear.bias"),
    }
    for i in (0, 1):
        arrays[f"{block}/LayerNorm_{i}/scale"] = of(f".layer_norm{i + 1}.weight")
        arrays[f"{block}/LayerNorm_{i}/bias"] = of(f".layer_norm{i + 1}.bias")
        arrays[f"{block}/MlpBlock_0/Dense_{i}/kernel"] = of(f".mlp.fc{i + 1}.weight").mT
        arrays[f"{block}/MlpBlock_0/Dense_{i}/bias"] = of(f".mlp.fc{i + 1}.bias")
    attention = f"{block}/MultiHeadDotProductAttention_0"
    for name in ("query", "key", "value"):
        letter = name[0]
        arrays[f"{attention}/{name}/kernel"] = of(f".{letter}_proj.weight").mT.unflatten(
            2, (heads, -1)
        )
        arrays[f"{attention}/{name}/bias"] = of(f".{letter}_proj.bias").unflatten(1, (heads, -1))
    arrays[f"{attention}/out/kernel"] = of(".out_proj.weight").mT.unflatten(1, (heads, -1))
    arrays[f"{attention}/out/bias"] = of(".out_proj.bias")
    return arrays


NORMS = {
    "gemma": {
        "pre_attention_norm": "input_layernorm",
        "pre_ffw_norm": "post_attention_layernorm",
    },
    "gemma2": {
        "pre_attention_norm": "input_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "pre_ffw_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}


def text_arrays(weights: Weights, config: Any) -> dict[str, torch.Tensor]:
    head = config.text_config.head_dim

    def of(end: str) -> torch.Tensor:
        return weights.layers("language_model", end)

    def heads_of(letter: str) -> torch.Tensor:  # [layers, heads, in, head]
        return of(f".self_attn.{letter}_proj.weight").unflatten(1, (-1, head)).mT

    arrays = {
        f"layers/{theirs}/scale": of(f".{ours}.weight")
        for theirs, ours in NORMS[config.text_config.model_type].items()
    }
    return arrays | {
        "embedder/input_embedding": weights("embed_tokens.weight"),
        "final_norm/scale": weights("language_model.norm.weight"),
        "layers/attn/q_einsum/w": heads_of("q"),
        "layers/attn/kv_einsum/w": torch.stack([heads_of("k"), heads_of("v")], dim=1),
        "layers/attn/attn_vec_einsum/w": of(".self_attn.o_proj.weight").mT.unflatten(1, (-1, head)),
        "layers/mlp/gating_einsum": torch.stack(
            [of(".mlp.gate_proj.weight").mT, of(".mlp.up_proj.weight").mT], dim=1
        ),
        "layers/mlp/linear": of(".mlp.down_proj.weight").mT,
    }


def big_vision(theirs: Any) -> dict[str, torch.Tensor]:
    """The model as big_vision names and lays out its tensors."""
    weights = Weights(theirs)
    images = {f"img/{k}": v for k, v in image_arrays(weights, theirs.config).items()}
    return images | {f"llm/{k}": v for k, v in text_arrays(weights, theirs.config).items()}


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:  # NumPy has none: two bytes without a type.
        return tensor.contiguous().view(torch.int16).numpy().view("V2")
    return tensor.contiguous().numpy()


def write(path: Path, arrays: dict[str, torch.Tensor]) -> Path:
    np.savez(path, **{name: as_numpy(tensor) for name, tensor in arrays.items()})
    return path


@pytest.fixture(params=list(tiny_paligemma.CONFIGS))
def theirs(request: pytest.FixtureRequest) -> Any:
    return tiny_paligemma.make_theirs(transformers, tiny_paligemma.CONFIGS[request.param])


def ours_of(theirs: Any) -> Any:
    return PaliGemma.from_transformers(theirs, str(tiny.TOKENIZER))


def loaded(like: Any, path: Path, dtype: torch.dtype = torch.float32) -> Any:
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = PaliGemma(like.config)
    finally:
        torch.set_default_dtype(previous)
    model.load_weights(str(path))
    return model


def assert_same_weights(model: Any, like: Any) -> None:
    state = like.state_dict()
    got = model.state_dict()
    assert got.keys() == state.keys()
    for name, want in state.items():
        assert torch.equal(got[name], want), name


@pytest.mark.parametrize("prefix", ["", "params/"])
def test_weights_are_those_of_transformers(theirs: Any, prefix: str, tmp_path: Path) -> None:
    ours = ours_of(theirs)
    arrays = {prefix + name: array for name, array in big_vision(theirs).items()}
    assert_same_weights(loaded(ours, write(tmp_path / "w.npz", arrays)), ours)


def test_bfloat16_weights_are_read(theirs: Any, tmp_path: Path) -> None:
    ours = ours_of(theirs.to(torch.bfloat16))
    path = write(tmp_path / "w.npz", big_vision(theirs))
    assert_same_weights(loaded(ours, path, torch.bfloat16), ours)


def test_dtypes_may_be_mixed(theirs: Any, tmp_path: Path) -> None:
    """Files in float16 have attention's weights in float32."""
    theirs = theirs.half().float()
    arrays = {
        name: array if "/attn/" in name else array.half()
        for name, array in big_vision(theirs).items()
    }
    ours = ours_of(theirs)
    assert_same_weights(loaded(ours, write(tmp_path / "w.npz", arrays)), ours)


def refused(theirs: Any, tmp_path: Path, arrays: dict[str, torch.Tensor]) -> str:
    path = write(tmp_path / "w.npz", arrays)
    with pytest.raises(RuntimeError) as error:
        loaded(ours_of(theirs), path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def test_damaged_files_are_refused(theirs: Any, tmp_path: Path) -> None:
    def without(name: str) -> str:
        arrays = big_vision(theirs)
        del arrays[name]
        return refused(theirs, tmp_path, arrays)

    def replaced(name: str, change: Any) -> str:
        arrays = big_vision(theirs)
        arrays[name] = change(arrays[name])
        return refused(theirs, tmp_path, arrays)

    assert "has no tensor 'llm/layers/attn/q_einsum/w'" in without("llm/layers/attn/q_einsum/w")
    assert "has no tensor 'llm/layers/mlp/linear'" in without("llm/layers/mlp/linear")
    assert "not of 5 dimensions" in replaced("llm/layers/attn/kv_einsum/w", lambda x: x[0])
    assert "which has no [2, 0]" in replaced("llm/layers/attn/kv_einsum/w", lambda x: x[:2])
    assert "which has no [0, 1]" in replaced("llm/layers/mlp/gating_einsum", lambda x: x[:, :1])
    assert "does not go with" in replaced("llm/layers/attn/kv_einsum/w", lambda x: x[..., :-1])
    assert "it has 3 dimensions there, not 4" in replaced("img/embedding/kernel", lambda x: x[0])
    assert "cannot be made" in replaced("img/pos_embedding", lambda x: x.repeat(2, 1, 1))


def test_program_says_what_a_model_of_no_published_size_needs(theirs: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "w.npz", big_vision(theirs))
    message = run("info", path).stderr
    assert message.startswith(f"gemma: {path}: is of a PaliGemma that nobody published")
