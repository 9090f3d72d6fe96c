"""What the goldens hold, as functions of a package: scripts/make_golden.py calls them with the
reference, test_golden.py with gemma_libtorch.

A golden is a flat dict of tensors, so that a program in C++ can read it as a checkpoint:
  weights.<name>        of the quantised model: int8 weights, float32 scales and norms
  input.<name>          what goes in
  <mode>.<name>         what comes out, for each of MODES
The float models have the same int8 weights times 1/256: exact in each dtype, and small.
"""

from __future__ import annotations

import hashlib
from types import ModuleType
from typing import Any

import tiny
import torch

Tensors = dict[str, torch.Tensor]

MODES = {
    "float32": ("float32", False),
    "bfloat16": ("bfloat16", False),
    "float32_quant": ("float32", True),
    "bfloat16_quant": ("bfloat16", True),
}

_COMMON = {
    "vocab_size": 43,
    "max_position_embeddings": 64,
    "intermediate_size": 23,
    "tokenizer": "tests/data/tiny.model",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gemma1": {
        **_COMMON,
        "architecture": "GEMMA_1",
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "hidden_size": 15,
        "head_dim": 6,
    },
    "gemma2": {
        **_COMMON,
        "architecture": "GEMMA_2",
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 16,
        "head_dim": 10,
        "attn_types": [tiny.LOCAL, tiny.GLOBAL],
        "sliding_window_size": 3,
        "final_logit_softcapping": 3.3,
        "attn_logit_softcapping": 5.7,
        "query_pre_attn_scalar": 7,
        "use_pre_ffw_norm": True,
        "use_post_ffw_norm": True,
    },
    "gemma3": {
        **_COMMON,
        "architecture": "GEMMA_3",
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "hidden_size": 14,
        "head_dim": 24,
        "attn_types": [tiny.LOCAL, tiny.GLOBAL],
        "sliding_window_size": 4,
        "use_pre_ffw_norm": True,
        "use_post_ffw_norm": True,
        "rope_wave_length": {tiny.LOCAL: 10_000, tiny.GLOBAL: 1_000_000},
        "use_qk_norm": True,
    },
}
# Its model is the multimodal one.
MULTIMODAL_CONFIGS = {
    "gemma3_multimodal": {
        **CONFIGS["gemma3"],
        "num_hidden_layers": 2,
        "rope_scaling_factor": 8,
        "vision_config": {
            **tiny.SIGLIP,
            "num_hidden_layers": 1,
            "embedding_dim": 12,
            "head_dim": 6,
            "intermediate_size": 17,
            "image_size": 16,
            "conv2d_patch_size": 2,
        },
    },
}
# The same with the vocabulary of the tokenizer, to generate text.
TEXT_CONFIGS = {
    f"{name}_text": {**fields, "vocab_size": tiny.VOCAB_SIZE} for name, fields in CONFIGS.items()
}

PROMPT_LEN, STEPS, BATCH = 5, 5, 2

PROMPTS = [
    "The ferry leaves",
    "",
    "If the wind is from the north, bring the nets in",
    "Küste 😀\n\n 12",
]
OUTPUT_LEN = 12
CHOICES = {
    "greedy": {"temperature": None},
    "seeded": {"temperature": 1.1, "top_p": 0.95, "top_k": 100},
}
SAMPLING_SEED = 17


def make_config(package: ModuleType, fields: dict[str, Any], dtype: str, quant: bool) -> Any:
    tokenizer = str(tiny.ROOT / fields["tokenizer"])
    return tiny.make_config(package, fields, dtype=dtype, quant=quant, tokenizer=tokenizer)


def model_class(package: ModuleType, fields: dict[str, Any]) -> Any:
    if fields.get("vision_config") is None:
        return package.model.GemmaForCausalLM
    return package.gemma3_model.Gemma3ForMultimodalLM


def make_weights(package: ModuleType, fields: dict[str, Any], rng: torch.Generator) -> Tensors:
    """Random weights by name: small integers times powers of two, so exact in bfloat16."""

    def values(parameter: torch.Tensor, name: str) -> torch.Tensor:
        shape = parameter.shape
        if parameter.dtype == torch.int8:
            return torch.randint(-127, 128, shape, generator=rng, dtype=torch.int8)
        if name.endswith("weight_scaler"):
            return torch.randint(64, 192, shape, generator=rng) / 2**15
        return torch.randint(-64, 65, shape, generator=rng) / 2**7

    config = make_config(package, fields, "float32", quant=True)
    model = model_class(package, fields)(config)
    return {name: values(parameter, name) for name, parameter in model.named_parameters()}


def state_of(weights: Tensors, dtype: str, quant: bool) -> Tensors:
    """The state dict for one mode."""
    if quant:
        return {
            name: value if value.dtype == torch.int8 else value.to(tiny.DTYPES[dtype])
            for name, value in weights.items()
        }
    return {
        name: (value.float() / 256 if value.dtype == torch.int8 else value).to(tiny.DTYPES[dtype])
        for name, value in weights.items()
        if not name.endswith("weight_scaler")
    }


def make_model(package: ModuleType, fields: dict[str, Any], weights: Tensors, mode: str) -> Any:
    dtype, quant = MODES[mode]
    with tiny.default_dtype(tiny.DTYPES[dtype]):
        model = model_class(package, fields)(make_config(package, fields, dtype, quant))
    model.load_state_dict(state_of(weights, dtype, quant), strict=False)
    return model


# --- models ---------------------------------------------------------------------------------------


def make_inputs(fields: dict[str, Any], rng: torch.Generator) -> Tensors:
    hidden = torch.randn((1, PROMPT_LEN, fields["hidden_size"]), generator=rng)
    return {
        "ids": torch.randint(0, fields["vocab_size"], (BATCH, PROMPT_LEN + STEPS), generator=rng),
        "hidden": hidden.bfloat16().float(),
    }


def module_outputs(package: ModuleType, model: Any, inputs: Tensors) -> Tensors:
    """Each kind of module alone, in a local and a global layer."""
    config, positions = model.config, torch.arange(PROMPT_LEN)
    types = package.config.AttentionType
    tables = dict(model.named_buffers())
    freqs_cis = {
        kind: tables.get(f"{name}_freqs_cis", tables.get("freqs_cis"))[:PROMPT_LEN]
        for kind, name in ((types.LOCAL_SLIDING, "local"), (types.GLOBAL, "global"))
    }
    mask, local_mask = tiny.make_masks(config, PROMPT_LEN)
    x = inputs["hidden"].to(config.get_dtype())
    caches = tiny.make_caches(config, 1, PROMPT_LEN)
    rest = {"kv_write_indices": positions, "mask": mask, "local_mask": local_mask}
    out = {"embedder": model.embedder(inputs["ids"]), "norm": model.model.norm(x)}
    out["linear"] = model.model.layers[0].mlp.gate_proj(x)
    for i in (0, 1):
        layer = model.model.layers[i]
        args = {"freqs_cis": freqs_cis[layer.attn_type], "kv_cache": caches[i], **rest}
        out[f"layers.{i}.self_attn"] = layer.self_attn(x, **args)
        out[f"layers.{i}.mlp"] = layer.mlp(x)
        out[f"layers.{i}"] = layer(x, **args)
    out["model"] = model.model(hidden_states=x, freqs_cis=freqs_cis, kv_caches=caches, **rest)
    return {f"modules.{name}": value for name, value in out.items()}


def decoding_outputs(model: Any, inputs: Tensors) -> Tensors:
    """A prompt, then STEPS given tokens one by one; stacked by steps, the caches by layers."""
    prompt, feed = inputs["ids"][:, :PROMPT_LEN], inputs["ids"][:, PROMPT_LEN:]
    torch.manual_seed(SAMPLING_SEED)
    seeded = tiny.decode(model, prompt, STEPS, tiny.sampling(BATCH), feed)
    greedy = tiny.decode(model, prompt, STEPS, tiny.greedy(BATCH), feed)
    steps, layers = range(STEPS + 1), range(model.config.num_hidden_layers)
    return {
        "seeded.tokens": torch.stack([seeded[f"tokens.{i}"] for i in steps]),
        "greedy.tokens": torch.stack([greedy[f"tokens.{i}"] for i in steps]),
        "greedy.logits": torch.stack([greedy[f"logits.{i}"] for i in steps]),
        "caches.k": torch.stack([greedy[f"cache.{i}.k"] for i in layers]),
        "caches.v": torch.stack([greedy[f"cache.{i}.v"] for i in layers]),
    }


def model_outputs(
    package: ModuleType, fields: dict[str, Any], weights: Tensors, inputs: Tensors, mode: str
) -> Tensors:
    model = make_model(package, fields, weights, mode)
    return {**module_outputs(package, model, inputs), **decoding_outputs(model, inputs)}


def make_image_inputs(fields: dict[str, Any], rng: torch.Generator) -> Tensors:
    """A prompt with one image, and one with two that follow each other."""
    size = fields["vision_config"]["image_size"]
    patches = torch.randn((BATCH, 2, 3, size, size), generator=rng).clamp(-1, 1)
    image = [0] * fields["vision_config"]["encoding_sequence_length"]
    prompts = [[2, 5, *image, 6, 9, 11, 3, 8, 7], [2, *image, 4, *image, 10, 12]]
    return {
        "patches": patches.bfloat16().float(),
        "presence": torch.tensor([[True, False], [True, True]]),
        "ids": torch.tensor(prompts),
        "feed": torch.randint(1, fields["vocab_size"], (BATCH, STEPS), generator=rng),
    }


def multimodal_outputs(
    package: ModuleType, fields: dict[str, Any], weights: Tensors, inputs: Tensors, mode: str
) -> Tensors:
    model = make_model(package, fields, weights, mode)
    patches = inputs["patches"].to(model.config.get_dtype())
    ids, choice = inputs["ids"], tiny.greedy(BATCH)
    images = {"image_patches": patches, "image_presence_mask": inputs["presence"]}
    run = tiny.decode_images(model, ids, STEPS, choice, inputs["feed"], **images)
    mask, local_mask = model.create_attention_mask(ids, ids.shape[1])
    return {
        "mask": mask,
        "local_mask": local_mask,
        "vision": model.siglip_vision_model(patches.flatten(0, 1)).clone(),
        "greedy.logits": torch.stack([run[f"logits.{i}"] for i in range(STEPS + 1)]),
    }


def texts(
    package: ModuleType, fields: dict[str, Any], weights: Tensors, mode: str, choice: str
) -> list[str]:
    model = make_model(package, fields, weights, mode)
    torch.manual_seed(SAMPLING_SEED)
    return model.generate(PROMPTS, "cpu", output_len=OUTPUT_LEN, **CHOICES[choice])


# --- functions, and modules that the models above do not contain as such --------------------------

ROPE_TABLES = [
    {"dim": 24, "end": 40, "theta": 10_000, "rope_scaling_factor": 1},
    {"dim": 24, "end": 40, "theta": 1_000_000, "rope_scaling_factor": 8},
    {"dim": 6, "end": 17, "theta": 500, "rope_scaling_factor": 3},
    {"dim": 256, "end": 3, "theta": 1_000_000, "rope_scaling_factor": 1},
]
SAMPLER_VOCAB, SAMPLER_BATCH, DRAWS = 61, 4, 6


def make_function_inputs(rng: torch.Generator) -> Tensors:
    """Named after what takes them. Exact in bfloat16, like all inputs."""
    shapes = {
        "rotary.x": (2, 7, 3, 24),
        "rms_norm.x": (3, 35),
        "rms_norm.weight": (35,),
        "sampler.embedding": (SAMPLER_VOCAB, 8),
        "sampler.hidden_states": (SAMPLER_BATCH, 2, 8),
        "sampler.embedding_bias": (SAMPLER_VOCAB,),
    }
    return {
        name: torch.randn(shape, generator=rng).bfloat16().float() for name, shape in shapes.items()
    }


def rope_tables(package: ModuleType) -> Tensors:
    return {
        "rope." + ".".join(map(str, args.values())): package.model.precompute_freqs_cis(**args)
        for args in ROPE_TABLES
    }


def function_outputs(package: ModuleType, inputs: Tensors, dtype: str) -> Tensors:
    cast = {name: value.to(tiny.DTYPES[dtype]) for name, value in inputs.items()}
    x = cast["rotary.x"]
    freqs_cis = package.model.precompute_freqs_cis(x.shape[-1], x.shape[1])
    out = {"rotary": package.model.apply_rotary_emb(x, freqs_cis)}
    for add_unit_offset in (True, False):
        with tiny.default_dtype(tiny.DTYPES[dtype]):
            norm = package.model.RMSNorm(35, eps=1e-2, add_unit_offset=add_unit_offset)
        norm.weight.copy_(cast["rms_norm.weight"])
        out[f"rms_norm.{'offset' if add_unit_offset else 'plain'}"] = norm(cast["rms_norm.x"])
    for softcap in (None, 3.3):
        for choice in ("greedy", "seeded"):
            name = f"sampler.{'plain' if softcap is None else 'softcap'}.{choice}"
            tokens, logits = draws(package, cast, softcap, choice)
            out[f"{name}.tokens"], out[f"{name}.logits"] = tokens, logits
    return out


def draws(
    package: ModuleType, cast: Tensors, softcap: float | None, choice: str
) -> tuple[torch.Tensor, torch.Tensor]:
    fields = {**CONFIGS["gemma2"], "final_logit_softcapping": softcap}
    sampler = package.model.Sampler(SAMPLER_VOCAB, tiny.make_config(package, fields))
    arguments = tiny.greedy if choice == "greedy" else tiny.sampling
    torch.manual_seed(SAMPLING_SEED)
    results = [
        sampler(
            embedding=cast["sampler.embedding"],
            hidden_states=cast["sampler.hidden_states"],
            output_positions=torch.tensor([1]),
            embedding_bias=cast["sampler.embedding_bias"],
            **arguments(SAMPLER_BATCH),
        )
        for _ in range(DRAWS)
    ]
    return torch.stack([tokens for tokens, _ in results]), results[0][1]


# --- the machine ----------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """What the last bits depend on."""
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "arithmetic": arithmetic(),
    }


def arithmetic() -> str:
    """A fingerprint of how this machine rounds, by LibTorch alone.

    Matrix products and transcendental functions are summed and approximated in ways that differ
    from one processor to another, within one version of LibTorch and one instruction set too.
    """
    rng = torch.Generator().manual_seed(0)
    digest = hashlib.sha256()
    with tiny.threads(1):
        for dtype in (torch.float32, torch.bfloat16):
            for m, k, n in ((1, 20, 64), (2, 24, 33), (5, 15, 47), (10, 36, 61)):
                a = torch.randn((3, m, k), generator=rng).to(dtype)
                b = torch.randn((3, k, n), generator=rng).to(dtype)
                for result in sample_operations(a, b):
                    digest.update(result.float().numpy().tobytes())
        torch.manual_seed(0)
        probs = torch.rand((8, 61), generator=rng)
        for _ in range(20):
            draws = torch.multinomial(probs, num_samples=1, replacement=True)
            digest.update(draws.numpy().tobytes())
    return digest.hexdigest()


def sample_operations(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
    product = torch.matmul(a, b)
    wide = product.float()
    return [
        product,
        torch.nn.functional.linear(a, b[0].t().contiguous()),
        torch.softmax(wide, dim=-1),
        torch.tanh(product),
        torch.nn.functional.gelu(product, approximate="tanh"),
        torch.rsqrt(wide.pow(2).mean(-1)),
        torch.view_as_real(torch.polar(torch.ones_like(wide), wide)),
    ]
