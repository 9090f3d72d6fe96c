"""How much of what a head writes each later head reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .components import Block
    from .config import LensConfig


class Labels(list[str]):
    """What is a property in TransformerLens 4 and a method before: a list that may be called."""

    def __call__(self) -> Labels:
        return self


class Composition:
    """LensModel's part about heads. A transformer circuit's W_OV is W_V W_O, its W_QK is
    W_Q W_K^T; both [E, E] of rank d.
    """

    cfg: LensConfig
    blocks: list[Block]

    @property
    def all_head_labels(self) -> Labels:
        """ "L0H0", "L0H1" and so on."""
        return Labels(
            f"L{i}H{j}" for i in range(self.cfg.n_layers) for j in range(self.cfg.n_heads)
        )

    def all_composition_scores(self, mode: str) -> torch.Tensor:
        """|W_OV W| / (|W_OV| |W|) of an earlier head's W_OV and a later one's W, [layers, H,
        layers, H]; W is W_QK for mode "Q", its transpose for "K", W_OV for "V". Else zeros.
        """
        if mode not in ("Q", "K", "V"):
            raise ValueError(f"mode must be one of ['Q', 'K', 'V'] not '{mode}'")
        writers = [(block.attn.W_V.float(), block.attn.W_O.float()) for block in self.blocks]
        queries = [block.attn.W_Q.float() for block in self.blocks]
        keys = [block.attn.W_K.float() for block in self.blocks]
        readers = {
            "Q": [(q, k.mT) for q, k in zip(queries, keys, strict=True)],
            "K": [(k, q.mT) for q, k in zip(queries, keys, strict=True)],
            "V": writers,
        }[mode]
        layers, heads = self.cfg.n_layers, self.cfg.n_heads
        scores = torch.zeros(layers, heads, layers, heads, device=self.cfg.device)
        for earlier in range(layers):
            for later in range(earlier + 1, layers):
                scores[earlier, :, later] = _compose(*writers[earlier], *readers[later])
        return scores


def _compose(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """|A B C D| / (|A B| |C D|) of each pair of heads, [H, H]; A, C [H, E, d], B, D [H, d, E]."""
    inner = torch.einsum("ide,jef->ijdf", b, c)
    left, right = a.mT @ a, d @ d.mT  # |A X D|^2 is the trace of A'A X DD' X': none is [E, E].
    whole = torch.einsum("iab,ijbc,jcd,ijad->ij", left, inner, right, inner)
    norms = torch.einsum("iab,iab->i", left, b @ b.mT)[:, None]
    norms = norms * torch.einsum("jab,jab->j", c.mT @ c, right)
    return (whole.clamp(min=0) / norms).sqrt()
