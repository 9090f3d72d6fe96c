"""gemma activations and gemma run --steer: what LensModel sees and what it says under a hook."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import gemma_libtorch
import numpy as np
import pytest
import tiny
import torch
from gemma_libtorch.lens import LensModel
from safetensors.torch import load_file, save_file
from test_program import PROGRAM

TEXTS = ["the name of the", "When does the ferry leave?", "a", "It is a truth universally known"]


@pytest.fixture(params=["gemma1_mqa", "gemma2", "gemma3"])
def lens(request: pytest.FixtureRequest, tmp_path: Path) -> LensModel:
    """In model.ckpt of tmp_path, too."""
    made = tiny.make_model(gemma_libtorch, tiny.CONFIGS[request.param], "float32")
    tiny.save_checkpoint(made, tmp_path)
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    return LensModel(made)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a Gemma 3 in model.ckpt."""
    tiny.save_checkpoint(tiny.make_model(gemma_libtorch, tiny.CONFIGS["gemma3"], "float32"), tmp_path)
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    return tmp_path


def command(folder: Path, name: str, *flags: str) -> list[str]:
    return [str(PROGRAM), name, "--ckpt", str(folder / "model.ckpt"), "--threads", "1", *flags]


def run(folder: Path, name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, name, *flags), capture_output=True, text=True, timeout=120, check=False,
        cwd=folder,
    )  # fmt: skip


def ok(folder: Path, name: str, *flags: str) -> str:
    done = run(folder, name, *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(folder: Path, name: str, *flags: str) -> str:
    done = run(folder, name, *flags)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    return done.stderr


# --- activations ----------------------------------------------------------------------------------


def test_a_file_has_what_run_with_cache_has(lens: LensModel, tmp_path: Path) -> None:
    points = ["blocks.*.hook_resid_post", "blocks.1.mlp.out.hook_in", "blocks.0.attn.hook_z",
              "hook_embed", "ln_final.hook_scale", "blocks.1.attn.hook_pattern"]  # fmt: skip
    ok(tmp_path, "activations", "--prompt_file", "texts.txt", "--numerics", "exact",
       "--points", *points, "--out", "acts.safetensors")  # fmt: skip
    got = load_file(tmp_path / "acts.safetensors")
    names = {name.split("/")[0] for name in got} - {"token_ids", "text", "position"}
    caches = [lens.run_with_cache(text, names_filter=sorted(names))[1] for text in TEXTS]
    assert len(names) == lens.cfg.n_layers + 5
    tokens = [lens.to_tokens(text)[0] for text in TEXTS]
    assert torch.equal(got["token_ids"], torch.cat(tokens))
    assert got["text"].tolist() == [i for i, ids in enumerate(tokens) for _ in ids]
    assert got["position"].tolist() == [i for ids in tokens for i in range(len(ids))]
    for name in names:
        values = [cache[name][0] for cache in caches]
        if name.endswith("hook_pattern"):
            assert all(torch.equal(got[f"{name}/{i}"], value) for i, value in enumerate(values))
        else:
            assert torch.equal(got[name], torch.cat(values)), name


def test_fast_numerics_and_the_dtype_of_the_file(lens: LensModel, tmp_path: Path) -> None:
    name = "blocks.1.hook_mlp_out"
    ok(tmp_path, "activations", "--prompt", TEXTS[1], "--points", name, "--out", "a.safetensors")
    ok(tmp_path, "activations", "--prompt", TEXTS[1], "--points", name, "--out", "b.safetensors",
       "--out_dtype", "bfloat16")  # fmt: skip
    got = load_file(tmp_path / "a.safetensors")[name]
    want = lens.run_with_cache(TEXTS[1], names_filter=name)[1][name][0]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * want.abs().max().item())
    assert torch.equal(load_file(tmp_path / "b.safetensors")[name], got.to(torch.bfloat16))


def test_the_list_names_all_points(lens: LensModel, tmp_path: Path) -> None:
    listed = [line.split("  ") for line in ok(tmp_path, "activations", "--list").splitlines()]
    assert listed == lens.model.tap_names()


def test_npy_files_are_those_of_safetensors(folder: Path) -> None:
    flags = ["--prompt_file", "texts.txt", "--numerics", "exact", "--points", "blocks.0.attn.*"]
    ok(folder, "activations", *flags, "--out", "acts.safetensors")
    ok(folder, "activations", *flags, "--out", "npy", "--npy")
    want = load_file(folder / "acts.safetensors")
    files = {str(path.relative_to(folder / "npy/00000"))[:-4]: path
             for path in (folder / "npy/00000").rglob("*.npy")}  # fmt: skip
    assert files.keys() == want.keys()
    for name, path in files.items():
        assert torch.equal(torch.from_numpy(np.load(path)), want[name]), name
    bfloat16 = ["--prompt", "a", "--points", "hook_embed", "--dtype", "bfloat16", "--numerics", "exact"]
    ok(folder, "activations", *bfloat16, "--out", "half.safetensors")
    ok(folder, "activations", *bfloat16, "--out", "half", "--npy")
    values = load_file(folder / "half.safetensors")["hook_embed"]
    assert values.dtype == torch.bfloat16
    got = torch.from_numpy(np.load(folder / "half/00000/hook_embed.npy"))
    assert torch.equal(got, values.float())


def test_lines_of_json_and_empty_lines(folder: Path) -> None:
    (folder / "texts.jsonl").write_text('{"text": "a\\nb"}\n\n{"text": "", "id": "x"}\n')
    ok(folder, "activations", "--prompt_file", "texts.jsonl", "--points", "hook_embed",
       "--out", "a.safetensors")  # fmt: skip
    got = load_file(folder / "a.safetensors")
    assert got["text"].max() == 1
    assert got["hook_embed"].shape == (got["text"].numel(), 60)


# --- taken up again -------------------------------------------------------------------------------

MANY = ["--prompt_file", "many.txt", "--points", "blocks.*.hook_resid_post", "--shard_tokens", "80"]


def write_many(folder: Path) -> None:
    (folder / "many.txt").write_text("".join(f"{TEXTS[i % 4]} {i}\n" for i in range(300)))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if ".part-" not in path.name}


def stop_at(folder: Path, out: str, shards: int, by: signal.Signals) -> None:
    """Sends the signal when the index has so many shards."""
    index = folder / out / "index.json"
    process = subprocess.Popen(
        command(folder, "activations", *MANY, "--out", out), cwd=folder, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while not index.exists() or index.read_bytes().count(b'"file"') < shards:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.001)
        process.send_signal(by)
        assert process.wait(timeout=60) == -by
    finally:
        process.kill()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_goes_on(folder: Path, by: signal.Signals) -> None:
    write_many(folder)
    ok(folder, "activations", *MANY, "--out", "whole")
    for shards in (3, 20):
        stop_at(folder, "out", shards, by)
    kept = {name: (folder / "out" / name).stat().st_mtime_ns for name in ("00000.safetensors",)}
    done = run(folder, "activations", *MANY, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert " of 300 are done already" in done.stderr
    assert contents(folder / "out") == contents(folder / "whole")
    assert all((folder / "out" / name).stat().st_mtime_ns == time for name, time in kept.items())
    index = json.loads((folder / "whole" / "index.json").read_text())
    assert sum(shard["texts"] for shard in index["shards"]) == 300
    assert len(index["shards"]) > 40
    assert run(folder, "activations", *MANY, "--out", "out").stderr == "300 of 300 are done already\n"


def test_a_directory_of_another_run_is_left_alone(folder: Path) -> None:
    write_many(folder)
    ok(folder, "activations", *MANY, "--out", "out")
    before = contents(folder / "out")
    said = refusal(folder, "activations", *MANY, "--out", "out", "--out_dtype", "float16")
    assert 'its out_dtype is "", this one\'s "float16"; name another directory' in said
    (folder / "many.txt").write_text("another text\n" * 300)
    assert "its crc32_of_tokens is" in refusal(folder, "activations", *MANY, "--out", "out")
    assert contents(folder / "out") == before
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("mine")
    assert "has files, but no index.json" in refusal(folder, "activations", *MANY, "--out", "notes")
    (folder / "out" / "index.json").write_text('{"run": 3')
    assert "index.json is not one" in refusal(folder, "activations", *MANY, "--out", "out")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt", "a", "--points", "blocks.9.hook_out", "--out", "o"], "has no such point"),
        (["--prompt", "a", "--points", "blocks.0.attn.hook_pattern", "--out", "o"],
         "use --numerics exact"),
        (["--prompt", "a", "--points", "hook_embed"], "give --points and --out, or --list"),
        (["--points", "hook_embed", "--out", "o"], "give either --prompt or --prompt_file"),
        (["--prompt_file", "none.txt", "--points", "hook_embed", "--out", "o"],
         "--prompt_file none.txt: "),
        (["--prompt", "word " * 200, "--points", "hook_embed", "--out", "o"], "--truncate cuts it"),
        (["--prompt", "a", "--points", "hook_embed", "--out", "texts.txt"], "is no directory"),
        (["--prompt", "many words", "--points", "hook_embed", "--out", "o.safetensors",
          "--shard_tokens", "2"], "name a directory"),
        (["--prompt", "a", "--points", "hook_embed", "--out", "o.safetensors", "--npy"],
         "--npy writes a directory"),
        (["--prompt", "a", "--points", "hook_embed", "--out", "o", "--out_dtype", "int3"], "int3"),
        (["--prompt", "a", "--points", "hook_embed", "--out", "o", "--npy", "--out_dtype", "bfloat16"],
         "NumPy has no such dtype"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_a_line(folder: Path, flags: list[str], message: str) -> None:
    assert message in refusal(folder, "activations", *flags)
    assert not (folder / "o").exists() and not (folder / "o.safetensors").exists()


# --- steering -------------------------------------------------------------------------------------

POINT = "blocks.1.hook_resid_post"
GREEDY = ["--prompt", "the name", "--greedy", "--output_len", "12"]


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_a_steered_text_is_that_of_a_hook(lens: LensModel, tmp_path: Path, numerics: str) -> None:
    vector = torch.randn(60) * 20
    save_file({"v": vector, "w": torch.zeros(60)}, tmp_path / "v.safetensors")
    flags = [*GREEDY, "--numerics", numerics]
    plain = ok(tmp_path, "run", *flags)
    assert ok(tmp_path, "run", *flags, "--steer", f"{POINT}=v.safetensors:v*0") == plain
    assert ok(tmp_path, "run", *flags, "--steer", f"{POINT}=v.safetensors:w") == plain
    steer = ["--steer", f"{POINT}=v.safetensors:v*-1.5"]
    twice = ["--steer", f"{POINT}=v.safetensors:v*-1", "--steer", "blocks.1.hook_out=v.safetensors:v*-.5"]
    lens.model.set_numerics(numerics)
    with lens.hooks([(POINT, lambda value, hook: value - 1.5 * vector)]):
        want = lens.generate("the name", 12, do_sample=False)[len("the name") :]
    assert ok(tmp_path, "run", *flags, *steer) == ok(tmp_path, "run", *flags, *twice)
    assert ok(tmp_path, "run", *flags, *steer) == want + "\n" != plain


def test_npz_and_texts_of_a_file(folder: Path) -> None:
    vector = torch.randn(60)
    save_file({"v": vector}, folder / "v.safetensors")
    np.savez(folder / "v.npz", v=vector.numpy())
    steer = ["--steer", f"{POINT}=v.safetensors*3"]
    want = ok(folder, "run", *GREEDY, *steer)
    assert ok(folder, "run", *GREEDY, "--steer", f"{POINT}=v.npz:v*3") == want
    np.save(folder / "v.npy", vector.numpy())
    assert ok(folder, "run", *GREEDY, "--steer", f"{POINT}=v.npy*3") == want
    (folder / "in.jsonl").write_text('{"prompt": "the name"}\n')
    ok(folder, "run", "--prompts", "in.jsonl", "--out", "out.jsonl", "--greedy", "--output_len", "12",
       *steer)  # fmt: skip
    assert json.loads((folder / "out.jsonl").read_text())["text"] + "\n" == want


@pytest.mark.parametrize(
    ("steer", "message"),
    [
        ("blocks.9.hook_out=v.safetensors", "the model has no such point"),
        ("blocks.0.attn.hook_pattern=v.safetensors", "use --numerics exact"),
        (f"{POINT}=none.safetensors", "none.safetensors"),
        (f"{POINT}=v.safetensors", "has 3 tensors; name one, as v.safetensors:TENSOR"),
        (f"{POINT}=v.safetensors:x", "has no tensor 'x'"),
        (f"{POINT}=v.safetensors:short", "the vector has 59 numbers, but"),
        (f"{POINT}=v.safetensors:nan", "has NaN or infinity"),
        (f"{POINT}=v.safetensors:matrix", "[2, 60], but must be a vector of floats"),
        (f"{POINT}=v.safetensors:nan*x", "'x' after the * is no number"),
        (f"{POINT}=v.safetensors:nan*1e999", "'1e999' after the * is no number"),
        (POINT, "must be POINT=FILE"),
    ],
)
def test_bad_steering_is_told_in_a_line(folder: Path, steer: str, message: str) -> None:
    nan = torch.full((60,), float("nan"))
    save_file({"short": torch.zeros(59), "nan": nan, "matrix": torch.zeros(2, 60)},
              folder / "v.safetensors")  # fmt: skip
    said = refusal(folder, "run", *GREEDY, "--steer", steer)
    assert message in said
