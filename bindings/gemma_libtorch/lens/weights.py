"""The weights of a model as TransformerLens orders them: inputs first. Of a quantised model they
are floats, made when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .. import _C

if TYPE_CHECKING:
    from .components import Block


class Weights:
    """LensModel's part about weights. H heads, d their size, E hidden, F ffn, V vocabulary."""

    cfg: Any
    model: Any
    blocks: list[Block]
    to_single_token: Any

    def zeros(self, *sizes: int) -> torch.Tensor:
        return torch.zeros(*sizes, dtype=self.cfg.dtype, device=self.cfg.device)

    @property
    def W_E(self) -> torch.Tensor:
        """[V, E], not scaled: the model multiplies its rows by the root of E."""
        embedder = self.model.get_submodule(self._embedder_name)
        if not embedder.quant:
            return embedder.weight
        return embedder(torch.arange(self.cfg.d_vocab, device=self.cfg.device))

    @property
    def _embedder_name(self) -> str:
        names = dict(self.model.named_children())
        return "embedder" if "embedder" in names else "text_token_embedder"

    @property
    def W_U(self) -> torch.Tensor:
        """[E, V]."""
        return self.W_E.T

    @property
    def b_U(self) -> torch.Tensor:
        return self.zeros(self.cfg.d_vocab)

    def _stacked(self, part: str, name: str) -> torch.Tensor:
        return torch.stack([getattr(getattr(block, part), name) for block in self.blocks])

    def __getattr__(self, name: str) -> Any:
        """W_Q, W_K, W_V, W_O, W_gate, W_in and W_out of all layers, and their biases, of zeros."""
        if name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"):
            return self._stacked("attn", name)
        if name in ("W_gate", "W_in", "W_out", "b_in", "b_out"):
            return self._stacked("mlp", name)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> torch.Tensor:
        """[E]: zeros, as Gemma has no biases."""
        return self.zeros(self.cfg.d_model)

    def tokens_to_residual_directions(self, tokens: Any) -> torch.Tensor:
        """Of a text that is one token, an id, or ids [...]: their columns of W_U, [..., E]."""
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        ids = torch.as_tensor(tokens)
        if ids.numel() == 1:
            ids = ids.reshape(())
        return self.W_U.T[ids]

    def attend(self, attention: Any, x: torch.Tensor) -> torch.Tensor:
        """An attention by itself over texts from position 0 on: [B, L, E] -> [B, L, E]."""
        length = x.size(1)
        positions = torch.arange(length, device=x.device)
        heads = (x.size(0), length, attention.num_kv_heads, attention.head_dim)
        cache = (x.new_zeros(heads), x.new_zeros(heads))
        distance = positions[:, None] - positions
        masked = torch.finfo(torch.float32).min
        hidden = distance < 0
        mask = torch.zeros(length, length).masked_fill(hidden, masked)[None, None]
        local_mask = None
        if attention.sliding_window_size is not None:
            hidden = hidden | (distance >= attention.sliding_window_size)
            local_mask = torch.zeros(length, length).masked_fill(hidden, masked)[None, None]
        return attention(x, self._freqs_cis(attention)[:length], positions, cache, mask, local_mask)

    def _freqs_cis(self, attention: Any) -> torch.Tensor:
        tables = dict(self.model.named_buffers())
        if "freqs_cis" in tables:
            return tables["freqs_cis"]
        is_local = attention.attn_type == _C.AttentionType.LOCAL_SLIDING
        return tables["local_freqs_cis" if is_local else "global_freqs_cis"]
