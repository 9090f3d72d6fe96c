"""Logits of transformers' Gemma, Gemma 2 and Gemma 3, from the same weights: an oracle that shares
no code with us.
"""

from __future__ import annotations

from typing import Any

import gemma_libtorch
import pytest
import tiny
import torch

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TOLERANCE = 1e-5  # Relative to the largest logit: in float32 the two only sum in another order.
PROMPT_LEN, STEPS = 9, 6  # The windows are 1, 3 and 4.

HF_CLASSES = {
    "GEMMA_1": (transformers.GemmaConfig, transformers.GemmaForCausalLM),
    "GEMMA_2": (transformers.Gemma2Config, transformers.Gemma2ForCausalLM),
    "GEMMA_3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
}
HF_LAYER_TYPES = {tiny.LOCAL: "sliding_attention", tiny.GLOBAL: "full_attention"}

# Theirs always have both norms around the MLP, norms of queries and keys in Gemma 3 only, and a
# scale in Gemma 2 and 3 only.
CONFIGS = {
    "gemma1_mqa": tiny.CONFIGS["gemma1_mqa"],
    "gemma1_mha": {**tiny.CONFIGS["gemma1_mha"], "query_pre_attn_scalar": None},
    "gemma2": {**tiny.CONFIGS["gemma2"], "query_pre_attn_scalar": 144},
    "gemma2_one_key_window": {
        **tiny.CONFIGS["gemma2_one_key_window"],
        "num_hidden_layers": 2,
        "attn_logit_softcapping": 50.0,
        "use_post_ffw_norm": True,
    },
    "gemma2_all_global": {**tiny.CONFIGS["gemma2_all_global"], "use_pre_ffw_norm": True},
    "gemma3": tiny.CONFIGS["gemma3"],
    "gemma3_mha": {
        **tiny.CONFIGS["gemma3_mha"],
        "rope_wave_length": {tiny.LOCAL: 5_000, tiny.GLOBAL: 77_000},
    },
    "gemma3_scaled": {**tiny.CONFIGS["gemma3"], "rope_scaling_factor": 8},
}


def layer_types(fields: dict[str, Any]) -> list[str]:
    types = fields.get("attn_types") or [tiny.GLOBAL]
    return [HF_LAYER_TYPES[types[i % len(types)]] for i in range(fields["num_hidden_layers"])]


def hf_config(fields: dict[str, Any]) -> Any:
    same = ("vocab_size", "max_position_embeddings", "num_hidden_layers", "num_attention_heads")
    same += ("num_key_value_heads", "hidden_size", "intermediate_size", "head_dim")
    values = {name: fields[name] for name in same}
    if fields["architecture"] != "GEMMA_1":
        values |= {
            "layer_types": layer_types(fields),
            "sliding_window": fields["sliding_window_size"],
            "query_pre_attn_scalar": fields.get("query_pre_attn_scalar") or fields["head_dim"],
            "attn_logit_softcapping": fields.get("attn_logit_softcapping"),
            "final_logit_softcapping": fields.get("final_logit_softcapping"),
        }
    if fields["architecture"] == "GEMMA_3":
        bases = fields["rope_wave_length"]
        values["rope_parameters"] = {
            HF_LAYER_TYPES[name]: {"rope_type": "default", "rope_theta": float(bases[name])}
            for name in (tiny.LOCAL, tiny.GLOBAL)
        }
        if factor := fields.get("rope_scaling_factor"):
            scaled = {"rope_type": "linear", "factor": float(factor)}
            values["rope_parameters"]["full_attention"] |= scaled
    config_class, _ = HF_CLASSES[fields["architecture"]]
    return config_class(**values, attn_implementation="eager", use_cache=True)


def hf_state(model: Any) -> dict[str, torch.Tensor]:
    """Our weights under the names of transformers."""
    state = {}
    for name, value in model.named_parameters():
        if name == "embedder.weight":
            state["model.embed_tokens.weight"] = state["lm_head.weight"] = value
        elif name.endswith("qkv_proj.weight"):
            config = model.config
            kv_size = config.num_key_value_heads * config.head_dim
            parts = value.split([config.num_attention_heads * config.head_dim, kv_size, kv_size])
            for letter, part in zip("qkv", parts, strict=True):
                state[name.replace("qkv_proj", f"{letter}_proj")] = part
        else:
            state[name.replace("query_norm", "q_norm").replace("key_norm", "k_norm")] = value
    return state


def hf_model(model: Any, fields: dict[str, Any]) -> Any:
    _, model_class = HF_CLASSES[fields["architecture"]]
    theirs = model_class(hf_config(fields)).eval()
    theirs.load_state_dict(hf_state(model))
    return theirs


def assert_close(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCE * want.abs().max().item())


def our_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits of every position [B, L, V]: forward() gives those of one, so once for each."""
    batch, length = ids.shape
    mask, local_mask = tiny.make_masks(model.config, length)
    rows = [
        model(
            input_token_ids=ids,
            input_positions=torch.arange(length),
            kv_write_indices=None,
            kv_caches=tiny.make_caches(model.config, batch, length),
            mask=mask,
            output_positions=torch.tensor([position]),
            local_mask=local_mask,
            **tiny.greedy(batch),
        )[1]
        for position in range(length)
    ]
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_of_every_position_are_those_of_transformers(name: str) -> None:
    ours = tiny.make_model(gemma_libtorch, CONFIGS[name], "float32")
    theirs = hf_model(ours, CONFIGS[name])
    ids = tiny.random_ids((3, PROMPT_LEN), CONFIGS[name]["vocab_size"])
    assert_close(our_logits(ours, ids), theirs(ids).logits)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_of_decoding_are_those_of_transformers(name: str) -> None:
    ours = tiny.make_model(gemma_libtorch, CONFIGS[name], "float32")
    theirs = hf_model(ours, CONFIGS[name])
    ids = tiny.random_ids((2, PROMPT_LEN + STEPS), CONFIGS[name]["vocab_size"])
    prompt, feed = ids[:, :PROMPT_LEN], ids[:, PROMPT_LEN:]
    run = tiny.decode(ours, prompt, STEPS, tiny.greedy(2), feed)
    got = torch.stack([run[f"logits.{i}"] for i in range(STEPS + 1)], dim=1)
    # Theirs in one pass: their cache of a window keeps one key too many when the window is 1.
    assert_close(got, theirs(ids).logits[:, PROMPT_LEN - 1 :])


# --- text and images ------------------------------------------------------------------------------

MULTIMODAL = {
    **tiny.MULTIMODAL,
    "vocab_size": tiny.VOCAB_SIZE,
    "hidden_size": 60,
    "vision_config": {
        **tiny.SIGLIP,
        "embedding_dim": 24,  # Theirs is always heads times head_dim.
        "num_attention_heads": 3,
        "head_dim": 8,
        "image_size": 32,
        "conv2d_patch_size": 4,
        "encoding_sequence_length": 4,
    },
}
# Images as the published models take them: 4096 patches that become 256 tokens.
OFFICIAL_SIZE = {
    **MULTIMODAL,
    "max_position_embeddings": 1024,
    "vision_config": {
        **MULTIMODAL["vision_config"],
        "image_size": 896,
        "conv2d_patch_size": 14,
        "encoding_sequence_length": 256,
    },
}


def hf_multimodal_config(config: dict[str, Any]) -> Any:
    text = hf_config(config)
    fields = config["vision_config"]
    vision = transformers.SiglipVisionConfig(
        hidden_size=fields["embedding_dim"],
        intermediate_size=fields["intermediate_size"],
        num_hidden_layers=fields["num_hidden_layers"],
        num_attention_heads=fields["num_attention_heads"],
        image_size=fields["image_size"],
        patch_size=fields["conv2d_patch_size"],
        vision_use_head=False,
    )
    return transformers.Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=fields["encoding_sequence_length"],
        image_token_index=0,
        attn_implementation="eager",
    )


def hf_multimodal_state(model: Any) -> dict[str, torch.Tensor]:
    state = {}
    for name, value in hf_state(model).items():
        if name == "text_token_embedder.weight":
            state["model.language_model.embed_tokens.weight"] = state["lm_head.weight"] = value
        elif name == "mm_input_projection.weight":
            state["model.multi_modal_projector.mm_input_projection_weight"] = value.T
        elif name == "mm_soft_embedding_norm.weight":
            state["model.multi_modal_projector.mm_soft_emb_norm.weight"] = value
        elif name.startswith("siglip_vision_model."):
            for ours, theirs in (
                ("siglip_vision_model.", "model.vision_tower."),
                ("encoder_blocks.", "encoder.layers."),
                ("o_proj", "out_proj"),
                ("final_norm", "post_layernorm"),
                ("patch_embedding", "embeddings.patch_embedding"),
                ("position_embedding", "embeddings.position_embedding"),
            ):
                name = name.replace(ours, theirs)
            state[name] = value
        else:
            state["model.language_model." + name.removeprefix("model.")] = value
    return state


def assert_same_logits_after_images(
    ours: Any, theirs: Any, fields: dict[str, Any], rows: int = 2
) -> None:
    size = fields["vision_config"]["image_size"]
    image = [0] * fields["vision_config"]["encoding_sequence_length"]
    prompt = torch.tensor([[2, 5, *image, 6, *image, 9, 17], [2, *image, 7, 11, 12, *image, 8]])
    prompt = prompt[:rows]
    feed = tiny.random_ids((rows, STEPS), fields["vocab_size"] - 1) + 1
    patches = torch.randn(rows, 2, 3, size, size).clamp(-1, 1)
    is_text = torch.arange(prompt.shape[1] + STEPS).expand(rows, -1) >= prompt.shape[1]
    run = tiny.decode_images(
        ours,
        prompt,
        STEPS,
        tiny.greedy(rows),
        feed,
        is_text,
        image_patches=patches,
        image_presence_mask=torch.ones((rows, 2), dtype=torch.bool),
    )
    got = torch.stack([run[f"logits.{i}"] for i in range(STEPS + 1)], dim=1)
    ids = torch.cat([prompt, feed], dim=1)
    want = theirs(
        input_ids=ids, pixel_values=patches.flatten(0, 1), token_type_ids=(ids == 0).long()
    )
    assert_close(got, want.logits[:, prompt.shape[1] - 1 :])


def hf_multimodal_model(ours: Any, fields: dict[str, Any]) -> Any:
    theirs = transformers.Gemma3ForConditionalGeneration(hf_multimodal_config(fields)).eval()
    theirs.load_state_dict(hf_multimodal_state(ours))
    return theirs


@pytest.mark.parametrize("numerics", ["exact", "fast"])
@pytest.mark.parametrize(
    ("fields", "rows"), [(MULTIMODAL, 2), (OFFICIAL_SIZE, 1)], ids=["small", "official_size"]
)
def test_logits_after_images_are_those_of_transformers(
    fields: dict[str, Any], rows: int, numerics: str
) -> None:
    ours = tiny.make_multimodal(gemma_libtorch, **fields)
    theirs = hf_multimodal_model(ours, fields)
    ours.set_numerics(numerics)
    assert_same_logits_after_images(ours, theirs, fields, rows)
