#!/usr/bin/env python3
"""Times `gemma bench` beside llama.cpp's llama-bench on the same weights, as a table in Markdown.

    scripts/compare_llama_cpp.py --ckpt checkpoints/gemma-3-270m/model.ckpt

Takes a text model in floats. llama.cpp comes as source with PyPI's llama-cpp-python and is built
for this machine: minutes on two cores. The files that the two read are written once a checkpoint,
llama.cpp's from a GGUF file in float32 by its llama-quantize, all into build/llama.cpp. The
programs run in turns, a process a measurement: what the machine does meanwhile then meets both
alike. Types are paired with those that come nearest to them. int4 and Q4_0 both keep the embedding
in 8 bits: llama-quantize would have it in 6, were its rows whole blocks of 256.
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

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "llama.cpp"
SOURCE = "llama-cpp-python==0.3.36"
# What `gemma convert` is told, and llama-quantize.
TYPES = {
    "bfloat16": ([], "BF16"),
    "float16": (["--dtype", "float16"], "F16"),
    "int8": (["--quant", "int8"], "Q8_0"),
    "int4": (["--quant", "int4"], "Q4_0"),
}


def run(*command: Any, **options: Any) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"compare_llama_cpp.py: exit status {done.returncode}: {' '.join(words)}")
    return done.stdout


def build_llama() -> Path:
    """-> the folder of its programs."""
    programs = WORK / "build" / "bin"
    if (programs / "llama-quantize").exists() and (programs / "llama-bench").exists():
        return programs
    print("building llama.cpp ...", file=sys.stderr)
    source_only = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "download", SOURCE, *source_only, "-d", WORK)
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


def prepare(args: argparse.Namespace, programs: Path) -> dict[str, tuple[Path, Path]]:
    """-> for each type our file and theirs."""
    path = args.ckpt.resolve()
    folder = WORK / f"{path.parent.name}-{path.stem}-{path.stat().st_mtime_ns}"
    folder.mkdir(parents=True, exist_ok=True)
    floats = folder / "float32.gguf"
    if not floats.exists():
        run(args.gemma, "convert", path, floats, "--to", "gguf", "--dtype", "float32")
    files = {}
    for name in args.types:
        options, theirs = TYPES[name]
        ckpt, gguf_file = folder / f"{name}.ckpt", folder / f"{theirs}.gguf"
        if not ckpt.exists():
            run(args.gemma, "convert", path, ckpt, *options)
        if not gguf_file.exists():
            run(programs / "llama-quantize", floats, part := gguf_file.with_suffix(".part"), theirs)
            part.rename(gguf_file)
        files[name] = ckpt, gguf_file
    return files


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ckpt", type=Path, required=True)
    parser.add_argument("--gemma", type=Path, default=ROOT / "build" / "release" / "bin" / "gemma")
    parser.add_argument("--types", nargs="+", default=list(TYPES), choices=TYPES)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt_len", type=int, default=512)
    parser.add_argument("--output_len", type=int, default=64)
    parser.add_argument(
        "--llama_repack",
        type=int,
        default=1,
        choices=(0, 1),
        help="0 keeps llama.cpp from its kernels for repacked weights: those for AMX end with a "
        "segmentation fault on the 270M",
    )
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    if not args.gemma.exists():
        sys.exit(
            f"compare_llama_cpp.py: --gemma {args.gemma}: not there; scripts/quickstart.sh builds it"
        )
    # cmake and ninja come with the interpreter's environment.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
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
            bench = [args.gemma, "bench", "--ckpt", ckpt]
            for row in json.loads(run(*bench, *lengths, "-r", 3, "-o", "json")):
                ours.setdefault(row["test"], []).append(row["tokens_per_second"]["median"])
            llama = [programs / "llama-bench", "-m", gguf_file, "--repack", args.llama_repack]
            for row in json.loads(run(*llama, *lengths, "-r", 3, "-o", "json")):
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
