"""gemma chat: piped, in a terminal, and interrupted."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from pathlib import Path

import gemma_libtorch
import pytest
import tiny
from gemma_libtorch.engine import Engine
from test_program import PROGRAM


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    fields = {**tiny.CONFIGS["gemma3"], "max_position_embeddings": 20_000}
    model = tiny.make_model(gemma_libtorch, fields, "float32")
    return tiny.save_checkpoint(model, tmp_path)


def chat(
    checkpoint: Path, text: str, *flags: str, max_tokens: str = "12"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "chat", "--ckpt", checkpoint, "--max_tokens", max_tokens, "--seed", "3", *flags],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        errors="surrogateescape",
        check=False,
    )


def answers(checkpoint: Path, *messages: str, seeds: list[int] | None = None) -> list[str]:
    """The same by a session."""
    config = gemma_libtorch.config.GemmaConfig.from_pretrained(checkpoint)
    model = gemma_libtorch.model.GemmaForCausalLM(config)
    model.load_weights(checkpoint)
    model.set_numerics("fast")
    engine = Engine(model, kv_dtype="float32")
    session = engine.session()
    (end,) = model.tokenizer.encode("<end_of_turn>", bos=False)
    texts = []
    for index, message in enumerate(messages):
        begin = "" if index == 0 else "<end_of_turn>\n"
        session.feed(
            model.tokenizer.encode(
                f"{begin}<start_of_turn>user\n{message}<end_of_turn>\n<start_of_turn>model\n",
                bos=index == 0,
            )
        )
        seed = (seeds or range(3, 100))[index]
        generation = session.generate(
            max_tokens=12, top_p=0.95, top_k=64, seed=seed, stop_ids=[end, 1]
        )
        list(generation)
        texts.append(generation.text)
    return texts


def test_a_message_a_line_has_an_answer(checkpoint: Path) -> None:
    done = chat(checkpoint, "The ferry leaves\n\nWhen?\r\n")
    assert (done.returncode, done.stdout) == (
        0,
        "".join(f"{text}\n" for text in answers(checkpoint, "The ferry leaves", "When?")),
    ), done.stderr
    assert ">>>" not in done.stderr


def test_messages_of_several_lines(checkpoint: Path) -> None:
    want = "".join(f"{text}\n" for text in answers(checkpoint, "one\ntwo", "three\n\nfour"))
    assert chat(checkpoint, 'one\\\ntwo\n"""three\n\nfour"""\n').stdout == want


def test_commands(checkpoint: Path) -> None:
    first, second = answers(checkpoint, "one", "two")
    done = chat(checkpoint, "one\nother\n/undo\ntwo\n/regen\n/reset\none\n/stats\n/help\n/nothing\n")
    assert done.returncode == 0, done.stderr
    other = answers(checkpoint, "one", "other")[1]
    assert done.stdout == "".join(f"{t}\n" for t in (first, other, second, second, first))
    for text in ("tokens; the last answer has", "/regen", "/nothing is no command; /help"):
        assert text in done.stderr
    assert chat(checkpoint, "/undo\n/regen\n/quit\none\n").stdout == ""
    system = answers(checkpoint, "Be brief.\n\none")
    assert chat(checkpoint, "one\n", "--system", "Be brief.").stdout == system[0] + "\n"
    assert chat(checkpoint, "/system Be brief.\none\n").stdout == system[0] + "\n"


def test_what_cannot_be_is_said_in_a_line(checkpoint: Path) -> None:
    full = chat(checkpoint, "word " * 30_000 + "\n")
    assert (full.returncode, full.stderr.count("\n")) == (1, 1)
    assert "tokens" in full.stderr
    exact = chat(checkpoint, "one\n", "--numerics", "exact")
    assert exact.returncode == 1
    assert "exact numerics keep no text between turns" in exact.stderr


def read_until(terminal: int, text: bytes, seconds: float = 60) -> bytes:
    seen = b""
    end = time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65536)
    return seen


def test_ctrl_c_ends_an_answer_and_not_the_chat(checkpoint: Path) -> None:
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "chat", "--ckpt", checkpoint, "--temperature", "0"],  # Without an end.
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(inner)
    try:
        read_until(terminal, b">>> ")
        os.write(terminal, b"The ferry\n")
        time.sleep(0.5)
        os.write(terminal, b"\x03")
        assert b"(ended)" in read_until(terminal, b">>> ")
        os.write(terminal, b"/stats\n")
        assert b"the last answer has" in read_until(terminal, b"tokens/s\r\n>>> ")
        os.write(terminal, b"\x04")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        os.close(terminal)
