"""Text to tokens and back, as TransformerLens spells it."""

from __future__ import annotations

from typing import Any

import torch


class LensTokenizer:
    """A tokenizer of this package that also has the names which transformers gives to the ids."""

    padding_side = "right"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id = tokenizer.bos_id
        self.eos_token_id = tokenizer.eos_id
        self.pad_token_id = tokenizer.pad_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class Tokens:
    """LensModel's part about tokens."""

    cfg: Any
    tokenizer: Any

    def to_tokens(self, input: str | list[str], prepend_bos: bool | None = None) -> torch.Tensor:
        """Text to ids [B, L]; shorter texts are filled up at their end."""
        texts = [input] if isinstance(input, str) else list(input)
        bos = self.cfg.default_prepend_bos if prepend_bos is None else prepend_bos
        rows = [self.tokenizer.encode(text, bos=bos) for text in texts]
        longest = max(len(row) for row in rows)
        pad = self.tokenizer.pad_id
        return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])

    def input_to_tokens(self, input: Any, prepend_bos: bool | None = None) -> torch.Tensor:
        """Text, ids, or [L] or [B, L] of them -> [B, L]. Ids are taken as they are."""
        if isinstance(input, str) or (isinstance(input, list) and isinstance(input[0], str)):
            return self.to_tokens(input, prepend_bos)
        tokens = torch.as_tensor(input)
        return tokens.unsqueeze(0) if tokens.dim() == 1 else tokens

    def to_string(self, tokens: Any) -> str | list[str]:
        """Ids [L] to text, [B, L] to texts."""
        rows = torch.as_tensor(tokens)
        if rows.dim() == 2:
            return [self.tokenizer.decode(row) for row in rows.tolist()]
        return self.tokenizer.decode(rows.flatten().tolist())

    def to_str_tokens(self, input: Any, prepend_bos: bool | None = None) -> list[Any]:
        """The text of each token; of several texts, a list for each."""
        if isinstance(input, list) and isinstance(input[0], str):
            return [self.to_str_tokens(text, prepend_bos) for text in input]
        rows = self.input_to_tokens(input, prepend_bos)
        if rows.size(0) != 1:
            raise ValueError(f"to_str_tokens: got {rows.size(0)} rows of tokens; give one")
        return [self.to_single_str_token(token) for token in rows[0].tolist()]

    def to_single_str_token(self, token: int) -> str:
        return self.tokenizer.id_to_piece(int(token)).replace("\N{LOWER ONE EIGHTH BLOCK}", " ")

    def to_single_token(self, string: str) -> int:
        """The id of a text that is one token. Raises ValueError for others."""
        ids = self.tokenizer.encode(string, bos=False)
        if len(ids) != 1:
            piece = string.replace(" ", "\N{LOWER ONE EIGHTH BLOCK}")
            token = self.tokenizer.piece_to_id(piece)
            if self.tokenizer.id_to_piece(token) != piece:
                raise ValueError(f"to_single_token: {string!r} is {len(ids)} tokens, not one")
            return token
        return ids[0]

    def get_token_position(self, single_token: str | int, input: Any, mode: str = "first") -> int:
        """Where a token is among those of a text; mode is "first" or "last"."""
        wanted = (
            self.to_single_token(single_token) if isinstance(single_token, str) else single_token
        )
        places = [i for i, token in enumerate(self.input_to_tokens(input)[0]) if token == wanted]
        if not places:
            raise ValueError(f"get_token_position: no token {single_token!r} in the input")
        return places[0 if mode == "first" else -1]
