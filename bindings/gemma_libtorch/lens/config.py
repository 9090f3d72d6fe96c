"""The sizes and facts of a model under TransformerLens' names."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..model import LanguageModel


@dataclasses.dataclass
class LensConfig:
    """What `LensModel.cfg` holds. `set_use_attn_result` changes `use_attn_result`, alone."""

    model_name: str
    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    device: torch.device
    dtype: torch.dtype
    eps: float
    attn_scores_soft_cap: float | None
    output_logits_soft_cap: float | None
    window_size: int | None
    act_fn: str = "gelu_pytorch_tanh"
    normalization_type: str = "RMS"
    positional_embedding_type: str = "rotary"
    final_rms: bool = True
    uses_rms_norm: bool = True
    rmsnorm_uses_offset: bool = True  # The norms multiply by 1 + weight.
    gated_mlp: bool = True
    attn_only: bool = False
    default_prepend_bos: bool = True
    use_attn_result: bool = False
    use_attn_in: bool = False
    use_split_qkv_input: bool = False
    use_hook_mlp_in: bool = False

    @property
    def d_vocab_out(self) -> int:
        return self.d_vocab


def config_of(model: LanguageModel) -> LensConfig:
    """Of a model as it is now."""
    config = model.config
    weight = next(model.parameters())
    return LensConfig(
        model_name=config.architecture.name.lower().replace("_", "-"),
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        n_key_value_heads=config.num_key_value_heads,
        d_model=config.hidden_size,
        d_head=config.head_dim,
        d_mlp=config.intermediate_size,
        d_vocab=config.vocab_size,
        n_ctx=config.max_position_embeddings,
        device=weight.device,
        dtype=config.get_dtype(),
        eps=config.rms_norm_eps,
        attn_scores_soft_cap=config.attn_logit_softcapping,
        output_logits_soft_cap=config.final_logit_softcapping,
        window_size=config.sliding_window_size,
    )
