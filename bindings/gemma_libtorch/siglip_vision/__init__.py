"""siglip_vision of gemma_pytorch."""

from . import config, image, pan_and_scan, preprocessor

__all__ = ["config", "image", "pan_and_scan", "preprocessor"]
