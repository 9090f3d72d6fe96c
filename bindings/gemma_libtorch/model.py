"""model.py of gemma_pytorch."""

from ._C import (
    Embedding,
    Gemma2DecoderLayer,
    GemmaAttention,
    GemmaDecoderLayer,
    GemmaForCausalLM,
    GemmaMLP,
    GemmaModel,
    Linear,
    LoadProgress,
    LoadReport,
    Module,
    RMSNorm,
    Sampler,
    apply_rotary_emb,
    precompute_freqs_cis,
)

__all__ = [
    "Embedding",
    "Gemma2DecoderLayer",
    "GemmaAttention",
    "GemmaDecoderLayer",
    "GemmaForCausalLM",
    "GemmaMLP",
    "GemmaModel",
    "Linear",
    "LoadProgress",
    "LoadReport",
    "Module",
    "RMSNorm",
    "Sampler",
    "apply_rotary_emb",
    "precompute_freqs_cis",
]
