"""A pytest plugin, with which TransformerLens' own tests get a LensModel where they load a model.

LENS_CONFIG names the tiny model of tiny.py; the tokenizer has a token for each name of their texts.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import gemma_libtorch
import tiny
import torch
import transformer_lens
from gemma_libtorch.lens import LensModel
from transformer_lens.model_bridge import TransformerBridge

# Heads, of queries as of keys, and layers, which some tests know of their models.
_SIZES = {"solu-1l": (4, 1), "solu-2l": (4, 2)}
_OF_GPT2 = (12, 4)
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_NAMES = ("Mary", "John", "Tom", "James", "Dan", "Sid", "Martin", "Amy")
_PIECES = (*(_SPACE + name for name in _NAMES), "hello")


@functools.cache
def _tokenizer() -> Path:
    folder = Path(tempfile.mkdtemp())
    return tiny.tokenizer_with(folder / "tokenizer.model", *_PIECES)


class _Lens(LensModel):
    """With their cache, and with the switch that their models need to have the older names."""

    def run_with_cache(self, *args: Any, return_cache_object: bool = True, **kwargs: Any) -> Any:
        result, cache = super().run_with_cache(*args, **kwargs)
        if not return_cache_object:
            return result, cache.cache_dict
        return result, transformer_lens.ActivationCache(
            cache.cache_dict, self, has_batch_dim=cache.has_batch_dim
        )

    def enable_compatibility_mode(self, **_: Any) -> None:
        pass


def _make(heads: int, layers: int, **changes: int) -> LensModel:
    fields = {
        **tiny.CONFIGS[os.environ["LENS_CONFIG"]],
        "vocab_size": tiny.VOCAB_SIZE + len(_PIECES),
        "tokenizer": str(_tokenizer()),
        "max_position_embeddings": 1024,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "num_hidden_layers": layers,
        "sliding_window_size": 64,  # Their texts repeat at a distance, which heads must see.
        **changes,
    }
    model = tiny.make_model(gemma_libtorch, fields, "float32")
    with torch.no_grad():
        model.embedder.weight.mul_(0.1)  # As their tolerances are absolute.
    model.requires_grad_()
    return _Lens(model)


class _HookedTransformer:
    """Their class, as far as a test makes models by it."""

    def __new__(cls, cfg: Any, **_: Any) -> Any:
        return _make(cfg.n_heads, cfg.n_layers, vocab_size=cfg.d_vocab)

    @classmethod
    def from_pretrained(cls, name: str, **_: Any) -> LensModel:
        return _make(*_SIZES.get(name, _OF_GPT2))

    from_pretrained_no_processing = from_pretrained


transformer_lens.HookedTransformer = _HookedTransformer
TransformerBridge.boot_transformers = _HookedTransformer.from_pretrained
