"""Transformers of Hugging Face as the reference: Gemma 1, 2 and 3, and the text part of the latter."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ..config import Architecture, AttentionType
from .beside import LanguageModelBeside
from .capture import submodule
from .pairs import Layout, Names, Pair, Place, layers

_LAYER_TYPES = {
    AttentionType.GLOBAL: ("global_freqs_cis", "full_attention"),
    AttentionType.LOCAL_SLIDING: ("local_freqs_cis", "sliding_attention"),
}


def _as_complex(tables: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """cos and sin [1, L, D], each half the same -> [L, D / 2]."""
    cos, sin = (table[0].float().chunk(2, dim=-1)[0] for table in tables)
    return torch.complex(cos, sin)


class Transformers(LanguageModelBeside):
    title = "transformers"
    rotation = "apply_rotary_pos_emb"

    def _pairs(self) -> Iterable[Pair]:
        is_nested = submodule(self.theirs, "model.language_model") is not None
        text = "model.language_model" if is_nested else "model"
        names = Names(
            layers=f"{text}.layers",
            split_projections=True,
            query_norm="q_norm",
            key_norm="k_norm",
            heads_first=True,
            has_pattern=True,
        )
        yield Pair(f"{self._embedder()}.hook_out", (), "no module there: see model.hook_in")
        yield Pair("model.hook_in", (Place(f"{text}.embed_tokens"),))
        layout: Layout = _as_complex
        if self.ours.config.architecture != Architecture.GEMMA_3:
            table = Place(f"{text}.rotary_emb", "table", layout)
            yield Pair("freqs_cis", (table,), position_dim=0)
        else:
            used = {layer.attn_type for layer in self.ours.model.layers}
            for kind, (name, theirs) in _LAYER_TYPES.items():
                if kind in used:
                    table = Place(f"{text}.rotary_emb", f"table.{theirs}", layout)
                    yield Pair(name, (table,), position_dim=0)
        yield from layers(self.ours, names)
        yield Pair("model.norm.hook_out", (Place(f"{text}.norm"),))
        yield Pair("hook_logits", (Place("lm_head"),))
        yield Pair("logits", (Place("", "logits"),))

    def _run_theirs(self) -> None:
        self.theirs(input_ids=self.ids, use_cache=False)

    def _logits(self) -> torch.Tensor:
        return self.ours.logits(self.ids)


def package_of() -> ModuleType:
    """Raises ValueError where transformers is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ValueError(f"--reference transformers: {error}; install transformers") from error


def load(package: ModuleType, ours: Any, path: Path) -> tuple[Any, str]:
    """The reference with the weights of our model's file, and which loader read them. Raises
    ValueError for a model that transformers does not have.
    """
    is_multimodal = ours.config.vision_config is not None
    auto = "AutoModelForImageTextToText" if is_multimodal else "AutoModelForCausalLM"
    factory, dtype = getattr(package, auto), ours.config.get_dtype()
    # Eager attention alone returns its weights.
    options = {"attn_implementation": "eager", "dtype": dtype}
    if (path / "config.json").is_file():
        return factory.from_pretrained(path, **options).eval(), "its own from_pretrained"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(ours.config.to_hf())
        config = package.AutoConfig.from_pretrained(folder)
    model = factory.from_config(config, **options).eval()
    state = ours.to_transformers_state_dict(*([model] if is_multimodal else []))
    model.load_state_dict(state, strict=False)
    return model, "the loader of gemma_libtorch"
