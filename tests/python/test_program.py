"""The gemma program, as a shell sees it: what it prints, and how it fails."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import reference
import tiny
import torch

_PACKAGE = Path(gemma_libtorch.__file__).parent
PROGRAM = next(
    (
        path
        for path in (_PACKAGE / "bin" / "gemma", _PACKAGE.parents[1] / "bin" / "gemma")
        if path.is_file()
    ),
    None,
)
if PROGRAM is None:
    pytest.skip("the gemma program was not built", allow_module_level=True)

CHECKPOINT = tiny.ROOT / "checkpoints" / "gemma-3-270m"
TEXT = tiny.ROOT / "tests" / "data" / "pride_and_prejudice.txt"

# The smallest variant, with random weights, and hardly any work.
RANDOM = ["bench", "--variant", "270m", "-t", "1"]
QUICK = [*RANDOM, "-p", "5", "-n", "2", "-r", "1"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, timeout=600, check=False
    )


def output_of(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    arguments = ["-p", "5", "-n", "2", "-r", "2", "-d", "0,3", "--sampled", "-o", "json"]
    return json.loads(output_of(*RANDOM, *arguments))


def test_bench_has_a_row_for_each_test(rows: list[dict[str, Any]]) -> None:
    assert [row["test"] for row in rows] == [
        "pp5", "tg2", "tg2 sampled", "pp5 @ d3", "tg2 @ d3", "tg2 sampled @ d3"
    ]  # fmt: skip
    for row in rows:
        assert (row["model"], row["threads"]) == ("270m", 1)
        assert (row["numerics"], row["weights"]) == ("fast", "bfloat16")
        assert len(row["tokens_per_second"]["samples"]) == 2
        assert row["peak_mb"] > 536


def test_bench_tells_memory_of_keys_and_parallel_regions(rows: list[dict[str, Any]]) -> None:
    # A block of 64 positions in 18 layers; a text that goes on from another one copies its block.
    block = 18 * 2 * 256 * 4 * 64 / 1e6
    assert [row["kv_mb"] for row in rows] == pytest.approx([block] * 3 + [2 * block] * 3)
    # One thread has nobody to wake.
    assert [row["regions"] for row in rows] == [None, 0, 0] * 2


def test_bench_counts_weights_and_cache_for_a_generated_token(rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if row["test"] == "tg2 @ d3")
    # 268,098,176 parameters of 2 bytes; 18 layers with a head of 256 keys and values in float32, at
    # the fourth and the fifth position.
    per_token = 2 * 268_098_176 + 18 * 2 * 256 * 4 * (4 + 5) / 2
    assert row["gb_per_second"] == pytest.approx(
        row["tokens_per_second"]["median"] * per_token / 1e9
    )
    ratios = [
        rate * per_token / 1e9 / limit
        for rate, limit in zip(
            row["tokens_per_second"]["samples"], row["stream_limit"]["samples"], strict=True
        )
    ]
    assert row["stream_percent"] == pytest.approx(100 * sum(ratios) / 2)
    assert row["gflop_per_second"] is None


def test_bench_counts_operations_of_a_prompt(rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if row["test"] == "pp5 @ d3")
    # qkv, output projection and MLP; 4 heads that see 4 to 8 positions; logits of one row.
    weights = 18 * (640 * (4 + 2) * 256 + 4 * 256 * 640 + 3 * 640 * 2048)
    attention = 4 * 18 * 4 * 256 * (4 + 5 + 6 + 7 + 8)
    flops = 5 * 2 * weights + attention + 2 * 262_144 * 640
    assert row["gflop_per_second"] == pytest.approx(
        row["tokens_per_second"]["median"] / 5 * flops / 1e9
    )
    assert row["fma_percent"] > 0
    assert row["sgemm_percent"] > 0
    assert row["gb_per_second"] is None


def test_bench_writes_csv_and_markdown_with_the_same_rows() -> None:
    table = list(csv.DictReader(output_of(*QUICK, "--quant", "-o", "csv").splitlines()))
    assert [row["test"] for row in table] == ["pp5", "tg2"]
    assert {row["weights"] for row in table} == {"int8"}
    assert float(table[1]["stream_limit_min"]) <= float(table[1]["stream_limit_max"])
    lines = output_of(
        *RANDOM, "-p", "0", "-n", "2", "-r", "1", "--numerics", "exact,fast"
    ).splitlines()
    assert lines[0].startswith("| model | test | threads | numerics | weights | tok/s |")
    assert [line.split(" | ")[1:4] for line in lines[2:]] == [
        ["tg2", "1", "exact"],
        ["tg2", "1", "fast"],
    ]


@pytest.mark.skipif(reference.checkout() is None, reason="set GEMMA_PYTORCH to a checkout of it")
def test_bench_runs_the_reference_in_turns() -> None:
    rows = json.loads(
        output_of(
            *QUICK, "-o", "json", "--python_dtype", "float32,bfloat16",
            "--compare-python", reference.checkout(),
            "--python", sys.executable,
        )
    )  # fmt: skip
    for row in rows:
        for dtype in ("float32", "bfloat16"):
            theirs = row[f"gemma_pytorch_{dtype}_tokens_per_second"]["median"]
            ratio = row["tokens_per_second"]["median"] / theirs
            assert row[f"gemma_pytorch_{dtype}_ratio"] == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["bench"], 1, "there is no model; give --ckpt FILE, or --variant NAME"),
        (["bench", "--variant", "1m"], 1, "variant '1m' is unknown; valid variants: 2b, 7b"),
        (["bench", "--ckpt", "nowhere.ckpt"], 1, "nowhere.ckpt: there is no such file"),
        (["bench", "--variant", "270m", "-p", "-1"], 2, "--n_prompt: Value -1 not in range"),
        (["bench", "--variant", "270m", "-n", "few"], 2, "--n_gen: Value few not in range"),
        (["bench", "--variant", "270m", "-t", "0"], 2, "--threads: Value 0 not in range"),
        (["bench", "--variant", "270m", "-o", "xml"], 2, "xml not in {md,csv,json}"),
        (["bench", "--variant", "270m", "--numerics", "slow"], 2, "slow not in {fast,exact}"),
        (["bench", "--variant", "270m", "--python", "x"], 2, "requires --compare_python"),
        ([*QUICK, "-d", "32768"], 1, "pp5 @ d32768 needs 32773 positions, but the model has 32768"),
        ([*QUICK, "--compare-python", "."], 1, "no gemma/model.py in it; give a checkout"),
        (["perplexity"], 2, "file is required"),
        (["perplexity", "no.txt", "--ckpt", "x"], 1, "no.txt: cannot be read; give a text file"),
        (["perplexity", str(TEXT), "--ckpt", "x", "-c", "1"], 2, "Value 1 not in range"),
    ],
)
def test_a_mistake_is_told_in_a_line(arguments: list[str], code: int, message: str) -> None:
    result = run(*arguments)
    assert result.returncode == code
    assert message in result.stderr
    assert result.stderr.startswith("gemma: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def checkout_of(path: Path, code: str) -> Path:
    (path / "gemma").mkdir()
    (path / "gemma" / "model.py").write_text(code)
    return path


def test_bench_tells_what_python_says(tmp_path: Path) -> None:
    checkout = checkout_of(tmp_path, "raise RuntimeError('of no use\\nat all')")
    for python, message in [
        (sys.executable, "gemma_pytorch failed: "),
        ("/nowhere/python", "--python /nowhere/python cannot be started: No such file"),
        ("false", "gemma_pytorch's process ended with exit status 1"),
    ]:
        result = run(*QUICK, "--compare-python", checkout, "--python", python)
        assert result.returncode == 1
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


# With a real model: official shapes are the only ones that the program loads.


@pytest.fixture(scope="module")
def excerpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not CHECKPOINT.is_dir():
        pytest.skip("no checkpoints/gemma-3-270m: run scripts/fetch_gemma_3_270m.py")
    path = tmp_path_factory.mktemp("perplexity") / "excerpt.txt"
    path.write_text(TEXT.read_text()[:70])
    return path


def perplexity(file: Path, *arguments: str | Path) -> dict[str, float]:
    checkpoint = CHECKPOINT / "model.ckpt"
    text = output_of(
        "perplexity", file, "--ckpt", checkpoint, "-c", "9", "--threads", "1", *arguments
    )
    lines = [(line[:12].strip(), line[12:].split()[0]) for line in text.splitlines()]
    return {name: float(number) for name, number in lines}


def brute_force(file: Path) -> tuple[int, float]:
    """Tokens and mean -log p: a pass of the model for each token, in windows of 9."""
    config = gemma_libtorch.config.get_model_config("270m", dtype="float32")
    config.tokenizer = str(CHECKPOINT / "tokenizer.model")
    model = gemma_libtorch.model.GemmaForCausalLM(config)
    model.load_weights(str(CHECKPOINT / "model.ckpt"))
    bos, *ids = model.tokenizer.encode(file.read_text())
    nll = 0.0
    for index, wanted in enumerate(ids):
        seen = [bos, *ids[index // 8 * 8 : index]]
        mask, local_mask = tiny.make_masks(config, len(seen))
        _, logits = model.forward(
            torch.tensor([seen]),
            torch.arange(len(seen)),
            None,
            tiny.make_caches(config, 1, len(seen)),
            mask,
            torch.tensor([len(seen) - 1]),
            local_mask=local_mask,
            **tiny.greedy(1),
        )
        nll -= torch.log_softmax(logits[0].double(), dim=-1)[wanted].item()
    return len(ids), nll / len(ids)


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_perplexity_is_what_a_pass_for_each_token_gives(excerpt: Path, numerics: str) -> None:
    tokens, nll = brute_force(excerpt)
    got = perplexity(excerpt, "--numerics", numerics)
    assert got["tokens"] == tokens > 9
    assert got["nll"] == pytest.approx(nll, abs=1e-4)
    assert got["perplexity"] == pytest.approx(math.exp(nll), rel=1e-3)


def test_perplexity_compares_with_a_run_that_was_saved(excerpt: Path, tmp_path: Path) -> None:
    saved = tmp_path / "log_probs"
    perplexity(excerpt, "--save", saved)
    same = perplexity(excerpt, "--kl", saved)
    assert (same["KL"] < 1e-6, same["same top"]) == (True, 100)
    other = perplexity(excerpt, "--numerics", "exact", "--dtype", "bfloat16", "--kl", saved)
    assert 1e-5 < other["KL"] < 0.1

    content = saved.read_bytes()
    for damage, message in [
        (b"", "is no file of log-probabilities; make one with --save"),
        (content[:1000], "ends too early"),
        (content.replace((9).to_bytes(8, "little"), (8).to_bytes(8, "little"), 1), "window"),
    ]:
        saved.write_bytes(damage)
        result = run(
            "perplexity", excerpt, "--ckpt", CHECKPOINT / "model.ckpt", "-c", "9", "--kl", saved
        )
        assert result.returncode == 1
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_info_counts_the_vision_part_of_a_multimodal_variant() -> None:
    lines = output_of("info", "4b").splitlines()
    counts = {words[0]: words[-2] for words in map(str.split, lines) if len(words) > 2}
    assert counts["total"] == "4,299,915,632"
    assert counts["siglip_vision_model.position_embedding"] == "4,718,592"
    assert "  (siglip_vision_model): SiglipVisionModel(" in lines


@pytest.mark.skipif(not CHECKPOINT.exists(), reason="no checkpoints/gemma-3-270m")
def test_run_refuses_images_for_a_text_model() -> None:
    result = run("run", "--ckpt", CHECKPOINT / "model.ckpt", "--image", "picture.png")
    assert result.returncode != 0
    who = "4b, 12b, 27b_v3 and PaliGemma see images"
    assert f"--image: this model reads text only; {who}" in result.stderr


def test_next_tells_what_the_model_expects(tmp_path: Path) -> None:
    fields = {**tiny.CONFIGS["gemma3"], "max_position_embeddings": 64}
    model = tiny.make_model(gemma_libtorch, fields, "float32")
    checkpoint = tiny.save_checkpoint(model, tmp_path)
    arguments = ("next", "The ferry leaves", "--ckpt", checkpoint, "-n", "7")
    rows = json.loads(output_of(*arguments, "--json"))
    assert [row["rank"] for row in rows] == list(range(1, 8))

    engine = gemma_libtorch.engine.Engine(model, kv_dtype="float32")
    session = engine.session()
    session.feed("The ferry leaves")
    (token,) = session.generate(max_tokens=1, temperature=0.0, logprobs=7)
    assert [row["id"] for row in rows] == [id_ for id_, _ in token.top]
    for row, (_, logprob) in zip(rows, token.top, strict=True):
        assert row["probability"] == pytest.approx(math.exp(logprob), rel=1e-4)

    table = output_of(*arguments).splitlines()
    assert table[0].split() == ["rank", "id", "prob", "piece"]
    assert [line.split()[1] for line in table[1:]] == [str(row["id"]) for row in rows]
    exact = json.loads(output_of(*arguments, "--json", "--numerics", "exact"))
    assert [row["id"] for row in exact] == [row["id"] for row in rows]
    failed = run("next", "a " * 100, "--ckpt", checkpoint)
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert "tokens, but the model sees 62 at most" in failed.stderr


# --- trees ----------------------------------------------------------------------------------------

# As Google's "Gemma explained" prints it.
GEMMA_7B_TREE = """\
GemmaForCausalLM(
  (model): GemmaModel(
    (embed_tokens): Embedding(256000, 3072, padding_idx=0)
    (layers): ModuleList(
      (0-27): 28 x GemmaDecoderLayer(
        (self_attn): GemmaSdpaAttention(
          (q_proj): Linear(in_features=3072, out_features=4096, bias=False)
          (k_proj): Linear(in_features=3072, out_features=4096, bias=False)
          (v_proj): Linear(in_features=3072, out_features=4096, bias=False)
          (o_proj): Linear(in_features=4096, out_features=3072, bias=False)
          (rotary_emb): GemmaRotaryEmbedding()
        )
        (mlp): GemmaMLP(
          (gate_proj): Linear(in_features=3072, out_features=24576, bias=False)
          (up_proj): Linear(in_features=3072, out_features=24576, bias=False)
          (down_proj): Linear(in_features=24576, out_features=3072, bias=False)
          (act_fn): PytorchGELUTanh()
        )
        (input_layernorm): GemmaRMSNorm()
        (post_attention_layernorm): GemmaRMSNorm()
      )
    )
    (norm): GemmaRMSNorm()
  )
  (lm_head): Linear(in_features=3072, out_features=256000, bias=False)
)
"""
GEMMA_2B_ATTENTION = """\
        (self_attn): GemmaSdpaAttention(
          (q_proj): Linear(in_features=2048, out_features=2048, bias=False)
          (k_proj): Linear(in_features=2048, out_features=256, bias=False)
          (v_proj): Linear(in_features=2048, out_features=256, bias=False)
          (o_proj): Linear(in_features=2048, out_features=2048, bias=False)
          (rotary_emb): GemmaRotaryEmbedding()
        )
"""


def test_info_prints_the_trees_of_googles_article() -> None:
    assert output_of("info", "7b", "--tree", "hf") == GEMMA_7B_TREE
    tree = output_of("info", "2b", "--tree", "hf")
    assert GEMMA_2B_ATTENTION in tree
    assert "(embed_tokens): Embedding(256000, 2048, padding_idx=0)\n" in tree
    assert "(0-17): 18 x GemmaDecoderLayer(\n" in tree
    assert "(down_proj): Linear(in_features=16384, out_features=2048, bias=False)\n" in tree


def test_the_tree_of_another_generation_is_refused() -> None:
    result = run("info", "9b", "--tree", "hf")
    assert result.returncode == 1
    assert "gemma: --tree hf: the model is GEMMA_2, but" in result.stderr
