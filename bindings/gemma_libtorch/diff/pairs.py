"""Which values of a model and of its reference are one and the same: a table for each reference.

Points of ours have the names of docs/hooks.md. Rows stand in the order of execution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

_MEANINGS = {
    "model.hook_in": "the embedding after its scale",
    "freqs_cis": "a table of the rotation",
    ".hook_q": "queries",
    ".hook_k": "keys",
    ".hook_v": "values",
    ".hook_rot_q": "queries after the rotation",
    ".hook_rot_k": "keys after the rotation",
    ".hook_pattern": "the weights of the attention",
    ".hook_z": "the sum of values by the attention's weights",
    ".down_proj.hook_in": "the activation of gate, times up",
    ".hook_resid_mid": "the residual after the attention",
    "hook_logits": "logits before their soft cap",
}
"""Of points that are no module's output, by the ends of their names."""

Layout = Callable[[Any], torch.Tensor]


def _as_is(value: torch.Tensor) -> torch.Tensor:
    return value


@dataclass(frozen=True)
class Place:
    """A value in the reference."""

    module: str
    """Its path."""
    part: str = "out"
    """"out", the module's output, or its first; "out.1"; "logits"; "in", its first input; "query"
    and "key", what the rotation inside of it gives; "buffer." and a name; "table." and the type of
    attention, what a rotary embedding gives.
    """
    layout: Layout = _as_is
    """To the layout of ours."""

    def __str__(self) -> str:
        if self.part == "out":
            return self.module
        if not self.module:
            return self.part.removeprefix("buffer.")
        return f"{self.module} ({self.part.replace('.', ' ')})"


@dataclass(frozen=True)
class Pair:
    """A value that both compute."""

    point: str
    """Its name in our model; empty when we have none."""
    places: tuple[Place, ...] = ()
    """In the reference: the first of them that it has."""
    note: str = ""
    """Why one side has no module of its own."""
    position_dim: int | None = 1
    """The dimension of tokens."""
    layer: int | None = None
    is_fused: bool = False
    """Whether fast numerics compute it as a part of something larger."""

    @property
    def name(self) -> str:
        """The module's path, where the value is its output; else the point's name."""
        return self.point.removesuffix(".hook_out")

    @property
    def meaning(self) -> str:
        """What the value is, where the name is not that of a module; else empty."""
        return next((words for end, words in _MEANINGS.items() if self.point.endswith(end)), "")


def heads_of(head_dim: int) -> Layout:
    """[B, L, H * D] -> [B, L, H, D]."""
    return lambda value: value.unflatten(-1, (-1, head_dim))


def _transposed(value: torch.Tensor) -> torch.Tensor:
    """[B, H, L, D] -> [B, L, H, D]."""
    return value.transpose(1, 2)


@dataclass(frozen=True)
class Names:
    """What tables differ in."""

    layers: str = "model.layers"
    """The list of the reference's layers."""
    split_projections: bool = False
    """Whether queries, keys and values have a projection each."""
    query_norm: str = "query_norm"
    key_norm: str = "key_norm"
    heads_first: bool = False
    """Whether heads stand before tokens in queries and keys: [B, H, L, D]."""
    has_pattern: bool = False
    """Whether the attention returns its weights."""


def _attention(layer: Any, head_dim: int, names: Names) -> Iterator[Pair]:
    heads, flip = heads_of(head_dim), _transposed if names.heads_first else _as_is
    if names.split_projections:
        for letter in "qkv":
            place = Place(f"self_attn.{letter}_proj", layout=heads)
            yield Pair(f"self_attn.hook_{letter}", (place,))
        yield Pair(
            "self_attn.qkv_proj.hook_out", (), "three matrices there: see hook_q, hook_k, hook_v"
        )
    else:
        yield Pair("self_attn.qkv_proj.hook_out", (Place("self_attn.qkv_proj"),))
    if layer.self_attn.query_norm is not None:
        for ours, theirs in (("query_norm", names.query_norm), ("key_norm", names.key_norm)):
            place = Place(f"self_attn.{theirs}", layout=flip)
            yield Pair(f"self_attn.{ours}.hook_out", (place,), is_fused=True)
    for letter, part in (("q", "query"), ("k", "key")):
        place = Place("self_attn", part, flip)
        yield Pair(f"self_attn.hook_rot_{letter}", (place,), is_fused=True)
    if names.has_pattern:
        place = Place("self_attn", "out.1")
        yield Pair("self_attn.hook_pattern", (place,), position_dim=2, is_fused=True)
    yield Pair("self_attn.hook_z", (Place("self_attn.o_proj", "in", heads),))
    yield Pair("self_attn.o_proj.hook_out", (Place("self_attn.o_proj"),))
    yield Pair("self_attn.hook_out", (Place("self_attn"),))


def _feed_forward() -> Iterator[Pair]:
    for part in ("gate_proj", "up_proj"):
        yield Pair(f"mlp.{part}.hook_out", (Place(f"mlp.{part}"),), is_fused=True)
    yield Pair("mlp.down_proj.hook_in", (Place("mlp.down_proj", "in"),), is_fused=True)
    yield Pair("mlp.down_proj.hook_out", (Place("mlp.down_proj"),), is_fused=True)
    yield Pair("mlp.hook_out", (Place("mlp"),))


def _layer(layer: Any, head_dim: int, names: Names) -> Iterator[Pair]:
    """Of one layer, by names below it."""
    is_first = not hasattr(layer, "pre_feedforward_layernorm")  # Gemma 1.
    yield Pair("input_layernorm.hook_out", (Place("input_layernorm"),))
    yield from _attention(layer, head_dim, names)
    if is_first:
        before = ("post_attention_layernorm", "pre_feedforward_layernorm")  # VaultGemma's name.
        inputs = tuple(Place(name, "in") for name in (*before, "mlp"))
        yield Pair("hook_resid_mid", inputs)
        yield Pair(f"{before[0]}.hook_out", tuple(map(Place, before)))
        yield from _feed_forward()
    else:
        after = "post_attention_layernorm"
        yield Pair(f"{after}.hook_out", (Place(after),), is_fused=True)
        if layer.pre_feedforward_layernorm is None:
            yield Pair("hook_resid_mid", (Place("mlp", "in"),))
        else:
            before_mlp = "pre_feedforward_layernorm"
            yield Pair("hook_resid_mid", (Place(before_mlp, "in"), Place("mlp", "in")))
            yield Pair(f"{before_mlp}.hook_out", (Place(before_mlp),))
        yield from _feed_forward()
        if layer.post_feedforward_layernorm is not None:
            after = "post_feedforward_layernorm"
            yield Pair(f"{after}.hook_out", (Place(after),), is_fused=True)
    yield Pair("hook_out", (Place(""),))


def _joined(*words: str) -> str:
    return ".".join(word for word in words if word)


def layers(model: Any, names: Names) -> Iterator[Pair]:
    """Of all layers of one of our language models."""
    for i, layer in enumerate(model.model.layers):
        for pair in _layer(layer, model.config.head_dim, names):
            places = tuple(
                replace(place, module=_joined(names.layers, str(i), place.module))
                for place in pair.places
            )
            point = f"model.layers.{i}.{pair.point}"
            yield replace(pair, point=point, places=places, layer=i)
