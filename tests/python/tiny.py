"""Models small enough to compare in full: configs, random weights, and a decoding loop.

A config is a dict of plain values here ("GEMMA_3", "LOCAL_SLIDING"), so that it can be given to
gemma_libtorch, to the reference, and to JSON. `package` is any module with `config` and `model` in
it: gemma_libtorch, or the reference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "tests" / "data" / "tiny.model"
VOCAB_SIZE = 451

LOCAL, GLOBAL = "LOCAL_SLIDING", "GLOBAL"
MASKED = -2.3819763e38

_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 60,  # Its square root is exact in no dtype.
    "intermediate_size": 52,
    "head_dim": 24,
    "tokenizer": str(TOKENIZER),
}
_GEMMA_1 = {**_COMMON, "architecture": "GEMMA_1"}
_GEMMA_2 = {
    **_COMMON,
    "architecture": "GEMMA_2",
    "num_key_value_heads": 2,
    "attn_types": [LOCAL, GLOBAL],
    "sliding_window_size": 3,
    "final_logit_softcapping": 3.3,
    "attn_logit_softcapping": 5.7,
    "use_pre_ffw_norm": True,
    "use_post_ffw_norm": True,
}
_GEMMA_3 = {
    **_COMMON,
    "architecture": "GEMMA_3",
    "num_key_value_heads": 1,
    "attn_types": [LOCAL] * 5 + [GLOBAL],
    "sliding_window_size": 4,
    "use_pre_ffw_norm": True,
    "use_post_ffw_norm": True,
    "rope_wave_length": {LOCAL: 10_000, GLOBAL: 1_000_000},
    "use_qk_norm": True,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "gemma1_mqa": {**_GEMMA_1, "num_key_value_heads": 1},
    "gemma1_mha": {**_GEMMA_1, "num_key_value_heads": 4, "query_pre_attn_scalar": 13},
    "gemma2": {**_GEMMA_2, "num_hidden_layers": 3},
    "gemma2_one_key_window": {
        **_GEMMA_2,
        "num_hidden_layers": 1,
        "attn_types": [LOCAL, GLOBAL] * 2,
        "sliding_window_size": 1,
        "use_post_ffw_norm": False,
        "query_pre_attn_scalar": 9,
        "attn_logit_softcapping": None,
    },
    "gemma2_without_window": {
        **_GEMMA_2,
        "sliding_window_size": None,
        "use_pre_ffw_norm": False,
        "use_post_ffw_norm": False,
        "final_logit_softcapping": None,
    },
    "gemma2_all_global": {**_GEMMA_2, "attn_types": None, "use_pre_ffw_norm": False},
    "gemma3": {**_GEMMA_3, "num_hidden_layers": 7},
    "gemma3_mha": {
        **_GEMMA_3,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": 10,
        "vocab_size": 457,
        "sliding_window_size": 1,
        "query_pre_attn_scalar": 168,
        "rope_wave_length": {GLOBAL: 1_000_000},
    },
    "gemma3_all_global": {
        **_GEMMA_3,
        "num_key_value_heads": 2,
        "attn_types": None,
        "sliding_window_size": 3,
        "use_qk_norm": False,
        "rope_wave_length": {LOCAL: 5_000},
    },
}

# A vision model whose pictures become 4 tokens: 8 x 8 patches.
SIGLIP: dict[str, Any] = {
    "num_hidden_layers": 2,
    "embedding_dim": 20,
    "input_channels": 3,
    "image_size": 896,
    "conv2d_patch_size": 112,
    "num_attention_heads": 3,
    "head_dim": 10,
    "intermediate_size": 28,
    "encoding_sequence_length": 4,
}

GEMMA_3_270M_FOLDER = ROOT / "checkpoints" / "gemma-3-270m"
# Of the real one.
GEMMA_3_270M: dict[str, Any] = {
    "architecture": "GEMMA_3",
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "use_pre_ffw_norm": True,
    "use_post_ffw_norm": True,
    "head_dim": 256,
    "attn_types": [LOCAL] * 5 + [GLOBAL],
    "sliding_window_size": 512,
    "rope_wave_length": {LOCAL: 10_000, GLOBAL: 1_000_000},
    "vocab_size": 262_144,
    "max_position_embeddings": 32_768,
    "tokenizer": str(GEMMA_3_270M_FOLDER / "tokenizer.model"),
    "use_qk_norm": True,
}

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What a caller of the reference wraps around the construction of a model."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    previous = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def make_config(package: ModuleType, fields: dict[str, Any], **changes: Any) -> Any:
    config = package.config
    fields = {**fields, **changes}
    fields["architecture"] = config.Architecture[fields["architecture"]]
    if fields.get("attn_types") is not None:
        fields["attn_types"] = [config.AttentionType[name] for name in fields["attn_types"]]
    if fields.get("rope_wave_length") is not None:
        bases = fields["rope_wave_length"]
        fields["rope_wave_length"] = {config.AttentionType[name]: bases[name] for name in bases}
    if fields.get("vision_config") is not None:
        fields["vision_config"] = make_siglip_config(package, **fields["vision_config"])
    return config.GemmaConfig(**fields)


def make_siglip_config(package: ModuleType, **changes: Any) -> Any:
    fields = {**SIGLIP, **changes}
    patch_size = fields.pop("conv2d_patch_size")
    config = package.siglip_vision.config.SiglipVisionModelConfig(**fields)
    config.conv2d_patch_size = patch_size  # No parameter: in the reference it is the class's.
    return config


# Gemma 3 with that vision model, and room for the reference's ids of an image's ends.
MULTIMODAL: dict[str, Any] = {
    **_GEMMA_3,
    "vocab_size": 256_001,
    "max_position_embeddings": 256,
    "num_hidden_layers": 3,
    "hidden_size": 12,
    "attn_types": [LOCAL, GLOBAL],
    "sliding_window_size": 6,
    "rope_scaling_factor": 8,
    "vision_config": SIGLIP,
}


_USER_DEFINED, _UNUSED = 4, 5  # As sentencepiece_model.proto numbers the types of pieces.


def _tokenizer_with(path: Path, texts: Iterable[str], type: int) -> Path:
    with path.open("wb") as file:
        file.write(TOKENIZER.read_bytes())
        for text in map(str.encode, texts):
            piece = bytes([0x0A, len(text)]) + text + bytes([0x18, type])
            file.write(bytes([0x0A, len(piece)]) + piece)  # One more of ModelProto.pieces.
    return path


def tokenizer_with(path: Path, *markers: str) -> Path:
    """The tiny one with these pieces behind its own, found in text before all others."""
    return _tokenizer_with(path, markers, _USER_DEFINED)


def large_tokenizer(path: Path) -> Path:
    """The tiny one with as many pieces as MULTIMODAL wants; those that are added are unused."""
    numbers = range(VOCAB_SIZE, MULTIMODAL["vocab_size"])
    return _tokenizer_with(path, (f"<unused{i}>" for i in numbers), _UNUSED)


def make_multimodal(
    package: ModuleType, dtype: str = "float32", quant: bool = False, **changes: Any
) -> Any:
    config = make_config(package, {**MULTIMODAL, **changes}, dtype=dtype, quant=quant)
    with default_dtype(DTYPES[dtype]):
        model = package.gemma3_model.Gemma3ForMultimodalLM(config)
    return randomize(model).eval()


def random_tensor(tensor: torch.Tensor, name: str, rng: torch.Generator) -> torch.Tensor:
    """Values for a parameter: any int8, positive scales, floats that do not overflow float16."""
    shape = tensor.shape
    if tensor.dtype == torch.int8:
        return torch.randint(-127, 128, shape, generator=rng, dtype=torch.int8)
    if name.endswith("weight_scaler"):
        return ((0.5 + torch.rand(shape, generator=rng, dtype=torch.float32)) / 400).to(
            tensor.dtype
        )
    return (torch.randn(shape, generator=rng, dtype=torch.float32) * 0.2).to(tensor.dtype)


def randomize(module: Any, seed: int = 1) -> Any:
    """Fills a module; modules with the same parameters get the same values."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(random_tensor(parameter, name, rng))
    return module


def make_model(package: ModuleType, fields: dict[str, Any], dtype: str, quant: bool = False) -> Any:
    config = make_config(package, fields, dtype=dtype, quant=quant)
    with default_dtype(DTYPES[dtype]):
        model = package.model.GemmaForCausalLM(config)
    return randomize(model).eval()


def save_checkpoint(model: Any, folder: Path) -> Path:
    """model.ckpt in `folder`, which says what model it is, and the tokenizer beside it."""
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}
    path = folder / "model.ckpt"
    torch.save({"model_state_dict": state, "config.json": model.config.to_hf()}, path)
    (folder / "tokenizer.model").write_bytes(TOKENIZER.read_bytes())
    return path


def make_caches(config: Any, batch: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    size = (batch, length, config.num_key_value_heads, config.head_dim)
    dtype = config.get_dtype()
    return [
        (torch.zeros(size, dtype=dtype), torch.zeros(size, dtype=dtype))
        for _ in range(config.num_hidden_layers)
    ]


def make_masks(config: Any, length: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The two masks over `length` positions, as the reference's generate() makes them."""
    full = torch.full((1, 1, length, length), MASKED, dtype=torch.float32)
    mask = torch.triu(full, diagonal=1)
    window = config.sliding_window_size
    return mask, None if window is None else mask + torch.tril(full, diagonal=-window)


def random_ids(shape: tuple[int, ...], vocab_size: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(0, vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def sampling(batch: int, **changes: list[float]) -> dict[str, torch.Tensor]:
    """Sampling arguments that differ from row to row."""
    rows = {
        "temperatures": [0.7, 1.3, 1.0, 2.0],
        "top_ps": [0.9, 1.0, 0.5, 0.95],
        "top_ks": [40, 5, 1, 400],
        **changes,
    }
    values = {name: [row[i % len(row)] for i in range(batch)] for name, row in rows.items()}
    return {
        "temperatures": torch.tensor(values["temperatures"], dtype=torch.float32),
        "top_ps": torch.tensor(values["top_ps"], dtype=torch.float32),
        "top_ks": torch.tensor(values["top_ks"], dtype=torch.int64),
    }


def greedy(batch: int) -> dict[str, torch.Tensor | None]:
    return {**sampling(batch), "temperatures": None}


def decode(
    model: Any,
    prompt: torch.Tensor,
    steps: int,
    choice: dict[str, torch.Tensor | None],
    feed: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Every token, logit and cache, by name, of the prompt [B, L] and then `steps` single tokens.

    The tokens are those of `feed` [B, steps], or else the ones that the model chooses. All is
    computed where the prompt is.
    """
    masks = make_masks(model.config, prompt.shape[1] + steps)
    text = {"kv_write_indices": None}
    return _decode(model, prompt, steps, choice, feed, masks, text, text)


def _decode(
    model: Any,
    prompt: torch.Tensor,
    steps: int,
    choice: dict[str, torch.Tensor | None],
    feed: torch.Tensor | None,
    masks: tuple[torch.Tensor, torch.Tensor | None],
    first: dict[str, Any],
    later: dict[str, Any],
) -> dict[str, torch.Tensor]:
    """`first` and `later` are what else forward takes in the first step and in those after it."""
    batch, prompt_len = prompt.shape
    device = prompt.device
    caches = [
        (k.to(device), v.to(device))
        for k, v in make_caches(model.config, batch, prompt_len + steps)
    ]
    mask, local_mask = (None if m is None else m.to(device) for m in masks)
    choice = {name: None if c is None else c.to(device) for name, c in choice.items()}
    out = {}
    ids, positions = prompt, torch.arange(prompt_len, device=device)
    output_positions = torch.tensor([prompt_len - 1], device=device)
    for step in range(steps + 1):
        tokens, logits = model(
            input_token_ids=ids,
            input_positions=positions,
            kv_caches=caches,
            mask=mask.index_select(2, positions),
            output_positions=output_positions,
            local_mask=None if local_mask is None else local_mask.index_select(2, positions),
            **(later if step else first),
            **choice,
        )
        out[f"tokens.{step}"], out[f"logits.{step}"] = tokens, logits
        ids = tokens.reshape(batch, 1) if feed is None else feed[:, step : step + 1]
        positions = torch.tensor([prompt_len + step], device=device)
        output_positions = torch.tensor(0, device=device)
    for layer, (k, v) in enumerate(caches):
        out[f"cache.{layer}.k"], out[f"cache.{layer}.v"] = k, v
    return out


def decode_images(
    model: Any,
    prompt: torch.Tensor,
    steps: int,
    choice: dict[str, torch.Tensor | None],
    feed: torch.Tensor | None = None,
    is_text: torch.Tensor | None = None,
    **images: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """As decode, of a multimodal model and a prompt with `images`: image_patches and
    image_presence_mask.

    The masks are the reference's for the prompt and as much padding as there are steps; is_text
    [B, L + steps] says where a placeholder's id is no placeholder to the masks.
    """
    padded = torch.nn.functional.pad(prompt, (0, steps))
    if is_text is not None:
        padded = padded.where(~is_text, 5)
    lowest = torch.tensor(torch.finfo(model.config.get_dtype()).min, dtype=torch.float32)
    masks = tuple(
        torch.where(seen, 0, lowest)
        for seen in model.create_attention_mask(padded, padded.shape[1])
    )
    later = {"image_patches": None, "image_presence_mask": None}
    return _decode(model, prompt, steps, choice, feed, masks, images, later)


def logits_of(model: Any) -> torch.Tensor:
    """What the model makes of one fixed prompt: changes when any weight does."""
    prompt = random_ids((1, 5), model.config.vocab_size)
    return decode(model, prompt, 0, greedy(1))["logits.0"]


def assert_same(got: Any, want: Any) -> None:
    """Equal to the last bit, of the same dtype and shape, and no NaN; says where they differ first."""
    torch.testing.assert_close(got, want, rtol=0, atol=0)
