"""An EmbeddingGemma small enough to compare in full, as a directory of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny
import torch

HIDDEN, DENSE = 24, (40, 20)

TEXT: dict[str, Any] = {
    "vocab_size": tiny.VOCAB_SIZE,
    "hidden_size": HIDDEN,
    "intermediate_size": 36,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 300,
    "query_pre_attn_scalar": 8,
    "sliding_window": 12,  # Of both sides: 7 with the token itself.
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "use_bidirectional_attention": True,
}
PROMPTS = {"query": "task: search result | query: ", "document": "title: none | text: "}


def state(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random weights under the names of Gemma3TextModel, as the published file has them."""

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator) * (sizes[-1] ** -0.5)

    hidden, head = TEXT["hidden_size"], TEXT["head_dim"]
    heads, kv_heads = TEXT["num_attention_heads"], TEXT["num_key_value_heads"]
    names = {"norm.weight": random(hidden)}
    names["embed_tokens.weight"] = random(TEXT["vocab_size"], hidden)
    for i in range(TEXT["num_hidden_layers"]):
        layer = {
            "self_attn.q_proj": (heads * head, hidden),
            "self_attn.k_proj": (kv_heads * head, hidden),
            "self_attn.v_proj": (kv_heads * head, hidden),
            "self_attn.o_proj": (hidden, heads * head),
            "self_attn.q_norm": (head,),
            "self_attn.k_norm": (head,),
            "mlp.gate_proj": (TEXT["intermediate_size"], hidden),
            "mlp.up_proj": (TEXT["intermediate_size"], hidden),
            "mlp.down_proj": (hidden, TEXT["intermediate_size"]),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
            "pre_feedforward_layernorm": (hidden,),
            "post_feedforward_layernorm": (hidden,),
        }
        names |= {f"layers.{i}.{name}.weight": random(*sizes) for name, sizes in layer.items()}
    return names


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


def save(directory: Path, **changes: Any) -> Path:
    """A directory as sentence-transformers 5 saves it; `changes` are fields of config.json."""
    generator = torch.Generator().manual_seed(3)
    base = {"model_type": "gemma3_text", "dtype": "float32"}
    write_json(directory / "config.json", base | TEXT | changes)
    torch.save(state(generator), directory / "pytorch_model.bin")
    kinds = ["Transformer", "Pooling", "Dense", "Dense", "Normalize"]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    write_json(directory / "modules.json", modules)
    write_json(
        directory / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": HIDDEN,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "include_prompt": True,
        },
    )
    width = HIDDEN
    for i, features in enumerate(DENSE):
        folder = directory / f"{i + 2}_Dense"
        fields = {"in_features": width, "out_features": features, "bias": False}
        fields["activation_function"] = "torch.nn.modules.linear.Identity"
        write_json(folder / "config.json", fields)
        weight = torch.randn(features, width, generator=generator) * width**-0.5
        torch.save({"linear.weight": weight}, folder / "pytorch_model.bin")
        width = features
    write_json(
        directory / "config_sentence_transformers.json",
        {"prompts": PROMPTS, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    write_json(
        directory / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False}
    )
    (directory / "tokenizer.model").write_bytes(tiny.TOKENIZER.read_bytes())
    return directory
