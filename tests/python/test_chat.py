"""gemma chat: piped, in a terminal, and interrupted."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import tiny
from gemma_libtorch.engine import Engine
from pictures import picture
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


def test_the_commands_are_those_of_the_document(checkpoint: Path) -> None:
    listed = re.findall(r"^(/\w+)", chat(checkpoint, "/help\n").stderr, re.M)
    text = (tiny.ROOT / "docs" / "program.md").read_text()
    rows = re.findall(r"^\| (`/[^|]*)\|", text, re.M)
    assert sorted(listed) == sorted(name for row in rows for name in re.findall(r"`(/\w+)", row))


def test_what_cannot_be_is_said_in_a_line(checkpoint: Path) -> None:
    full = chat(checkpoint, "word " * 30_000 + "\n")
    assert (full.returncode, full.stderr.count("\n")) == (1, 1)
    assert "tokens" in full.stderr
    exact = chat(checkpoint, "one\n", "--numerics", "exact")
    assert exact.returncode == 1
    assert "exact numerics keep no text between turns" in exact.stderr


def test_a_file_comes_before_the_next_message(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("first\n\n")
    (tmp_path / "two").write_bytes("\ufeffsecönd\r\nline".encode())
    want = answers(checkpoint, "first\n\nsecönd\nline\n\nWhen?", "Where?")
    text = f"/read {tmp_path / 'one'}\n/read {tmp_path / 'two'} \nWhen?\nWhere?\n"
    done = chat(checkpoint, text)
    assert done.stdout == "".join(f"{answer}\n" for answer in want), done.stderr
    assert f"{tmp_path / 'one'} comes before the next message\n" in done.stderr
    # Forgotten by /reset, and known to /regen.
    want = answers(checkpoint, "When?")
    assert chat(checkpoint, f"/read {tmp_path / 'one'}\n/reset\nWhen?\n").stdout == want[0] + "\n"
    want = answers(checkpoint, "first\n\nWhen?")
    done = chat(checkpoint, f"/read {tmp_path / 'one'}\nWhen?\n/regen\n")
    assert done.stdout == f"{want[0]}\n" * 2


def test_a_picture_comes_before_the_next_message(tmp_path: Path) -> None:
    tokenizer = tiny.large_tokenizer(tmp_path / "large.model")
    vision = {**tiny.SIGLIP, "num_attention_heads": 2}  # As a checkpoint can say it.
    model = tiny.make_multimodal(gemma_libtorch, tokenizer=str(tokenizer), vision_config=vision)
    checkpoint = tiny.save_checkpoint(model, tmp_path)
    tokenizer.rename(tmp_path / "tokenizer.model")
    pictures = []
    for name, size in (("one.png", (40, 50)), ("two.png", (60, 30))):
        pictures.append(picture(*size))
        pictures[-1].save(tmp_path / name)
    model.set_numerics("fast")
    session = Engine(model, kv_dtype="float32").session()
    (end,) = model.tokenizer.encode("<end_of_turn>", bos=False)
    want = []
    for prompt in (
        ["<start_of_turn>user\n", *pictures, "What?<end_of_turn>\n<start_of_turn>model\n"],
        ["<end_of_turn>\n<start_of_turn>user\n", pictures[1],
         "And?<end_of_turn>\n<start_of_turn>model\n"],
    ):  # fmt: skip
        session.feed(prompt)
        generation = session.generate(max_tokens=12, temperature=0.0, stop_ids=[end])
        list(generation)
        want.append(generation.text)
    one, two = (f"/image {tmp_path / name}\n" for name in ("one.png", "two.png"))
    done = chat(
        checkpoint, f"{one}{two}What?\n{two}And?\n/regen\n", "--temperature", "0"
    )
    assert done.stdout == f"{want[0]}\n{want[1]}\n{want[1]}\n", done.stderr
    bad = chat(checkpoint, f"/image {checkpoint}\n")
    assert (bad.returncode, bad.stderr.count("\n")) == (1, 1)
    assert "model.ckpt" in bad.stderr


def test_a_chat_is_saved_and_gone_on_with(checkpoint: Path, tmp_path: Path) -> None:
    first, second = answers(checkpoint, "one", "two", seeds=[3, 3])
    file = tmp_path / "one.chat"
    assert chat(checkpoint, f"one\n/save {file}\n").stdout == first + "\n"
    done = chat(checkpoint, f"other\n/load {file}\n/undo\ntwo\n/regen\n/reset\none\n")
    assert done.stdout.split("\n", 1)[1] == f"{second}\n{second}\n{first}\n", done.stderr
    assert f"the chat goes on where {file} ends\n" in done.stderr
    assert "there is no message to forget" in done.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/image a.png", "gemma: /image: this model reads text only; 4b, 12b and 27b_v3 see images"),
        ("/save", "gemma: /save: names no file"),
        ("/save no/where", "no/where"),
        ("/load none", "none"),
        ("/read", "gemma: /read: names no file"),
        ("/read none", "gemma: /read none: cannot be read; give a text file\n"),
        ("/edit", "gemma: /edit: standard input is no terminal"),
    ],
)
def test_a_command_that_fails_ends_a_piped_chat(
    checkpoint: Path, line: str, message: str
) -> None:
    done = chat(checkpoint, f"{line}\none\n")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert message in done.stderr


# --- in a terminal --------------------------------------------------------------------------------


class Terminal:
    """A chat in a terminal, with an editor that adds a line."""

    def __init__(self, checkpoint: Path, *flags: str, **environment: str) -> None:
        self.folder = checkpoint.parent
        editor = self.folder / "editor.sh"
        editor.write_text('#!/bin/sh\nprintf "\\nand more\\n" >> "$1"\n')
        editor.chmod(0o755)
        self.history = self.folder / "state" / "gemma" / "chat_history"
        places = {"XDG_STATE_HOME": str(self.folder / "state"), "HOME": str(self.folder)}
        kept = {key: os.environ[key] for key in ("PATH", "TMPDIR") if key in os.environ}
        self.seen = b""
        self.screen, inner = pty.openpty()
        self.process = subprocess.Popen(
            [PROGRAM, "chat", "--ckpt", checkpoint, "--temperature", "0", *flags],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            env={**kept, **places, "TERM": "xterm", "EDITOR": str(editor), **environment},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        self.until(">>> ")

    def until(self, text: str, seconds: float = 60) -> str:
        """What is shown up to the text and with it, after what was told before."""
        end = time.monotonic() + seconds
        while text.encode() not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.screen], [], [], 0.1)[0]:
                self.seen += os.read(self.screen, 65536)
        before, _, self.seen = self.seen.partition(text.encode())
        return before.decode(errors="replace") + text

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def answer_to(self, text: str) -> str:
        """What is shown between the line and the next prompt."""
        self.type(text + "\n")
        self.until("\r\n")
        return self.until("\r\n>>> ").removesuffix(">>> ")

    def leave(self) -> int:
        self.type("\x04")
        return self.process.wait(timeout=60)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.screen)


@pytest.fixture
def open_terminal(checkpoint: Path) -> Iterator[Callable[..., Terminal]]:
    opened = []

    def open_it(*flags: str, **environment: str) -> Terminal:
        opened.append(Terminal(checkpoint, *flags, **environment))
        return opened[-1]

    yield open_it
    for terminal in opened:
        terminal.close()


def modes_of(terminal: Terminal) -> list[Any]:
    return termios.tcgetattr(terminal.screen)[:4]


def test_ctrl_c_ends_an_answer_and_not_the_chat(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal()
    terminal.type("The ferry\n")  # Its answer has no end.
    time.sleep(0.5)
    terminal.type("\x03")
    assert "(ended)" in terminal.until(">>> ")
    assert "the last answer has" in terminal.answer_to("/stats")
    assert terminal.leave() == 0


def test_ctrl_c_abandons_what_is_typed(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("--max_tokens", "3")
    terminal.type("some words\x03")
    assert "^C\r\n" in terminal.until("\r\n>>> ")
    terminal.type('"""a\n')
    terminal.until("... ")
    terminal.type("b\x03")
    terminal.until("^C\r\n>>> ")
    assert "0 tokens" in terminal.answer_to("/stats")
    assert terminal.leave() == 0
    assert "words" not in terminal.history.read_text()


def test_a_line_can_be_edited(checkpoint: Path, open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("--max_tokens", "12")
    fresh = chat(checkpoint, "The ferry – wann?\n", "--temperature", "0").stdout.strip()
    # The cursor goes to the begin and to the end, and a letter is taken back.
    shown = terminal.answer_to("ferry – wann?!\x7f\x01The \x05")
    assert fresh.replace("\n", "\r\n") in shown
    assert terminal.leave() == 0


def test_the_history_outlives_the_chat(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("--max_tokens", "2")
    terminal.answer_to("first – Küste")
    terminal.type('"""second\n')
    terminal.until("... ")
    terminal.type('line"""\n')
    terminal.until(">>> ")
    assert terminal.leave() == 0
    assert terminal.history.stat().st_mode & 0o777 == 0o600
    again = open_terminal("--max_tokens", "2")
    again.type("\x1b[A")
    assert "line" in again.until('line"""')
    again.type("\x1b[A")
    again.until("Küste")
    again.type("\n")
    again.until("\r\n>>> ")
    assert again.leave() == 0


def test_the_history_is_where_xdg_says(open_terminal: Callable[..., Terminal]) -> None:
    for place, path in (("", ".local/state"), ("relative", ".local/state")):
        terminal = open_terminal("--max_tokens", "2", XDG_STATE_HOME=place)
        terminal.answer_to("/stats")
        assert terminal.leave() == 0
        assert (terminal.folder / path / "gemma" / "chat_history").read_text().count("/stats") == 1
    terminal = open_terminal("--max_tokens", "2", XDG_STATE_HOME="", HOME="")
    terminal.answer_to("/stats")
    assert terminal.leave() == 0


def test_edit_opens_the_editor(checkpoint: Path, open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("--max_tokens", "12")
    answer = chat(checkpoint, "begin\\\nand more\n", "--temperature", "0").stdout.strip()
    shown = terminal.answer_to("/edit begin")
    assert "begin\r\nand more\r\n" + answer.replace("\n", "\r\n") in shown
    assert terminal.leave() == 0
    for editor, message in (("false", "/edit: false failed (1); set EDITOR to another one"),
                            ("truncate -s 0", "the text is empty, so nothing is sent")):  # fmt: skip
        terminal = open_terminal(EDITOR=editor)
        assert message in terminal.answer_to("/edit begin")
        assert terminal.leave() == 0


def test_a_person_may_try_again(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("--max_tokens", "2")
    assert "/read none: cannot be read" in terminal.answer_to("/read none")
    assert "/nothing is no command" in terminal.answer_to("/nothing")
    assert terminal.leave() == 0


def test_tab_completes_the_name_of_a_file(
    checkpoint: Path, open_terminal: Callable[..., Terminal]
) -> None:
    (checkpoint.parent / "a_long_name").write_text("text")
    terminal = open_terminal("--max_tokens", "2")
    path = str(checkpoint.parent / "a_long")
    assert f"{path}_name comes before the next message" in terminal.answer_to(f"/read {path}\t")
    assert terminal.leave() == 0


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(
    open_terminal: Callable[..., Terminal], by: signal.Signals
) -> None:
    terminal = open_terminal()
    terminal.answer_to("/stats")
    terminal.type("half a line")
    terminal.until("half a line")
    assert not modes_of(terminal)[3] & termios.ICANON
    terminal.process.send_signal(by)
    assert terminal.process.wait(timeout=60) == -by
    assert modes_of(terminal)[3] & termios.ICANON


def test_a_simple_terminal_has_no_editing(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("--max_tokens", "2", TERM="dumb")
    assert modes_of(terminal)[3] & termios.ICANON
    assert "0 tokens" in terminal.answer_to("/stats")
    assert terminal.leave() == 0
