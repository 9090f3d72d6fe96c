"""modeling_gemma.py of Hugging Face transformers: norm and rotary embedding, in C++.

Shapes: B batch, T tokens, H query heads, K key/value heads, D head dim. The models here rotate by
the reference's complex tables (model.precompute_freqs_cis); this is for code that was written
against transformers.
"""

import torch

from .model import Module, RMSNorm

# One layer of two names.
GemmaRMSNorm = RMSNorm

class GemmaRotaryEmbedding(Module):
    """Cosines and sines of the angles by which queries and keys are rotated.

    The constructor takes the numbers, as that of transformers' first releases, not a config.
    """

    inv_freq: torch.Tensor
    """float32 [dim / 2]: base^(-2i / dim)."""
    def __init__(
        self, dim: int, max_position_embeddings: int = 2048, base: float = 10000.0
    ) -> None:
        """max_position_embeddings has no effect: there is no table.

        Raises ValueError for a dim that is not even or not above 0, a max_position_embeddings below
        1, or a base that is not above 0.
        """
    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """position_ids [B, T] -> (cos, sin), [B, T, dim] each.

        Computed in float32, and returned in x's dtype; nothing else of x is used. The second half
        of dim repeats the first. Raises ValueError for position_ids of another shape.
        """
    @property
    def dim(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int: ...
    @property
    def base(self) -> float: ...

def apply_rotary_pos_emb(
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    unsqueeze_dim: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotates the pairs (i, i + D / 2) in q's and k's own dtype.

    q [B, H, T, D], k [B, K, T, D], cos and sin [B, T, D] -> (q, k); with unsqueeze_dim 2, q and k
    are [B, T, heads, D].
    """
