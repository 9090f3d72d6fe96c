"""tokenizer.py of gemma_pytorch."""

from ._C import Tokenizer

__all__ = ["Tokenizer"]
