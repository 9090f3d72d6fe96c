"""What each head's queries, keys and values are made of, as points of their own."""

from __future__ import annotations

import functools
from typing import Any

import torch

from .hooks import HookPoint, Tap

PARTS = {"hook_q_input": "q", "hook_k_input": "k", "hook_v_input": "v", "hook_attn_in": "qkv"}
"""Which projections each takes its input to."""


class InputPoint(HookPoint):
    """The residual [B, L, E] once for each head: [B, L, H, E] of queries, [B, L, K, E] of keys and
    values. What a hook changes there is normed and projected for that head alone.
    """

    def __init__(self, name: str, model: Any) -> None:
        super().__init__(name, model)
        self._parts = PARTS[name.rsplit(".", 1)[1]]
        self._changed: torch.Tensor | None = None

    @property
    def is_on(self) -> bool:
        """As the switches say: one that chooses all points means the model as it is."""
        cfg = self._model.cfg
        return cfg.use_attn_in if self._parts == "qkv" else cfg.use_split_qkv_input

    def taps(self) -> list[Tap]:
        block = self.name.rsplit(".", 1)[0]
        projections = [
            (f"{block}.attn.hook_{part}", functools.partial(self._project, part))
            for part in self._parts
        ]
        return [(f"{block}.ln1.hook_in", self._see), *projections]

    def _see(self, residual: torch.Tensor, site: Any) -> None:
        cfg = self._model.cfg
        heads = cfg.n_heads if "q" in self._parts else cfg.n_key_value_heads
        same = residual.unsqueeze(2).expand(-1, -1, heads, -1)
        given = same.clone()
        result = self.fire(given, site)
        result = given if result is None else result
        self._changed = None if torch.equal(result, same) else result
        if self._changed is not None and self._parts == "qkv" and heads != cfg.n_key_value_heads:
            raise ValueError(
                f"LensModel: {self.name} was changed, but the model has {heads} heads and "
                f"{cfg.n_key_value_heads} of keys; change hook_q_input, hook_k_input, hook_v_input"
            )

    def _project(self, part: str, value: torch.Tensor, site: Any) -> torch.Tensor | None:
        if self._changed is None:
            return None
        block = self._model.blocks[self.layer()]
        x = self._changed.float()
        # The module would call its own hooks.
        normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self._model.cfg.eps)
        normed = (normed * block.ln1.w).to(value.dtype)
        weights = {"q": block.attn.W_Q, "k": block.attn._W_K, "v": block.attn._W_V}
        return torch.einsum("blhe,hed->blhd", normed, weights[part])
