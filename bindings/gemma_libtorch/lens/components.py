"""A model's parts under TransformerLens' names, each of which computes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from .. import _C

if TYPE_CHECKING:
    from .model import LensModel


def matrix(linear: Any) -> torch.Tensor:
    """The weight of a Linear, [out, in], as floats."""
    if not linear.quant:
        return linear.weight
    columns = linear.weight.size(1) * (2 if linear.weight.dtype == torch.uint8 else 1)
    return linear(torch.eye(columns, device=linear.weight.device)).T


class Component:
    """A part of a model: called with its input, it computes. Its hook points, its parts and its
    weights are attributes.
    """

    def __init__(self, name: str, lens: LensModel, compute: Callable[..., Any]) -> None:
        self.name = name
        self._lens = lens
        self._compute = compute

    def __call__(self, *args: Any) -> Any:
        return self._compute(*args)

    def add_hook(self, hook: Callable[..., Any], dir: str = "fwd") -> None:
        """At `hook_out`."""
        self.hook_out.add_hook(hook, dir)

    def remove_hooks(self) -> None:
        """Those at `hook_in` and `hook_out`."""
        for end in ("hook_in", "hook_out"):
            point = self._lens.hook_dict.get(f"{self.name}.{end}")
            if point is not None:
                point.remove_hooks("both")

    def __getattr__(self, attribute: str) -> Any:
        """A hook point below: blocks[0].attn.hook_pattern."""
        if not attribute.startswith("_"):
            point = self._lens.hook_dict.get(f"{self.name}.{attribute}")
            if point is not None:
                return point
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{attribute}'")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Norm(Component):
    """An RMSNorm; `w` is what it multiplies by, 1 + weight, in float32."""

    def __init__(self, name: str, lens: LensModel, module: Any) -> None:
        super().__init__(name, lens, module)
        self.module = module

    @property
    def w(self) -> torch.Tensor:
        return self.module.weight.float() + 1


class Attention(Component):
    """An attention: [B, L, E] after the norm -> [B, L, E]. H heads of size d, K key heads."""

    def __init__(self, name: str, lens: LensModel, module: Any) -> None:
        super().__init__(name, lens, self._attend)
        self.module = module
        sizes = (module.q_size, module.kv_size, module.kv_size)
        for part, (letter, size) in enumerate(zip("qkv", sizes, strict=True)):
            rows = slice(sum(sizes[:part]), sum(sizes[:part]) + size)
            setattr(self, letter, Component(f"{name}.{letter}", lens, self._projection(rows)))
        self.o = Component(f"{name}.o", lens, module.o_proj)
        if module.query_norm is not None:
            self.q_norm = Norm(f"{name}.q_norm", lens, module.query_norm)
            self.k_norm = Norm(f"{name}.k_norm", lens, module.key_norm)

    def _projection(self, rows: slice) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: self.module.qkv_proj(x)[..., rows]

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        return self._lens.attend(self.module, x)

    def _heads(self, begin: int, heads: int) -> torch.Tensor:
        d = self.module.head_dim
        rows = matrix(self.module.qkv_proj)[begin : begin + heads * d]
        return rows.unflatten(0, (heads, d)).transpose(1, 2)

    @property
    def W_Q(self) -> torch.Tensor:
        """[H, E, d]."""
        return self._heads(0, self.module.num_heads)

    @property
    def _W_K(self) -> torch.Tensor:
        return self._heads(self.module.q_size, self.module.num_kv_heads)

    @property
    def _W_V(self) -> torch.Tensor:
        begin = self.module.q_size + self.module.kv_size
        return self._heads(begin, self.module.num_kv_heads)

    @property
    def W_K(self) -> torch.Tensor:
        """[H, E, d]: of each query head, the key head that it looks at. `_W_K` is [K, E, d]."""
        return self._W_K.repeat_interleave(self.module.num_queries_per_kv, 0)

    @property
    def W_V(self) -> torch.Tensor:
        """[H, E, d], likewise."""
        return self._W_V.repeat_interleave(self.module.num_queries_per_kv, 0)

    @property
    def W_O(self) -> torch.Tensor:
        """[H, d, E]."""
        heads = (self.module.num_heads, self.module.head_dim)
        return matrix(self.module.o_proj).unflatten(1, heads).permute(1, 2, 0)

    @property
    def b_O(self) -> torch.Tensor:
        return self._lens.zeros(self._lens.cfg.d_model)

    @property
    def b_Q(self) -> torch.Tensor:
        return self._lens.zeros(self.module.num_heads, self.module.head_dim)

    b_K = b_V = b_Q


class Mlp(Component):
    """down(gelu(gate(x)) * up(x)): [B, L, E] after the norm -> [B, L, E]."""

    def __init__(self, name: str, lens: LensModel, module: Any) -> None:
        super().__init__(name, lens, module)
        self.module = module
        self.gate = Component(f"{name}.gate", lens, module.gate_proj)
        setattr(self, "in", Component(f"{name}.in", lens, module.up_proj))
        self.out = Component(f"{name}.out", lens, module.down_proj)

    @property
    def W_gate(self) -> torch.Tensor:
        """[E, F]."""
        return matrix(self.module.gate_proj).T

    @property
    def W_in(self) -> torch.Tensor:
        """[E, F]."""
        return matrix(self.module.up_proj).T

    @property
    def W_out(self) -> torch.Tensor:
        """[F, E]."""
        return matrix(self.module.down_proj).T

    @property
    def b_in(self) -> torch.Tensor:
        return self._lens.zeros(self._lens.cfg.d_mlp)

    @property
    def b_out(self) -> torch.Tensor:
        return self._lens.zeros(self._lens.cfg.d_model)


class Block(Component):
    """A layer: residual [B, L, E] -> [B, L, E]."""

    def __init__(self, number: int, lens: LensModel, layer: Any) -> None:
        super().__init__(f"blocks.{number}", lens, lambda x: lens.run_layers(x, number, number + 1))
        self.attn = Attention(f"{self.name}.attn", lens, layer.self_attn)
        self.mlp = Mlp(f"{self.name}.mlp", lens, layer.mlp)
        self.ln1 = Norm(f"{self.name}.ln1", lens, layer.input_layernorm)
        self.norm_after_attention: Norm | None = None
        after_attention = layer.post_attention_layernorm
        if isinstance(layer, _C.GemmaDecoderLayer):
            self.ln2: Norm | None = Norm(f"{self.name}.ln2", lens, after_attention)
            return
        self.ln1_post = Norm(f"{self.name}.ln1_post", lens, after_attention)
        self.norm_after_attention = self.ln1_post
        before_mlp, after_mlp = layer.pre_feedforward_layernorm, layer.post_feedforward_layernorm
        self.ln2 = None if before_mlp is None else Norm(f"{self.name}.ln2", lens, before_mlp)
        if after_mlp is not None:
            self.ln2_post = Norm(f"{self.name}.ln2_post", lens, after_mlp)


class Embed(Component):
    """Ids [B, L] -> [B, L, E], times the root of E."""

    @property
    def W_E(self) -> torch.Tensor:
        """[V, E], not scaled."""
        return self._lens.W_E


class Unembed(Component):
    """[B, L, E] after the last norm -> logits [B, L, V] before their soft cap."""

    @property
    def W_U(self) -> torch.Tensor:
        """[E, V]."""
        return self._lens.W_U

    @property
    def b_U(self) -> torch.Tensor:
        return self._lens.b_U
