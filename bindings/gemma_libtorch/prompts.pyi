"""Prompts in the form that a model was trained on: chats, and texts with a gap.

    prompt = ChatPrompt(model.tokenizer)
    ids = prompt.encode([{"role": "user", "content": "Name a colour."}])
    engine.generate([Request(ids, stop_ids=prompt.stop_ids)])

What looks like a marker in a text stays text: it cannot end a turn, or begin one.
"""

from collections.abc import Iterable, Mapping

from .tokenizer import Tokenizer

class ChatPrompt:
    """The tokens of a chat, as the chat templates of Gemma 1, 2 and 3 and of FunctionGemma have
    them, without blanks around the texts.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises ValueError for a tokenizer that has no turns."""
    def encode(self, messages: Iterable[Mapping[str, str]]) -> list[int]:
        """Bos, and the chat up to where the model's next words come.

        A message has a role (system or developer, user, assistant or model) and its content, a text.
        The system's text is put in front of the user's first, with an empty line between; to
        FunctionGemma it is a turn of the developer's. Messages of one role in a row are one turn,
        with an empty line between them. Where the last message is the model's, it goes on with that.

        Raises ValueError for an unknown role, and unless the messages begin with the system's, if
        there are any, then the user's; TypeError for what is no message.
        """
    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end the model's turn, besides eos."""

class FimPrompt:
    """The tokens of a prompt that asks for what is missing between two texts (fill in the middle),
    for CodeGemma 2b and 7b.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises ValueError for a tokenizer without the markers <|fim_prefix|>, <|fim_suffix|> and
        <|fim_middle|>.
        """
    def encode(self, prefix: str, suffix: str, files: Iterable[str] = ()) -> list[int]:
        """Bos, each of `files` (the texts of other files that the model is to know of) with
        <|file_separator|> after it, then what is before the gap and what is after it, as they are.

        Raises ValueError for files where the tokenizer has no <|file_separator|>.
        """
    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end the missing text, besides eos: the markers."""
