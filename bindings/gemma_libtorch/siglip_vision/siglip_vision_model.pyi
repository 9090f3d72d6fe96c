"""siglip_vision/siglip_vision_model.py of gemma_pytorch: the modules, in C++.

Shapes: N images, P patches of an image, U tokens that an image becomes, E width of this model.
"""

import torch

from ..model import Module
from .config import SiglipVisionModelConfig

class SiglipAttention(Module):
    """Every patch attends to all patches of its image."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, P, E] -> [N, P, E]."""
    __call__ = forward

class SiglipMLP(Module):
    """fc2(gelu_tanh(fc1(x)))."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., E] -> [..., E]."""
    __call__ = forward

class SiglipEncoderBlock(Module):
    """Attention and MLP, with a norm before each."""

    def __init__(self, config: SiglipVisionModelConfig) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, P, E] -> [N, P, E]."""
    __call__ = forward

class AveragePool2D(Module):
    """Means of squares of 4 x 4 patches."""

    def __init__(self, config: SiglipVisionModelConfig) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, P, E] -> [N, P / 16, E]. Raises ValueError when P is no square number."""
    __call__ = forward

class SiglipVisionModel(Module):
    """Pictures to tokens."""

    def __init__(self, config: SiglipVisionModelConfig) -> None:
        """Weights take torch's default dtype. Raises ValueError, naming the field."""
    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [N, C, image_size, image_size], -1 to 1 -> [N, U, E].

        Pixels are cast to the weights' dtype, where the reference raises RuntimeError.
        """
    __call__ = forward
    @property
    def config(self) -> SiglipVisionModelConfig:
        """The model's own copy."""
