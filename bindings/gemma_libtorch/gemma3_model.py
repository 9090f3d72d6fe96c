"""gemma3_model.py of gemma_pytorch."""

from ._C import Gemma3ForMultimodalLM

__all__ = ["Gemma3ForMultimodalLM"]
