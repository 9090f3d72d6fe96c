"""siglip_vision/siglip_vision_model.py of gemma_pytorch."""

from .._C import (
    AveragePool2D,
    SiglipAttention,
    SiglipEncoderBlock,
    SiglipMLP,
    SiglipVisionModel,
)

__all__ = [
    "AveragePool2D",
    "SiglipAttention",
    "SiglipEncoderBlock",
    "SiglipMLP",
    "SiglipVisionModel",
]
