"""Modules of every class that can be constructed, of tiny models."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gemma_libtorch
import tiny
import tiny_embedding
import tiny_griffin
import tiny_paligemma


def make() -> dict[type, list[Any]]:
    """By class; of each form that has other parts."""
    made: dict[type, list[Any]] = {}
    roots = [tiny.make_model(gemma_libtorch, fields, "float32") for fields in tiny.CONFIGS.values()]
    roots.append(tiny.make_model(gemma_libtorch, tiny.CONFIGS["gemma3"], "float32", quant=True))
    roots.append(tiny.make_multimodal(gemma_libtorch, "float32"))
    roots.append(gemma_libtorch.modeling_gemma.GemmaRotaryEmbedding(8))
    with tempfile.TemporaryDirectory() as folder:
        directory = tiny_embedding.save(Path(folder))
        roots.append(gemma_libtorch.embedding.EmbeddingGemma.from_pretrained(directory))
    for name in ("gemma1_mqa", "gemma2"):
        roots.append(tiny_paligemma.make_ours(gemma_libtorch, tiny.CONFIGS[name]))
    for fields in tiny_griffin.CONFIGS.values():
        roots.append(tiny_griffin.make(gemma_libtorch.recurrentgemma, fields, "float32"))
    for root in roots:
        for module in root.modules():
            made.setdefault(type(module), []).append(module)
    return made
