"""gemma sae, against a few lines of torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gemma_libtorch
import numpy as np
import pytest
import tiny
import torch
from gemma_libtorch.lens import LensModel
from safetensors.torch import save_file
from test_activations import ok, refusal

TEXT = "When does the ferry leave?"
EXACT = ["--numerics", "exact"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a Gemma 3 in model.ckpt."""
    tiny.save_checkpoint(tiny.make_model(gemma_libtorch, tiny.CONFIGS["gemma3"], "float32"), tmp_path)
    return tmp_path


# --- sae ------------------------------------------------------------------------------------------


def params(width: int, features: int = 40, skip: bool = False) -> dict[str, torch.Tensor]:
    made = {
        "w_enc": torch.randn(width, features),
        "w_dec": torch.randn(features, width),
        "b_enc": torch.randn(features),
        "b_dec": torch.randn(width),
        "threshold": torch.rand(features) * 5,
    }
    return made | ({"affine_skip_connection": torch.randn(width, width)} if skip else {})


def seen(made: dict[str, torch.Tensor], x: torch.Tensor, target: torch.Tensor) -> Any:
    """JumpReLU -> features [T, F], explained variance without bos."""
    sums = x @ made["w_enc"] + made["b_enc"]
    features = torch.where(sums > made["threshold"], sums.relu(), 0)
    told = features @ made["w_dec"] + made["b_dec"]
    if "affine_skip_connection" in made:
        told = told + x @ made["affine_skip_connection"]
    target, told = target[1:], told[1:]
    return features, 1 - (target - told).pow(2).sum() / (target - target.mean(0)).pow(2).sum()


def check(result: Any, lens: LensModel, features: torch.Tensor, explained: torch.Tensor) -> None:
    assert result["explained_variance"] == pytest.approx(explained.item(), rel=1e-4)
    assert [token["id"] for token in result["tokens"]] == lens.to_tokens(TEXT)[0].tolist()
    for token, row in zip(result["tokens"], features, strict=True):
        assert token["active"] == (row > 0).sum()
        values, ids = row.topk(min(4, token["active"]))
        assert [one["feature"] for one in token["features"]] == ids.tolist()
        got = [one["activation"] for one in token["features"]]
        assert got == pytest.approx(values.tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("hook_in", "point", "skip"),
    [
        ("model.layers.1.output", "blocks.1.hook_resid_post", False),
        ("model.layers.0.self_attn.o_proj.input", "blocks.0.attn.hook_z", False),
        ("model.layers.1.pre_feedforward_layernorm.output", "blocks.1.mlp.hook_in", True),
    ],
)
def test_features_are_those_of_torch(
    lens: LensModel, tmp_path: Path, hook_in: str, point: str, skip: bool
) -> None:
    target = "blocks.1.hook_mlp_out" if skip else point
    hook_out = "model.layers.1.post_feedforward_layernorm.output" if skip else hook_in
    _, cache = lens.run_with_cache(TEXT, names_filter=[point, target])
    x = cache[point][0].flatten(1)
    made = params(x.size(1), skip=skip)
    save_file(made, tmp_path / "params.safetensors")
    config = {"hf_hook_point_in": hook_in, "hf_hook_point_out": hook_out}
    (tmp_path / "config.json").write_text(json.dumps(config))
    flags = ["--sae", "params.safetensors", "--prompt", TEXT, "-n", "4", "--json", *EXACT]
    result = json.loads(ok(tmp_path, "sae", *flags))
    assert (result["point"], result["target"], result["width"]) == (point, target, 40)
    check(result, lens, *seen(made, x, cache[target][0].flatten(1)))


def test_gemma_scope_1_is_an_npz(lens: LensModel, tmp_path: Path) -> None:
    made = params(60)
    names = {"w_enc": "W_enc", "w_dec": "W_dec"}
    np.savez(tmp_path / "params.npz", **{names.get(k, k): v.numpy() for k, v in made.items()})
    point = "blocks.1.hook_resid_post"
    x = lens.run_with_cache(TEXT, names_filter=point)[1][point][0]
    flags = ["--sae", "params.npz", "--point", point, "--prompt", TEXT, *EXACT]
    check(json.loads(ok(tmp_path, "sae", *flags, "-n", "4", "--json")), lens, *seen(made, x, x))
    lines = ok(tmp_path, "sae", *flags).splitlines()
    assert lines[0] == f"point      {point}"
    assert lines[1] == "features   40"
    assert len(lines) == 5 + len(x)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sae", "params.safetensors"], "name the point by --point"),
        (["--sae", "params.safetensors", "--point", "blocks.9.hook_out"], "no such point"),
        (["--sae", "params.safetensors", "--point", "blocks.0.mlp.hook_post"], "of 60 numbers, but"),
        (["--sae", "none.npz", "--point", "hook_embed"], "none.npz"),
        (["--sae", "model.ckpt", "--point", "hook_embed"], "has no tensor 'w_enc' or 'W_enc'"),
        (["--sae", "odd/params.safetensors"], "hf_hook_point_in is 'lm_head.output'"),
        (["--sae", "torn/params.safetensors"], "hf_hook_point_in is ''"),
    ],
)
def test_bad_autoencoders_are_told_in_a_line(folder: Path, flags: list[str], message: str) -> None:
    for name, config in (("odd", '{"hf_hook_point_in": "lm_head.output"}'), ("torn", '{"hf_')):
        (folder / name).mkdir()
        save_file(params(60), folder / name / "params.safetensors")
        (folder / name / "config.json").write_text(config)
    save_file(params(60), folder / "params.safetensors")
    assert message in refusal(folder, "sae", "--prompt", TEXT, *flags)
