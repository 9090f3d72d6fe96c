"""What a model is made of, as a table."""

from ._C import summary

__all__ = ["summary"]
