"""Many texts at once: sessions, batches, streams.

    engine = Engine(model, max_batch=32)
    session = engine.session()
    session.feed("The capital of France is")
    for token in session.generate(max_tokens=20, temperature=0.0):
        print(token.text, end="")

The model, any Gemma, PaliGemma or RecurrentGemma, needs fast numerics and a tokenizer. Engines compute on threads of their own: any Python
threads may use one at the same time. A text, and the bits of its numbers, do not depend on what is
generated beside it.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict, Unpack

import torch
from PIL import Image

from .model import EngineModel

_Prompt = str | Image.Image | Sequence[str | Image.Image] | Sequence[int]

class _Options(TypedDict, total=False):
    """How a text is continued. The values in parentheses hold without an option.

    Bias, penalties, temperature, top_p, top_k and min_p are applied in this order.
    """

    max_tokens: int
    """(100)"""
    prompt_lookup: int
    """(0) Most tokens that are guessed at a time, from where the text said before what it says now;
    the text is the same, in fewer passes."""
    temperature: float
    """(1.0) 0.0: always the likeliest token."""
    top_p: float
    """(1.0) The likeliest tokens before one sum to no more than this."""
    top_k: int
    """(0) So many of the likeliest; 0: all."""
    min_p: float
    """(0.0) Those that are at least so many times as likely as the likeliest."""
    repetition_penalty: float
    """(1.0) Divides logits above 0, and multiplies those below, of tokens of prompt and answer."""
    presence_penalty: float
    """(0.0) Subtracted from the logits of tokens of the answer."""
    frequency_penalty: float
    """(0.0) The same as often as they are in it."""
    logit_bias: Mapping[int, float]
    """Added to the logits of tokens; -inf forbids one."""
    logprobs: int | None
    """(None) So many of the likeliest tokens come with each, by the model's own distribution."""
    seed: int | None
    """(None) Of the text's own random numbers: what it draws does not depend on other texts."""
    stop: str | Sequence[str]
    """The text ends before one of these."""
    stop_ids: Sequence[int]
    """And before one of these tokens, as before eos."""
    json_schema: str | Mapping[str, object] | None
    """(None) The answer is JSON that this JSON Schema describes, and no token is chosen that cannot become
    part of it. Objects have the properties that it names, in its order. What cannot be promised,
    such as `not`, raises ValueError."""
    regex: str | None
    """(None) The answer is a text that this regular expression matches as a whole."""
    grammar: str | None
    """(None) The answer is what the rule `root` of this grammar describes, in GBNF (llama.cpp's)."""
    priority: int
    """(0) Higher ones first."""
    timeout: float | None
    """(None) Seconds after which the text ends."""

class Token:
    """A token of a text that is being generated, or of its prompt."""

    @property
    def id(self) -> int: ...
    @property
    def text(self) -> str:
        """Whole characters that are known with it; what may belong to a stop string comes later."""
    @property
    def logprob(self) -> float | None:
        """With the options logprobs and prompt_logprobs."""
    @property
    def top(self) -> list[tuple[int, float]]:
        """The likeliest tokens and their log-probabilities, likewise."""

class Answer:
    """What a request became."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> list[Token]: ...
    @property
    def prompt(self) -> list[Token]:
        """Its tokens, with the option prompt_logprobs of the request. The first has no logprob."""
    @property
    def finish_reason(self) -> str:
        """Why it ended: "stop", "length", "cancelled" or "deadline"."""
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int:
        """How many of them did not go through the model: their keys and values were there."""
    @property
    def guessed_tokens(self) -> int:
        """By the option prompt_lookup or a draft model."""
    @property
    def accepted_tokens(self) -> int:
        """How many of them were right."""

class Status:
    """What an engine does and holds."""

    @property
    def running(self) -> int:
        """Texts."""
    @property
    def waiting(self) -> int: ...
    @property
    def kv_bytes(self) -> int:
        """Memory for keys and values, which is used as it is written to."""
    @property
    def kv_bytes_free(self) -> int: ...
    @property
    def kv_bytes_cached(self) -> int:
        """What only the prefix cache holds, until it is needed."""

class Request:
    """A text to be continued once."""

    def __init__(
        self,
        prompt: _Prompt,
        on_token: Callable[[Token], object] | None = None,
        *,
        prompt_logprobs: int | None = None,
        **kwargs: Unpack[_Options],
    ) -> None:
        """`prompt` is text or images, before which bos is put, or token ids. on_token is called
        with each token as it comes, on a thread of the engine; what it raises ends the text, and
        generate() raises it. With prompt_logprobs the answer has the
        prompt's tokens, too, with what the model expected of them, and so many of the likeliest in
        the place of each; then max_tokens may be 0.
        """

class Generation:
    """A text that is being generated: an iterator of tokens, for `async for`, too. It ends when
    this is deleted.

    Raises RuntimeError when the logits are NaN or infinite, or allow no token.
    """

    def __iter__(self) -> Generation: ...
    def __next__(self) -> Token: ...
    def __aiter__(self) -> Generation: ...
    async def __anext__(self) -> Token: ...
    def next(self) -> Token | None:
        """The next token; None when the text has ended."""
    @property
    def text(self) -> str:
        """All of the tokens taken so far."""
    @property
    def finish_reason(self) -> str | None:
        """Likewise; None until the last token is taken."""
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int:
        """How many of them the session or the prefix cache had keys and values of."""
    @property
    def guessed_tokens(self) -> int:
        """So far, by the option prompt_lookup or a draft model."""
    @property
    def accepted_tokens(self) -> int:
        """How many of them were right."""
    def cancel(self) -> None:
        """From any thread."""

class Session:
    """A text that is fed and continued in turns. What the model keeps of it stays."""

    def feed(self, prompt: _Prompt) -> None:
        """Appends text or images, with bos before the first, or token ids.

        Raises TypeError for images that the model does not take, ValueError for ids outside the
        vocabulary, and RuntimeError while the text is being continued; so do generate, fork,
        truncate and save.
        """
    def generate(self, **kwargs: Unpack[_Options]) -> Generation:
        """Continues the text; the tokens become part of it. Raises ValueError for options that
        cannot be, for an empty text, and for one that fills the model's positions.
        """
    def fork(self) -> Session:
        """Another session with the same text. Nothing is computed again, or copied before one goes
        on.
        """
    def truncate(self, size: int) -> None:
        """Forgets all but the first `size` tokens. Raises ValueError for more than there are."""
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the text and what the model keeps of it, in the place of a file that is there."""
    @property
    def tokens(self) -> list[int]:
        """All so far, prompts and answers."""
    def cancel(self) -> None:
        """Ends a generation, if there is one. From any thread."""

class Engine:
    """Continues any number of texts at once."""

    def __init__(
        self,
        model: EngineModel,
        *,
        kv_dtype: str | torch.dtype = "bfloat16",
        kv_memory: int | None = None,
        max_batch: int = 32,
        chunk: int = 512,
        prefix_cache: bool = True,
        draft: EngineModel | None = None,
        draft_tokens: int = 4,
    ) -> None:
        """kv_dtype, of keys and values, is float32 or bfloat16. kv_memory is in bytes: by default
        what max_batch texts as long as the model takes need, but at most half of the machine's.
        max_batch texts are continued together; others wait. At most `chunk` tokens of prompts go
        through the model at once. prefix_cache keeps the keys and values of prompts, in memory that
        nothing else needs, for texts that begin as they do. `draft`, a smaller model of the same
        vocabulary, guesses draft_tokens at a time: the texts are the same, in fewer passes of the
        larger model. Raises ValueError for values that cannot be.
        """
    def session(self) -> Session: ...
    def load_session(self, path: str | os.PathLike[str]) -> Session:
        """What Session.save wrote, of this model and kv_dtype. Raises FileNotFoundError, and
        RuntimeError for a file that is damaged, something else, or of another model.
        """
    def generate(self, requests: Iterable[Request]) -> list[Answer]:
        """Continues them all; the answers are in the order of the requests. Raises as
        Session.generate does, and what went wrong with the first of them; the others end then.
        """
    @property
    def status(self) -> Status: ...
