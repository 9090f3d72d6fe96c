"""PaliGemmas of transformers that are small enough to compare in full."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import tiny
import torch

IMAGE_SIZE, PATCH_SIZE = 16, 4
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
WINDOW = 5  # Far shorter than an image.

_TEXT = {
    "vocab_size": tiny.VOCAB_SIZE,
    "max_position_embeddings": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "hidden_size": 60,  # Its root is exact in no dtype.
    "intermediate_size": 52,
    "head_dim": 24,
}
_GEMMA_2 = {
    **_TEXT,
    "model_type": "gemma2",
    "num_key_value_heads": 2,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "query_pre_attn_scalar": 20,
    "attn_logit_softcapping": 5.7,
    "final_logit_softcapping": 3.3,
}
_VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 28,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
    "vision_use_head": False,
}
# What a config.json says. Of the places of images one is a token of the vocabulary, one is not.
CONFIGS: dict[str, dict[str, Any]] = {
    "paligemma": {
        "model_type": "paligemma",
        "text_config": {**_TEXT, "model_type": "gemma"},
        "vision_config": _VISION,
        "projection_dim": 60,
        "image_token_index": 77,
    },
    "paligemma2": {
        "model_type": "paligemma",
        "text_config": _GEMMA_2,
        "vision_config": _VISION,
        "projection_dim": 60,
        "image_token_index": 5000,
    },
}


# Smaller ones still, for tests/golden/paligemma.pt.
GOLDEN_CONFIGS: dict[str, dict[str, Any]] = {
    name: {
        **config,
        "text_config": {
            **config["text_config"],
            "vocab_size": 61,
            "hidden_size": 20,
            "intermediate_size": 12,
            "head_dim": 6,
        },
        "vision_config": {**_VISION, "hidden_size": 12, "intermediate_size": 10},
        "projection_dim": 20,
        "torch_dtype": "float32",
    }
    for name, config in CONFIGS.items()
}


def make_theirs(transformers: Any, config: dict[str, Any]) -> Any:
    """With eager attention, in float32."""
    config = transformers.PaliGemmaConfig.from_dict(config)
    config._attn_implementation = "eager"
    config.text_config._attn_implementation = config.vision_config._attn_implementation = "eager"
    theirs = tiny.randomize(transformers.PaliGemmaForConditionalGeneration(config)).eval()
    # Small, or else the likeliest token would be the one before it.
    with torch.no_grad():
        theirs.model.language_model.embed_tokens.weight.mul_(0.1)
    return theirs


def make_ours(package: ModuleType, fields: dict[str, Any]) -> Any:
    """Random, without transformers."""
    text = tiny.make_config(package, fields, dtype="float32")
    vision = tiny.make_siglip_config(package, image_size=IMAGE_SIZE, conv2d_patch_size=PATCH_SIZE)
    config = package.paligemma.PaliGemmaConfig(text, vision, text.hidden_size)
    return tiny.randomize(package.paligemma.PaliGemmaForConditionalGeneration(config)).eval()


def prompt(name: str, prefix: int, suffix: int = 0, seed: int = 3) -> dict[str, torch.Tensor]:
    """An image, `prefix` tokens of text and `suffix` ones that follow."""
    rng = torch.Generator().manual_seed(seed)
    image = torch.full((1, IMAGE_TOKENS), CONFIGS[name]["image_token_index"])
    text = torch.randint(3, 60, (1, prefix + suffix), generator=rng)
    ids = torch.cat([image, text], dim=1)
    types = torch.zeros_like(ids)
    types[:, IMAGE_TOKENS + prefix :] = 1
    pixels = torch.rand((1, 3, IMAGE_SIZE, IMAGE_SIZE), generator=rng) * 2 - 1
    return {"input_ids": ids, "pixel_values": pixels, "token_type_ids": types}


def save(theirs: Any, folder: Path) -> Path:
    """As a directory of Hugging Face, with a tokenizer."""
    theirs.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tiny.TOKENIZER.read_bytes())
    return folder
