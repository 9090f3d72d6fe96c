"""siglip_vision of gemma_pytorch."""

from . import config, image, pan_and_scan, preprocessor, siglip_vision_model

__all__ = ["config", "image", "pan_and_scan", "preprocessor", "siglip_vision_model"]
