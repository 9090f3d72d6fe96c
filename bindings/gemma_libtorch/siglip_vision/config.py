"""siglip_vision/config.py of gemma_pytorch."""

from .._C import SiglipVisionModelConfig, get_siglip_vision_model_config

__all__ = ["SiglipVisionModelConfig", "get_siglip_vision_model_config"]
