"""The tokens of chats against those that transformers makes with the models' chat templates.

The templates are written anew here, shorter than the models' own; they say the same of these chats.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from gemma_libtorch.prompts import ChatPrompt
from gemma_libtorch.tokenizer import Tokenizer
from test_hf_tokenizer import model, their_tokenizer  # noqa: F401  A fixture.

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

Chat = list[dict[str, str]]

_TURNS = """
{%- for message in turns -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{- '<start_of_turn>' + role + '\n' + (system if loop.first else '') -}}
    {{- message['content'] | trim + '<end_of_turn>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\n' -}}{%- endif -%}
"""
_WITHOUT_SYSTEM = "{{- bos_token -}}{%- set turns, system = messages, '' -%}"
_WITH_SYSTEM = """
{{- bos_token -}}
{%- set turns, system = messages, '' -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set turns, system = messages[1:], messages[0]['content'] + '\n\n' -%}
{%- endif -%}
"""
_WITH_DEVELOPER = """
{{- bos_token -}}
{%- set turns, system = messages, '' -%}
{%- if messages[0]['role'] == 'system' -%}
    {{- '<start_of_turn>developer\n' + messages[0]['content'] | trim + '<end_of_turn>\n' -}}
    {%- set turns = messages[1:] -%}
{%- endif -%}
"""
GEMMA_1_2 = _WITHOUT_SYSTEM + _TURNS
GEMMA_3 = _WITH_SYSTEM + _TURNS
FUNCTION_GEMMA = _WITH_DEVELOPER + _TURNS

MARKERS = ["<start_of_turn>", "<end_of_turn>"]
BLANKS = [" ", "\n", "\n\n", "\t", "\r\n", "\v", "\x0c", "\x1c", "\x85", "\xa0", "\u2003", "\u2028", "\u3000"]  # fmt: skip
PARTS = [
    "ferry", "The", "12,305", "cat.", "if (a < b) {", "<", ">", "</h1>", "start_of_turn", "<end_of_", "model\n",
    "Küste", "früh", "море", "東京", "🦊", "👩‍👩‍👧", "e\u0301", "\u200b", "\U0010fffd",
]  # fmt: skip


def text(rng: random.Random, markers: list[str]) -> str:
    words = [rng.choice(markers if rng.random() < 0.2 and markers else PARTS)
             for _ in range(rng.randrange(9))]  # fmt: skip
    between = (rng.choice([" ", "", *BLANKS]) for _ in words)
    inner = "".join(word + blank for word, blank in zip(words, between, strict=True))
    return rng.choice(["", *BLANKS]) + inner + rng.choice(["", *BLANKS])


def chats(count: int, markers: list[str], system: bool = True) -> Iterator[Chat]:
    rng = random.Random(11)
    for _ in range(count):
        chat = []
        if system and rng.random() < 0.5:
            chat.append({"role": "system", "content": text(rng, markers)})
        for i in range(rng.randrange(1, 10)):
            chat.append({"role": ("user", "assistant")[i % 2], "content": text(rng, markers)})
        if not chat[-1]["content"].strip():  # Theirs drops the line break before it, if it goes on.
            chat[-1]["content"] = "\n cat"
        yield chat


def theirs(tokenizer: Any, chat: Chat) -> list[int]:
    """With a last message of the model's, what it goes on with."""
    goes_on = chat[-1]["role"] == "assistant"
    return tokenizer.apply_chat_template(
        chat,
        add_generation_prompt=not goes_on,
        continue_final_message=goes_on,
        tokenize=True,
        return_dict=False,
    )


@pytest.mark.parametrize("template", [GEMMA_1_2, GEMMA_3], ids=["gemma_1_2", "gemma_3"])
def test_a_thousand_chats_are_as_transformers_has_them(
    model: Path,  # noqa: F811
    template: str,
) -> None:
    tokenizer = their_tokenizer(model)
    tokenizer.chat_template = template
    prompt = ChatPrompt(Tokenizer(str(model)))
    for chat in chats(1000, markers=[], system=template != GEMMA_1_2):
        ids = prompt.encode(chat)
        assert ids == theirs(tokenizer, chat), chat
        assert ids.count(2) == 1 and ids[0] == 2


def test_function_gemmas_developer_has_a_turn(tmp_path: Path) -> None:
    path = tiny.tokenizer_with(tmp_path / "tokenizer.model", "<start_function_response>")
    tokenizer = their_tokenizer(path)
    tokenizer.chat_template = FUNCTION_GEMMA
    prompt = ChatPrompt(Tokenizer(str(path)))
    for chat in chats(1000, markers=[]):
        assert prompt.encode(chat) == theirs(tokenizer, chat), chat
    assert prompt.stop_ids == [5, tiny.VOCAB_SIZE]


def test_a_marker_in_a_text_stays_text(model: Path) -> None:  # noqa: F811
    """Here we differ from transformers: a marker is cut behind its first letter."""
    tokenizer = their_tokenizer(model)
    tokenizer.chat_template = GEMMA_3
    ours = Tokenizer(str(model))
    prompt = ChatPrompt(ours)
    start, end = (ours.encode(marker, bos=False)[0] for marker in MARKERS)
    cut = "\ufdd0"  # No character, and in none of the texts.
    for chat in chats(1000, MARKERS):
        with_cuts = [dict(message) for message in chat]
        for message in with_cuts:
            for marker in MARKERS:
                message["content"] = message["content"].replace(marker, f"<{cut}{marker[1:]}")
        goes_on = chat[-1]["role"] == "assistant"
        rendered = tokenizer.apply_chat_template(
            with_cuts,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
            tokenize=False,
        )
        parts = rendered.removeprefix(tokenizer.bos_token).split(cut)
        ids = prompt.encode(chat)
        assert ids == [2, *(id for part in parts for id in ours.encode(part, bos=False))], chat
        turns = sum(message["role"] != "system" for message in chat)
        assert ids.count(start) == turns + (not goes_on)
        assert ids.count(end) == turns - goes_on


def test_roles_have_several_names() -> None:
    prompt = ChatPrompt(Tokenizer(str(tiny.TOKENIZER)))

    def ids(*roles: str) -> list[int]:
        return prompt.encode({"role": role, "content": role[:1]} for role in roles)

    assert ids("user", "assistant") != ids("user", "model")  # By the first letter alone.
    assert len(ids("user", "assistant")) == len(ids("user", "model"))
    assert len(ids("system", "user")) == len(ids("developer", "user"))


@pytest.mark.parametrize(
    ("chat", "error", "message"),
    [
        ([], ValueError, "begin with one of role user"),
        ([{"role": "tool", "content": "a"}], ValueError, "role 'tool' is unknown; roles: system"),
        ([{"role": "user"}], TypeError, "a message is {\"role\": str, \"content\": str}, but not"),
        ([{"role": "user", "content": 3}], TypeError, "a text must be str, got int"),
        (["user"], TypeError, "but not 'user'"),
        ("user", TypeError, "but not 'u'"),
    ],
)  # fmt: skip
def test_what_is_no_chat_is_refused(chat: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ChatPrompt(Tokenizer(str(tiny.TOKENIZER))).encode(chat)
