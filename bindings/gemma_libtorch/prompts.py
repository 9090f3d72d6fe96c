"""Prompts in the form that a model was trained on: chats, and texts with a gap."""

from ._C import ChatPrompt, FimPrompt

__all__ = ["ChatPrompt", "FimPrompt"]
