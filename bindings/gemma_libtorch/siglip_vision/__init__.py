"""siglip_vision of gemma_pytorch."""

from . import config

__all__ = ["config"]
