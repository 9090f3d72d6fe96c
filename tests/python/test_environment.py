"""What a shell, a parent process or a strange file hands the program: it copes, or says why in a line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import tiny
import torch
from test_convert import PROGRAM

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TEXT = "Hello world, a café."
GREEDY = ("--greedy", "--output_len", "1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma 3 of Hugging Face with a tokenizer."""
    path = tmp_path_factory.mktemp("checkpoint")
    tokenizer = shutil.copy(tiny.TOKENIZER, path / "tokenizer.model")
    pieces = gemma_libtorch.tokenizer.Tokenizer(str(tokenizer)).n_words
    config = transformers.Gemma3TextConfig(
        vocab_size=pieces, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=256,
        sliding_window=8, query_pre_attn_scalar=16,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.Gemma3ForCausalLM(config).save_pretrained(path)
    return path


def run(*arguments: Any, **how: Any) -> subprocess.CompletedProcess[bytes]:
    how = {"capture_output": True, "timeout": 120, "check": False} | how
    return subprocess.run([PROGRAM, *map(str, arguments)], **how)


def prompt_tokens(checkpoint: Path, file: Path) -> int:
    result = run("run", "--ckpt", checkpoint, "--prompt_file", file, *GREEDY, check=True)
    return int(result.stderr.split(b" tokens")[0].split()[-1])


def perplexity_tokens(checkpoint: Path, file: Path) -> int:
    result = run("perplexity", file, "--ckpt", checkpoint, "--ctx-size", 128, check=True)
    return int(result.stdout.split()[1])


# --- text files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [prompt_tokens, perplexity_tokens])
@pytest.mark.parametrize(
    "encoded",
    [
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
    ],
    ids=["utf-8 with a mark", "utf-16 le", "utf-16 be"],
)
def test_a_marked_text_is_the_text(
    checkpoint: Path, tmp_path: Path, count: Callable[[Path, Path], int], encoded: bytes
) -> None:
    plain, marked = tmp_path / "plain.txt", tmp_path / "marked.txt"
    plain.write_text(TEXT, encoding="utf-8")
    marked.write_bytes(encoded)
    assert count(checkpoint, marked) == count(checkpoint, plain)


def test_characters_beyond_16_bits_survive_utf_16(checkpoint: Path, tmp_path: Path) -> None:
    plain, marked = tmp_path / "plain.txt", tmp_path / "marked.txt"
    plain.write_text("\N{GRINNING FACE} \N{EURO SIGN}", encoding="utf-8")
    marked.write_text("\N{GRINNING FACE} \N{EURO SIGN}", encoding="utf-16")
    assert prompt_tokens(checkpoint, marked) == prompt_tokens(checkpoint, plain)


def test_lines_may_end_as_windows_ends_them(checkpoint: Path, tmp_path: Path) -> None:
    unix, windows = tmp_path / "unix.txt", tmp_path / "windows.txt"
    unix.write_bytes(b"one\ntwo\n\nthree\n")
    windows.write_bytes(b"one\r\ntwo\r\n\r\nthree\r\n")
    assert prompt_tokens(checkpoint, windows) == prompt_tokens(checkpoint, unix)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.encode("latin-1"), b"is not UTF-8: byte 18 is 0xe9"),
        (TEXT.encode("utf-16-le"), b"is not UTF-8"),
        ("Hello".encode("utf-16-le"), b"is no text: byte 1 is 0"),
        (TEXT.encode("utf-16")[:-1], b"begins as UTF-16, but is damaged"),
        (b"\xff\xfe\x00\xd8", b"begins as UTF-16, but is damaged"),
    ],
)
@pytest.mark.parametrize("command", ["run", "perplexity"])
def test_what_is_no_text_is_refused(
    checkpoint: Path, tmp_path: Path, command: str, content: bytes, message: bytes
) -> None:
    file = tmp_path / "text"
    file.write_bytes(content)
    arguments = ["--prompt_file", file] if command == "run" else [file]
    result = run(command, "--ckpt", checkpoint, *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert str(file).encode() in result.stderr
    assert result.stderr.count(b"\n") == 1


def test_a_prompt_that_is_not_utf_8_is_refused(checkpoint: Path) -> None:
    arguments = ["run", "--ckpt", str(checkpoint), "--prompt", b"caf\xe9"]
    result = subprocess.run([PROGRAM, *arguments], capture_output=True, check=False)
    assert (result.returncode, result.stderr.count(b"\n")) == (1, 1)
    assert b"--prompt is not UTF-8: byte 3 is 0xe9" in result.stderr


@pytest.mark.parametrize("text", ["a\ud800", "\udcff"])
def test_a_str_that_utf_8_cannot_hold_is_refused_by_its_place(text: str) -> None:
    tokenizer = gemma_libtorch.tokenizer.Tokenizer(str(tiny.TOKENIZER))
    with pytest.raises(TypeError, match="surrogates not allowed"):
        tokenizer.encode(text)
    config = tiny.make_config(gemma_libtorch, tiny.CONFIGS["gemma3"])
    config.tokenizer = str(tiny.TOKENIZER)
    model = gemma_libtorch.model.GemmaForCausalLM(config)
    for prompts in (text, ["fine", text]):
        with pytest.raises(TypeError, match="surrogates not allowed"):
            model.generate(prompts, "cpu")


# --- standard streams -----------------------------------------------------------------------------


def closed(stream: int) -> Callable[[], None]:
    return lambda: os.close(stream)


def test_standard_error_may_be_closed_or_full(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["run", "--ckpt", checkpoint, "--prompt", "Hi", *GREEDY]
    want = run(*arguments, check=True).stdout
    with open("/dev/full", "w") as full:
        results = [
            run(*arguments, capture_output=False, stdout=subprocess.PIPE, stderr=full),
            run(*arguments, preexec_fn=closed(2)),
            run(*arguments, preexec_fn=closed(0)),
        ]
    assert [(result.returncode, result.stdout) for result in results] == [(0, want)] * 3
    missing = ["run", "--ckpt", tmp_path / "none.ckpt", "--prompt", "Hi"]
    assert run(*missing, preexec_fn=closed(2)).returncode == 1
    # Nothing is written into a file that took the number of a closed stream.
    out = tmp_path / "out.ckpt"
    assert run("convert", checkpoint, out, preexec_fn=closed(2)).returncode == 0
    gemma_libtorch.config.GemmaConfig.from_pretrained(out)


@pytest.mark.parametrize(
    "arguments", [["info", "270m"], ["--help"], ["--version"], ["run", "--help"]]
)
def test_standard_output_that_takes_nothing_is_an_error(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        results = [
            run(*arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE),
            run(*arguments, preexec_fn=closed(1)),
        ]
    for result in results:
        assert result.returncode == 1
        assert result.stderr.startswith(b"gemma: standard output cannot be written to: ")
        assert result.stderr.count(b"\n") == 1


# --- what surrounds the process -------------------------------------------------------------------


def test_results_do_not_depend_on_locale_folder_home_or_umask(
    checkpoint: Path, tmp_path: Path
) -> None:
    text = tiny.ROOT / "tests" / "data" / "README.md"
    arguments = ["perplexity", text, "--ckpt", checkpoint, "--ctx_size", 128]
    want = run(*arguments, check=True).stdout
    environment = {"LC_ALL": "de_DE.UTF-8", "LANG": "tr_TR.UTF-8", "PATH": ""}
    got = run(*arguments, env=environment, cwd=tmp_path, preexec_fn=lambda: os.umask(0o777))
    assert (got.returncode, got.stdout) == (0, want)


REAL = tiny.ROOT / "checkpoints" / "gemma-3-270m" / "model.ckpt"


def bytes_below(folder: Path) -> int:
    sizes = []
    for file in folder.rglob("*"):
        try:
            sizes.append(file.stat().st_size)
        except FileNotFoundError:  # Renamed meanwhile.
            continue
    return sum(sizes)


@pytest.mark.skipif(not REAL.exists(), reason="no checkpoints/gemma-3-270m")
@pytest.mark.parametrize(
    ("to", "number"),
    [("ckpt", signal.SIGINT), ("hf", signal.SIGTERM), ("gguf", signal.SIGHUP)],
)
def test_a_signal_leaves_nothing_half_written(tmp_path: Path, to: str, number: int) -> None:
    process = subprocess.Popen(
        [PROGRAM, "convert", REAL, tmp_path / f"out.{to}", "--to", to, "--dtype", "float32"],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    while bytes_below(tmp_path) < 30e6 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -number, said
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_the_parent_ignores_stays_ignored(tmp_path: Path, checkpoint: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(
        [PROGRAM, "convert", checkpoint, tmp_path / "out.ckpt"],
        stderr=subprocess.PIPE,
        preexec_fn=ignore,
    )
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0


# --- flags are refused before anything is loaded --------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kv_dtype", "float16"], "--kv_dtype is 'float16', but must be float32 or bfloat16"),
        (["--temperature", "-1"], "temperature is -1, but must be 0 (greedy)"),
        (["--temperature", "1e-46"], "temperature is 1e-46"),
        (["--top_k", "0"], "top_k is 0, but must keep at least 1 token"),
        (["--output_len", "-1"], "output_len is -1"),
        (["--dtype", "float8"], "float8"),
        (["--numerics", "slow"], "numerics 'slow' is unknown"),
        (["--threads", "-1"], "--threads is -1"),
        (["--image", "x.png"], "--image: this model reads text only"),
        (["--prompt_file", "nowhere.txt"], "--prompt_file nowhere.txt: cannot be read"),
    ],
)
def test_a_wrong_flag_is_refused_before_the_weights_are_read(
    checkpoint: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    # A model whose weights cannot be loaded: the complaint is about the flag all the same.
    for name in ("config.json", "tokenizer.model"):
        shutil.copy(checkpoint / name, tmp_path)
    safetensors = pytest.importorskip("safetensors.torch")
    weights = safetensors.load_file(checkpoint / "model.safetensors")
    weights.pop("model.norm.weight")
    safetensors.save_file(weights, tmp_path / "model.safetensors")
    result = run("run", "--ckpt", tmp_path, *arguments)
    assert result.returncode == 1
    assert message in result.stderr.decode()
    assert result.stderr.count(b"\n") == 1
