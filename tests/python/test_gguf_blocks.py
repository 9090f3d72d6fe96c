"""Models that stay in the blocks of a GGUF: the same numbers, less memory."""

from __future__ import annotations

import subprocess
from pathlib import Path

import gemma_libtorch
import numpy as np
import pytest
import tiny
import torch
from test_gguf import gguf, random_blocks
from test_program import PROGRAM

# Shapes that every block format fits.
FIELDS = {
    **tiny.CONFIGS["gemma3"],
    "hidden_size": 256,
    "intermediate_size": 512,
    "head_dim": 64,
    "max_position_embeddings": 512,
}
KINDS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"]


def mixed(name: str) -> str:
    """As llama.cpp mixes types, and some more."""
    parts = {"attn_q": "Q4_K", "attn_k": "Q5_K", "attn_v": "Q6_K", "attn_output": "Q5_0"}
    parts |= {"ffn_gate": "Q4_0", "ffn_up": "Q5_1", "ffn_down": "IQ4_NL", "token_embd": "Q8_0"}
    return next(kind for part, kind in parts.items() if part in name)


def write_model(folder: Path, kind: str) -> Path:
    """A random tiny model whose matrices are blocks of `kind`, or "mixed"."""
    checkpoint = tiny.save_checkpoint(tiny.make_model(gemma_libtorch, FIELDS, "float32"), folder)
    floats = folder / "floats.gguf"
    subprocess.run(
        [PROGRAM, "convert", checkpoint, floats, "--to", "gguf"], check=True, capture_output=True
    )
    reader = gguf.GGUFReader(floats)
    path = folder / f"{kind}.gguf"
    writer = gguf.GGUFWriter(path, "gemma3")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        sub_type = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type)
    rng = np.random.default_rng(1)
    for tensor in reader.tensors:
        data, raw = tensor.data, tensor.tensor_type
        if len(tensor.shape) == 2:
            type_name = mixed(tensor.name) if kind == "mixed" else kind
            columns, rows = (int(size) for size in tensor.shape)
            data, raw = (
                scaled_blocks(type_name, rows, columns, rng),
                gguf.GGMLQuantizationType[type_name],
            )
        writer.add_tensor(tensor.name, data, raw_shape=data.shape, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def scaled_blocks(kind: str, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Random blocks whose numbers are near 0.05, as a model's are."""
    blocks = random_blocks(kind, rows, columns, rng)
    _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    flat = blocks.reshape(-1, size)
    places = {"Q6_K": [208]}.get(kind, [0, 2] if kind in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else [0])
    for place, sign in zip(places, (1, -1)):
        one = (
            sign
            * 0.1
            / {"Q8_0": 127, "IQ4_NL": 127, "Q6_K": 3000, "Q4_K": 500, "Q5_K": 1000}.get(kind, 16)
        )
        if kind in ("Q4_K", "Q5_K"):
            one = abs(one)
        scales = (one * rng.uniform(0.5, 1.5, len(flat))).astype(np.float16)
        flat[:, place : place + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks


def load(path: Path, dtype: str, **options: bool) -> gemma_libtorch.model.GemmaForCausalLM:
    config = gemma_libtorch.config.GemmaConfig.from_pretrained(path)
    config.dtype = dtype
    with tiny.default_dtype(tiny.DTYPES[dtype]):
        model = gemma_libtorch.model.GemmaForCausalLM(config)
    model.load_weights(path, **options)
    return model.eval()


@pytest.mark.parametrize("kind", [*KINDS, "mixed"])
def test_logits_are_those_of_the_numbers_in_float32(tmp_path: Path, kind: str) -> None:
    path = write_model(tmp_path, kind)
    want = tiny.logits_of(load(path, "float32"))
    kept = load(path, "float32", mmap=True, keep_blocks=True)
    kept.set_numerics("fast")
    got = tiny.logits_of(kept)
    # Activations are rounded to 16 bits, of which this model makes up to 1.7e-4.
    assert (got - want).abs().max() <= 2e-4 * want.abs().max()
    weight = kept.model.layers[0].mlp.gate_proj.weight
    assert weight.dtype == torch.uint8
    assert weight.dim() == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_exact_numerics_compute_the_same_in_blocks_and_out_of_them(
    tmp_path: Path, dtype: str
) -> None:
    path = write_model(tmp_path, "mixed")
    tiny.assert_same(
        tiny.logits_of(load(path, dtype, keep_blocks=True)), tiny.logits_of(load(path, dtype))
    )


def test_a_model_in_blocks_takes_other_weights(tmp_path: Path) -> None:
    path = write_model(tmp_path, "mixed")
    model = load(path, "float32", keep_blocks=True)
    want = tiny.logits_of(load(path, "float32"))
    model.load_weights(path)
    assert model.model.layers[0].mlp.gate_proj.weight.dtype == torch.float32
    tiny.assert_same(tiny.logits_of(model), want)
    model.load_weights(path, keep_blocks=True)
    model.load_weights(tmp_path / "model.ckpt")
    tiny.assert_same(
        tiny.logits_of(model), tiny.logits_of(tiny.make_model(gemma_libtorch, FIELDS, "float32"))
    )


def test_what_the_modules_are_is_printed(tmp_path: Path) -> None:
    text = str(load(write_model(tmp_path, "Q4_K"), "float32", keep_blocks=True))
    assert "Linear(in_features=256, out_features=512, bias=False, quant='gguf')" in text
    assert f"Embedding({tiny.VOCAB_SIZE}, 256, quant='gguf')" in text


def test_the_program_keeps_blocks_with_fast_numerics(tmp_path: Path) -> None:
    """The same text, from any number of threads, by the engine and beside others."""
    path = write_model(tmp_path, "mixed")

    def run(*arguments: str) -> str:
        command = [PROGRAM, "run", "--ckpt", path, "--prompt", "The", "--output_len", "12"]
        command += ["--temperature", "0", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    fast = run()
    assert fast == run("--threads", "1") == run("--threads", "3")
    assert fast == run("--numerics", "exact", "--dtype", "float32")
