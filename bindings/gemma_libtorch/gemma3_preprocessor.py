"""gemma3_preprocessor.py of gemma_pytorch."""

from ._C import (
    gemma3_batch_input_preprocessor,
    gemma3_input_preprocessor,
    tokenize_raw_input,
)

__all__ = ["gemma3_batch_input_preprocessor", "gemma3_input_preprocessor", "tokenize_raw_input"]
