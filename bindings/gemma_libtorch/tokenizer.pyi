"""tokenizer.py of gemma_pytorch: text <-> token ids, by a SentencePiece model."""

from collections.abc import Sequence

class Tokenizer:
    def __init__(self, model_path: str) -> None:
        """A SentencePiece model with the tokens that Hugging Face's files beside it add, a
        tokenizer.json, or the tokenizer in a GGUF file.

        Raises FileNotFoundError, or RuntimeError when the file is none of them.
        """
    def encode(self, s: str | bytes, bos: bool = True, eos: bool = False) -> list[int]:
        """Token ids of a text. Bytes that are not UTF-8 are read as U+FFFD, one each."""
    def decode(self, t: Sequence[int]) -> str:
        """Text of token ids; control tokens become nothing.

        Raises IndexError for an id outside [0, n_words).
        """
    def id_to_piece(self, id: int) -> str:
        """A piece as the model spells it ("▁the"). Raises as decode does."""
    def piece_to_id(self, piece: str) -> int:
        """The id of a piece; that of "<unk>" when there is none."""
    @property
    def n_words(self) -> int:
        """Pieces in the vocabulary."""
    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def boi_id(self) -> int:
        """Begin of an image; the same number for every model, as in the reference."""
    @property
    def eoi_id(self) -> int:
        """End of an image."""
    @property
    def image_token_placeholder_id(self) -> int:
        """What stands between boi_id and eoi_id: pad_id."""
