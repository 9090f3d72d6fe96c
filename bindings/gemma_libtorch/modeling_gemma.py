"""modeling_gemma.py of Hugging Face transformers: norm and rotary embedding."""

from ._C import GemmaRMSNorm, GemmaRotaryEmbedding, apply_rotary_pos_emb

__all__ = ["GemmaRMSNorm", "GemmaRotaryEmbedding", "apply_rotary_pos_emb"]
