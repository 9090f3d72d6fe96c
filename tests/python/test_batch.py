"""gemma run --prompts: many texts from a file, killed and taken up again."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import tiny
from gemma_libtorch.engine import Engine, Request
from gemma_libtorch.prompts import ChatPrompt
from test_program import PROGRAM

Lines = list[dict[str, Any]]


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """In model.ckpt of tmp_path, too."""
    fields = {**tiny.CONFIGS["gemma3"], "max_position_embeddings": 2000}
    made = tiny.make_model(gemma_libtorch, fields, "float32")
    tiny.save_checkpoint(made, tmp_path)
    made.set_numerics("fast")
    return made


def command(folder: Path, *flags: str) -> list[str]:
    model = ["--ckpt", str(folder / "model.ckpt"), "--threads", "1"]
    files = ["--prompts", str(folder / "in.jsonl"), "--out", str(folder / "out.jsonl")]
    return [str(PROGRAM), "run", *model, *files, *flags]


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *flags), capture_output=True, text=True, timeout=120, check=False
    )


def write(folder: Path, lines: Lines) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "in.jsonl").write_text(text)


def results(folder: Path) -> Lines:
    return [json.loads(line) for line in (folder / "out.jsonl").read_bytes().splitlines()]


def test_each_line_has_a_result_with_the_text_of_an_engine(model: Any, tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "When?"}]
    lines: Lines = [
        {"prompt": "The ferry leaves"},
        {"prompt": "", "id": "empty", "max_tokens": 3, "temperature": 0},
        {"messages": chat, "id": 7, "seed": 4, "top_k": 5, "top_p": 0.5, "min_p": 0.01},
        {"prompt": "We", "stop": ["a", "e"], "repetition_penalty": 1.5, "max_tokens": 50},
        {"prompt": "Küste", "presence_penalty": 1.0, "frequency_penalty": 0.5, "stop": "zz"},
    ]
    write(tmp_path, lines)
    done = run(tmp_path, "--output_len", "30", "--seed", "9")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "5 texts, " in done.stderr

    prompt = ChatPrompt(model.tokenizer)
    defaults = {"max_tokens": 30, "seed": 9, "top_p": 0.95, "top_k": 64, "stop_ids": prompt.stop_ids}
    requests = [
        Request(
            prompt.encode(line["messages"]) if "messages" in line else line["prompt"],
            **{**defaults, **{k: v for k, v in line.items() if k not in ("id", "prompt", "messages")}},
        )
        for line in lines
    ]
    answers = Engine(model, kv_dtype="float32").generate(requests)
    assert results(tmp_path) == [
        {
            "id": id,
            "text": answer.text,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": len(answer.tokens),
        }
        for id, answer in zip([1, "empty", 7, 4, 5], answers, strict=True)
    ]


def test_a_line_says_what_gemma_run_says_alone(model: Any, tmp_path: Path) -> None:
    write(tmp_path, [{"prompt": "The ferry leaves"}, {"prompt": "We"}])
    flags = ["--output_len", "25", "--seed", "3", "--top_k", "20"]
    run(tmp_path, *flags)
    for prompt, result in zip(["The ferry leaves", "We"], results(tmp_path), strict=True):
        alone = subprocess.run(
            [PROGRAM, "run", "--ckpt", tmp_path / "model.ckpt", "--prompt", prompt, *flags],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert alone.stdout == result["text"] + "\n"


def test_guesses_change_no_text(model: Any, tmp_path: Path) -> None:
    """One text alone, several together, and a line that asks for it itself."""
    text = "The ferry leaves at noon. " * 3
    lines = [{"prompt": text, "seed": seed} for seed in range(4)]
    flags = ["--output_len", "60", "--temperature", "0.5"]
    write(tmp_path, lines)
    run(tmp_path, *flags)
    want = results(tmp_path)
    for given, extra in ((lines, ["--prompt_lookup", "6"]),
                         ([{**line, "prompt_lookup": 9} for line in lines], [])):  # fmt: skip
        (tmp_path / "out.jsonl").unlink()
        write(tmp_path, given)
        run(tmp_path, *flags, *extra)
        assert results(tmp_path) == want
    alone = subprocess.run(
        [PROGRAM, "run", "--ckpt", tmp_path / "model.ckpt", "--prompt", text, *flags,
         "--seed", "2", "--prompt-lookup", "5"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert alone.stdout == want[2]["text"] + "\n"
    right, guessed = map(int, re.findall(r"guesses  (\d+) of (\d+) tokens", alone.stderr)[0])
    assert 0 < right <= guessed


# --- taken up again -------------------------------------------------------------------------------


MANY: Lines = [
    {"prompt": f"text {i}", "id": f"t{i}", "max_tokens": 20 + i * 37 % 200, "seed": i}
    for i in range(120)
]


@pytest.fixture
def whole(model: Any, tmp_path: Path) -> bytes:
    """What a run that nobody stops writes."""
    write(tmp_path, MANY)
    assert run(tmp_path).returncode == 0
    written = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").unlink()
    assert written.count(b"\n") == len(MANY)
    return written


def start_and_stop(folder: Path, lines: int, by: signal.Signals) -> int:
    """Sends the signal when so many results are there -> the exit status."""
    out = folder / "out.jsonl"
    process = subprocess.Popen(
        command(folder, "--max_batch", "4"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while not out.exists() or out.read_bytes().count(b"\n") < lines:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.001)
        process.send_signal(by)
        return process.wait(timeout=60)
    finally:
        process.kill()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_stopped_goes_on(whole: bytes, tmp_path: Path, by: signal.Signals) -> None:
    out = tmp_path / "out.jsonl"
    for lines in (10, 50):
        assert start_and_stop(tmp_path, lines, by) == -by
        written = out.read_bytes()
        assert lines <= written.count(b"\n") < len(MANY)
        assert whole.startswith(written)  # Whole lines, each once, in their order.
        assert written.endswith(b"\n")
    before = out.read_bytes().count(b"\n")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{before} of 120 are done already" in done.stderr
    assert f"{120 - before} texts" in done.stderr
    assert out.read_bytes() == whole
    again = run(tmp_path)
    assert (again.returncode, out.read_bytes()) == (0, whole)
    assert again.stderr == "120 of 120 are done already\n"


@pytest.mark.parametrize("missing", [1, 2, 40])
def test_a_line_that_was_cut_off_is_written_anew(
    whole: bytes, tmp_path: Path, missing: int
) -> None:
    at = whole.index(b"\n", 3000) + 1
    (tmp_path / "out.jsonl").write_bytes(whole[: at - missing])
    assert run(tmp_path).returncode == 0
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_results_of_other_texts_are_left_alone(whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    for text, message in (
        (b'{"id": "t0"}\n{"id": "t2"}\n', 'line 2 is no result of the text "t1"; name another file'),
        (b"some notes\n", 'line 1 is no result of the text "t0"'),
        (whole + whole[:100] + b"\n", "line 121 is no result of these texts"),
    ):
        out.write_bytes(text)
        done = run(tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert message in done.stderr
        assert out.read_bytes() == text


def test_only_one_run_writes_to_a_file(model: Any, tmp_path: Path) -> None:
    write(tmp_path, [{"prompt": "We", "max_tokens": 1900}] * 50)
    first = subprocess.Popen(command(tmp_path, "--max_batch", "1"), stderr=subprocess.DEVNULL)
    try:
        while not (tmp_path / "out.jsonl").exists():
            time.sleep(0.001)
        time.sleep(0.1)
        done = run(tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "another run writes to it" in done.stderr
    finally:
        first.kill()
        first.wait()


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": 3}', "prompt is 3, but must be a text"),
        ('{"prompt": "a", "max_token": 3}', 'field "max_token" is unknown; fields: frequency_penalty'),
        ('{"prompt"', "is no JSON: byte 10 is unexpected"),
        ("[]", "is [], but must be an object"),
        ("{}", "must have either a prompt or messages"),
        ('{"prompt": "a", "messages": []}', "must have either a prompt or messages"),
        ('{"prompt": "a", "temperature": -1}', "temperature is -1, but must be 0 (greedy)"),
        ('{"prompt": "a", "temperature": "hot"}', 'temperature is "hot", but must be a number'),
        ('{"prompt": "a", "seed": -1}', "seed is -1, but must be a whole number, 0 or more"),
        ('{"prompt": "a", "max_tokens": 0}', "max_tokens is 0, but must be 1 or more"),
        ('{"prompt": "a", "max_tokens": 18446744073709551615}', "but must be a whole number"),
        ('{"prompt": "a", "top_k": 1.5}', "top_k is 1.5, but must be a whole number"),
        ('{"prompt": "a", "stop": [1]}', "stop is 1, but must be a text"),
        ('{"prompt": "a", "prompt_lookup": -1}', "prompt_lookup is -1, but must be 0 or more"),
        ('{"prompt": "a", "id": [1]}', "id is [1], but must be a text or a whole number"),
        ('{"messages": "a"}', 'messages is "a", but must be a list'),
        ('{"messages": [3]}', "messages is 3, but must be objects with a role and a content"),
        ('{"messages": [{"role": "x", "content": ""}]}', "role 'x' is unknown; roles: system"),
        ('{"messages": []}', "begin with one of role user"),
        (json.dumps({"prompt": "word " * 2000}), "but must leave some of the model's 2000 positions"),
    ],
)
def test_a_bad_line_is_named_by_its_number(
    model: Any, tmp_path: Path, line: str, message: str
) -> None:
    (tmp_path / "in.jsonl").write_text(f'{{"prompt": "a"}}\n\n{line}\n')
    done = run(tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert "in.jsonl: line 3: " in done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--prompts", "in.jsonl"], 2, "--prompts requires --out"),
        (["--out", "out.jsonl"], 2, "--out requires --prompts"),
        (["--prompts", "in.jsonl", "--out", "o", "--prompt", "a"], 2, "excludes"),
        (["--prompts", "in.jsonl", "--out", "o", "--max_batch", "0"], 2, "--max_batch"),
        (["--prompts", "none", "--out", "o"], 1, "--prompts none: cannot be read"),
        (["--prompts", "in.jsonl", "--out", "no/o"], 1, "--out no/o: cannot be written to: No such"),
        (["--prompts", "empty", "--out", "o"], 1, "empty: has no lines; give one for each text"),
        (
            ["--prompts", "in.jsonl", "--out", "o", "--numerics", "exact"],
            1,
            "--prompts needs fast numerics",
        ),
        (["--prompt_lookup", "3", "--numerics", "exact"], 1, "--prompt_lookup needs fast numerics"),
        (["--prompt_lookup", "16"], 2, "--prompt_lookup"),
    ],
)
def test_a_mistake_is_told_in_a_line(
    model: Any, tmp_path: Path, flags: list[str], code: int, message: str
) -> None:
    write(tmp_path, [{"prompt": "a"}])
    (tmp_path / "empty").write_text("\n \n")
    done = subprocess.run(
        [PROGRAM, "run", "--ckpt", "model.ckpt", *flags],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "o").exists()
