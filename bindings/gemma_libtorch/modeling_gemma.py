"""modeling_gemma.py of Hugging Face transformers: norm and rotary embedding."""

from ._C import GemmaRotaryEmbedding, apply_rotary_pos_emb
from ._C import RMSNorm as GemmaRMSNorm  # One layer: transformers took it from gemma_pytorch.

__all__ = ["GemmaRMSNorm", "GemmaRotaryEmbedding", "apply_rotary_pos_emb"]
