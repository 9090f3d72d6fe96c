"""EmbeddingGemma: texts to vectors."""

from ._C import Dense, EmbeddingGemma, TextEncoder

__all__ = ["Dense", "EmbeddingGemma", "TextEncoder"]
