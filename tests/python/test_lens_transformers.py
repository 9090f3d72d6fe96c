"""Values and edits at hook points, beside hooks on transformers' modules with the same weights.

Of tiny random models, and of the real Gemma 3 270M where its checkpoint is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import gemma_libtorch
import pytest
import tiny
import torch
from gemma_libtorch.lens import LensModel
from test_transformers import CONFIGS as ALL
from test_transformers import assert_close, hf_model

NAMES = ("gemma1_mqa", "gemma1_mha", "gemma2", "gemma3", "gemma3_scaled", "gemma3_270m")
LAYER = 1
MODELING = {"GEMMA_1": "gemma", "GEMMA_2": "gemma2", "GEMMA_3": "gemma3"}

Edit = Callable[[torch.Tensor], torch.Tensor]


def real_model() -> Any:
    checkpoint = tiny.GEMMA_3_270M_FOLDER / "model.ckpt"
    if not checkpoint.exists():
        pytest.skip("no checkpoints/gemma-3-270m: run scripts/fetch_gemma_3_270m.py")
    config = tiny.make_config(gemma_libtorch, tiny.GEMMA_3_270M, dtype="float32")
    model = gemma_libtorch.model.GemmaForCausalLM(config).eval()
    model.load_weights(str(checkpoint))
    return model


class Pair:
    """A LensModel and transformers' model, and a hook on the latter at a place with a name."""

    def __init__(self, name: str) -> None:
        if name == "gemma3_270m":
            fields, model = tiny.GEMMA_3_270M, real_model()
            self.ids = torch.tensor([model.tokenizer.encode("The capital of France is")])
        else:
            fields = ALL[name]
            model = tiny.make_model(gemma_libtorch, fields, "float32")
            self.ids = tiny.random_ids((2, 9), fields["vocab_size"])
        self.lens = LensModel(model)
        self.theirs = hf_model(model, fields)
        self.is_first = fields["architecture"] == "GEMMA_1"
        package = f"transformers.models.{MODELING[fields['architecture']]}"
        self.modeling = importlib.import_module(
            f"{package}.modeling_{MODELING[fields['architecture']]}"
        )
        self.head_dim = fields["head_dim"]

    def module(self, name: str) -> Any:
        layer = self.theirs.model.layers[LAYER]
        tree = {"embed": self.theirs.model.embed_tokens, "layer": layer}
        tree |= {"ln_final": self.theirs.model.norm, "unembed": self.theirs.lm_head}
        return tree[name] if name in tree else layer.get_submodule(name)

    def names(self) -> dict[str, tuple[str, str]]:
        """Of each hook point, transformers' module and whether its input or its output is it."""
        block = f"blocks.{LAYER}"
        places = {
            "hook_embed": ("embed", "out"),
            f"{block}.hook_resid_pre": ("layer", "in"),
            f"{block}.ln1.hook_in": ("input_layernorm", "in"),
            f"{block}.ln1.hook_out": ("input_layernorm", "out"),
            f"{block}.attn.hook_q": ("self_attn.q_proj", "out"),
            f"{block}.attn.hook_k": ("self_attn.k_proj", "out"),
            f"{block}.attn.hook_v": ("self_attn.v_proj", "out"),
            f"{block}.attn.hook_z": ("self_attn.o_proj", "in"),
            f"{block}.attn.hook_out": ("self_attn.o_proj", "out"),
            f"{block}.mlp.hook_in": ("mlp", "in"),
            f"{block}.mlp.hook_pre": ("mlp.gate_proj", "out"),
            f"{block}.mlp.hook_pre_linear": ("mlp.up_proj", "out"),
            f"{block}.mlp.hook_post": ("mlp.down_proj", "in"),
            f"{block}.mlp.hook_out": ("mlp", "out"),
            f"{block}.hook_resid_post": ("layer", "out"),
            "ln_final.hook_in": ("ln_final", "in"),
            "ln_final.hook_out": ("ln_final", "out"),
            "unembed.hook_out": ("unembed", "out"),
        }
        if self.is_first:
            places[f"{block}.hook_attn_out"] = ("self_attn.o_proj", "out")
            places[f"{block}.hook_mlp_out"] = ("mlp", "out")
            places[f"{block}.hook_mlp_in"] = ("post_attention_layernorm", "in")
            places[f"{block}.ln2.hook_out"] = ("post_attention_layernorm", "out")
        else:
            places[f"{block}.hook_attn_out"] = ("post_attention_layernorm", "out")
            places[f"{block}.ln1_post.hook_in"] = ("post_attention_layernorm", "in")
            places[f"{block}.hook_mlp_in"] = ("pre_feedforward_layernorm", "in")
            places[f"{block}.ln2.hook_out"] = ("pre_feedforward_layernorm", "out")
            places[f"{block}.ln2_post.hook_in"] = ("post_feedforward_layernorm", "in")
            places[f"{block}.hook_mlp_out"] = ("post_feedforward_layernorm", "out")
        if "blocks.0.attn.q_norm.hook_in" in self.lens.hook_dict:
            for letter in "qk":
                for end in ("in", "out"):
                    point = f"{block}.attn.{letter}_norm.hook_{end}"
                    places[point] = (f"self_attn.{letter}_norm", end)
        return places

    def run_theirs(
        self, place: tuple[str, str], edit: Edit | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The value at a place, and the logits when it is edited there."""
        name, end = place
        seen = []

        def before(_module: Any, args: tuple[Any, ...]) -> Any:
            seen.append(args[0])
            return None if edit is None else (edit(args[0]), *args[1:])

        def after(_module: Any, _args: Any, output: Any) -> Any:
            value = output[0] if isinstance(output, tuple) else output
            seen.append(value)
            return None if edit is None else edit(value)

        module = self.module(name)
        if end == "in":
            handle = module.register_forward_pre_hook(before)
        else:
            handle = module.register_forward_hook(after)
        logits = self.theirs(self.ids).logits
        handle.remove()
        return seen[0], logits

    def in_their_layout(self, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Ours of heads, [B, L, heads, D], as theirs: [B, L, heads * D], or [B, heads, L, D]."""
        if value.dim() == 4 and like.dim() == 4 and value.shape != like.shape:
            return value.transpose(1, 2)
        return value.flatten(2) if value.dim() == 4 and like.dim() == 3 else value


@pytest.fixture(params=NAMES, scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    yield Pair(request.param)


def test_values_are_those_of_transformers(pair: Pair) -> None:
    names = pair.names()
    _, cache = pair.lens.run_with_cache(pair.ids, names_filter=list(names))
    for point, place in names.items():
        want, _ = pair.run_theirs(place)
        try:
            assert_close(pair.in_their_layout(cache[point], want), want)
        except AssertionError as error:
            raise AssertionError(point) from error


def test_edits_have_the_effect_that_they_have_in_transformers(pair: Pair) -> None:
    plain = pair.lens(pair.ids)

    def edit(value: torch.Tensor) -> torch.Tensor:
        scale = torch.linspace(0.25, 1.5, value.size(-1))
        return value * scale

    def our_edit(value: torch.Tensor, hook: Any) -> torch.Tensor:
        _, place = pair.names()[hook.name], value
        if value.dim() == 4 and not hook.name.endswith(("norm.hook_in", "norm.hook_out")):
            return edit(place.flatten(2)).view(value.shape)
        return edit(value)

    for point, place in pair.names().items():
        got = pair.lens.run_with_hooks(pair.ids, fwd_hooks=[(point, our_edit)])
        _, want = pair.run_theirs(place, edit)
        assert not torch.equal(got, plain), point
        try:
            assert_close(got, want)
        except AssertionError as error:
            raise AssertionError(point) from error
    torch.testing.assert_close(pair.lens(pair.ids), plain, rtol=0, atol=0)


def test_attention_is_that_of_transformers(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, torch.Tensor] = {}
    theirs = pair.modeling.eager_attention_forward
    edit: list[str] = []

    def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **kw: Any) -> Any:
        if module.layer_idx != LAYER:
            return theirs(module, query, key, value, mask, **kw)
        if "rot_q" in edit:
            query = query * 0.5
        if "rot_k" in edit:
            key = key * 0.5
        output, pattern = theirs(module, query, key, value, mask, **kw)
        if "pattern" in edit:
            pattern = pattern * 0.5
            groups = query.size(1) // value.size(1)
            output = (pattern @ value.repeat_interleave(groups, 1)).transpose(1, 2)
        seen.update(rot_q=query.transpose(1, 2), rot_k=key.transpose(1, 2), pattern=pattern)
        return output, pattern

    monkeypatch.setattr(pair.modeling, "eager_attention_forward", attention)
    names = [f"blocks.{LAYER}.attn.hook_{name}" for name in ("rot_q", "rot_k", "pattern")]
    pair.theirs(pair.ids)
    _, cache = pair.lens.run_with_cache(pair.ids, names_filter=names)
    for name, want in dict(seen).items():
        assert_close(cache[name, LAYER], want)
    for name in names:
        edit[:] = [name.removeprefix(f"blocks.{LAYER}.attn.hook_")]
        got = pair.lens.run_with_hooks(
            pair.ids, fwd_hooks=[(name, lambda value, hook: value * 0.5)]
        )
        assert_close(got, pair.theirs(pair.ids).logits)


def test_norms_are_those_of_transformers(pair: Pair) -> None:
    points = [name for name in pair.lens.hook_dict if name.endswith("hook_normalized")]
    points = [name for name in points if name.startswith((f"blocks.{LAYER}.", "ln_final"))]
    both = points + [name.replace("normalized", "scale") for name in points]
    _, cache = pair.lens.run_with_cache(pair.ids, names_filter=both)
    for point in points:
        norm = point.removesuffix(".hook_normalized")
        component = pair.lens.get_component(norm)
        place = {
            "ln1": "input_layernorm",
            "ln1_post": "post_attention_layernorm",
            "ln2": "post_attention_layernorm" if pair.is_first else "pre_feedforward_layernorm",
            "ln2_post": "post_feedforward_layernorm",
            "q_norm": "self_attn.q_norm",
            "k_norm": "self_attn.k_norm",
            "ln_final": "ln_final",
        }[norm.rpartition(".")[2]]
        taken, _ = pair.run_theirs((place, "in"))
        given, _ = pair.run_theirs((place, "out"))
        taken, given = (
            x.transpose(1, 2) if x.shape[:3] != cache[point].shape[:3] else x
            for x in (taken, given)
        )
        assert_close(cache[point] * component.w, given)
        scale = cache[point.replace("normalized", "scale")]
        assert scale.shape == (*taken.shape[:-1], 1)
        assert_close(scale, (taken.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt())
