#!/usr/bin/env python3
"""Times `gemma bench` beside llama.cpp's llama-bench on the same weights, as a table in Markdown.

    scripts/compare_llama_cpp.py --ckpt checkpoints/gemma-3-270m/model.ckpt

Takes a text model of Gemma 3 in floats. llama.cpp comes as source with PyPI's llama-cpp-python and
is built for this machine: minutes on two cores. The GGUF files that it reads and our quantised
checkpoints are written once a variant too, all into build/llama.cpp: for other weights of the same
variant remove its folder there. The programs run in turns, a process a measurement: what the
machine does meanwhile then meets both alike. Types are paired with those that come nearest to them.
int4 and Q4_0 both keep the embedding in 8 bits: llama-quantize would have it in 6, were its rows
whole blocks of 256.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from gemma_libtorch import config

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "llama.cpp"
SOURCE = "llama-cpp-python==0.3.36"
GGUF = "gguf==0.19.0"
# What `gemma convert` is told, and llama-quantize.
TYPES = {
    "bfloat16": ([], "BF16"),
    "float16": (["--dtype", "float16"], "F16"),
    "int8": (["--quant", "int8"], "Q8_0"),
    "int4": (["--quant", "int4"], "Q4_0"),
}
# Checkpoint -> GGUF names in a layer; qkv_proj becomes three.
LAYER = {
    "self_attn.o_proj.weight": "attn_output",
    "self_attn.query_norm.weight": "attn_q_norm",
    "self_attn.key_norm.weight": "attn_k_norm",
    "mlp.gate_proj.weight": "ffn_gate",
    "mlp.up_proj.weight": "ffn_up",
    "mlp.down_proj.weight": "ffn_down",
    "input_layernorm.weight": "attn_norm",
    "post_attention_layernorm.weight": "post_attention_norm",
    "pre_feedforward_layernorm.weight": "ffn_norm",
    "post_feedforward_layernorm.weight": "post_ffw_norm",
}


def run(*command: Any, **options: Any) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"compare_llama_cpp.py: exit status {done.returncode}: {' '.join(words)}")
    return done.stdout


def pip(*arguments: Any) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, stderr=sys.stderr)


def build_llama() -> Path:
    """-> the folder of its programs."""
    programs = WORK / "build" / "bin"
    if (programs / "llama-quantize").exists() and (programs / "llama-bench").exists():
        return programs
    print("building llama.cpp ...", file=sys.stderr)
    source_only = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
    pip("download", SOURCE, *source_only, "-d", WORK)
    archive = next(WORK.glob("llama_cpp_python-*.tar.gz"))
    run("tar", "-xzf", archive, "-C", WORK)
    source = WORK / archive.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"
    unused = [
        f"-DLLAMA_{name}=OFF" for name in ("CURL", "BUILD_TESTS", "BUILD_EXAMPLES", "BUILD_SERVER")
    ]
    build = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", *unused]
    run("cmake", "-S", source, "-B", WORK / "build", "-G", "Ninja", *build)
    run("cmake", "--build", WORK / "build", "--target", "llama-bench", "llama-quantize")
    return programs


def gguf_tensors(weights: dict[str, torch.Tensor], settings: Any) -> dict[str, torch.Tensor]:
    tensors = {
        "token_embd": weights["embedder.weight"],
        "output_norm": weights["model.norm.weight"],
    }
    heads = [
        settings.num_attention_heads,
        settings.num_key_value_heads,
        settings.num_key_value_heads,
    ]
    for i in range(settings.num_hidden_layers):
        prefix, to = f"model.layers.{i}.", f"blk.{i}."
        qkv = weights[prefix + "self_attn.qkv_proj.weight"].split(
            [n * settings.head_dim for n in heads]
        )
        tensors |= {f"{to}attn_{name}": part for name, part in zip("qkv", qkv)}
        tensors |= {to + theirs: weights[prefix + ours] for ours, theirs in LAYER.items()}
    # Norms are of 1 + weight, which GGUF has added.
    return {
        name: 1 + t.float() if name.endswith("norm") else t.float() for name, t in tensors.items()
    }


def write_gguf(args: argparse.Namespace, path: Path) -> None:
    """The checkpoint as a GGUF file of float32 weights."""
    pip("install", "--target", WORK / "python", "--upgrade", "--no-deps", GGUF, "pyyaml>=6,<7")
    sys.path.insert(0, str(WORK / "python"))
    import gguf

    settings = config.get_model_config(args.variant)
    weights = torch.load(args.ckpt, mmap=True, weights_only=True)["model_state_dict"]
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(args.tokenizer))
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_context_length(settings.max_position_embeddings)
    writer.add_embedding_length(settings.hidden_size)
    writer.add_block_count(settings.num_hidden_layers)
    writer.add_feed_forward_length(settings.intermediate_size)
    writer.add_head_count(settings.num_attention_heads)
    writer.add_head_count_kv(settings.num_key_value_heads)
    writer.add_key_length(settings.head_dim)
    writer.add_value_length(settings.head_dim)
    writer.add_layer_norm_rms_eps(settings.rms_norm_eps)
    writer.add_rope_freq_base(settings.rope_wave_length[config.AttentionType.GLOBAL])
    writer.add_sliding_window(settings.sliding_window_size)
    ids = range(weights["embedder.weight"].shape[0])
    known = pieces.get_piece_size()
    writer.add_tokenizer_model("llama")
    writer.add_token_list([pieces.id_to_piece(i) if i < known else f"<extra_{i}>" for i in ids])
    writer.add_token_scores([pieces.get_score(i) if i < known else 0.0 for i in ids])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if i < 4 else gguf.TokenType.NORMAL for i in ids]
    )
    writer.add_bos_token_id(pieces.bos_id())
    writer.add_eos_token_id(pieces.eos_id())
    for name, tensor in gguf_tensors(weights, settings).items():
        writer.add_tensor(f"{name}.weight", np.ascontiguousarray(tensor.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def prepare(args: argparse.Namespace, programs: Path) -> dict[str, tuple[Path, Path]]:
    """-> for each type our file and theirs."""
    folder = WORK / args.variant
    folder.mkdir(parents=True, exist_ok=True)
    floats = folder / "float32.gguf"
    files = {}
    for name in args.types:
        options, theirs = TYPES[name]
        ckpt, gguf_file = folder / f"{name}.ckpt", folder / f"{theirs}.gguf"
        if not ckpt.exists():
            run(args.gemma, "convert", args.ckpt, ckpt, *options)
        if not gguf_file.exists():
            if not floats.exists():
                write_gguf(args, part := floats.with_suffix(".part"))
                part.rename(floats)
            run(programs / "llama-quantize", floats, part := gguf_file.with_suffix(".part"), theirs)
            part.rename(gguf_file)
        files[name] = ckpt, gguf_file
    return files


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ckpt", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--variant", default="270m")
    parser.add_argument("--gemma", type=Path, default=ROOT / "build" / "release" / "bin" / "gemma")
    parser.add_argument("--types", nargs="+", default=list(TYPES), choices=TYPES)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt_len", type=int, default=512)
    parser.add_argument("--output_len", type=int, default=64)
    args = parser.parse_args()
    args.tokenizer = args.tokenizer or args.ckpt.with_name("tokenizer.model")
    return args


def main() -> int:
    args = parse_arguments()
    if not args.gemma.exists():
        sys.exit(
            f"compare_llama_cpp.py: --gemma {args.gemma}: not there; scripts/quickstart.sh builds it"
        )
    WORK.mkdir(parents=True, exist_ok=True)
    programs = build_llama()
    files = prepare(args, programs)
    lengths = ["-p", args.prompt_len, "-n", args.output_len, "-t", args.threads]
    print(
        "| weights | test | gemma tok/s | llama.cpp tok/s | ratio |\n| --- | --- | --- | --- | --- |"
    )
    for name, (ckpt, gguf_file) in files.items():
        ours: dict[str, list[float]] = {}
        theirs: dict[str, list[float]] = {}
        for _ in range(args.rounds):
            bench = [args.gemma, "bench", "--ckpt", ckpt, "--tokenizer", args.tokenizer]
            for row in json.loads(run(*bench, *lengths, "-r", 3, "-o", "json")):
                ours.setdefault(row["test"], []).append(row["tokens_per_second"]["median"])
            llama = run(programs / "llama-bench", "-m", gguf_file, *lengths, "-r", 3, "-o", "json")
            for row in json.loads(llama):
                test = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
                theirs.setdefault(test, []).append(statistics.median(row["samples_ts"]))
        for test, rates in ours.items():
            mine, other = statistics.median(rates), statistics.median(theirs[test])
            label = f"{name} / {TYPES[name][1]}"
            print(
                f"| {label} | {test} | {mine:.1f} | {other:.1f} | {mine / other:.2f} |", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
