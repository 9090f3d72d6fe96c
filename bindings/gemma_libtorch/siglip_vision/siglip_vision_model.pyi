"""siglip_vision/siglip_vision_model.py of gemma_pytorch: the modules, in C++.

Shapes: N images, P patches of an image, U tokens that an image becomes, E width of this model.
"""

from typing import type_check_only

import torch

from ..model import Embedding, Module, ModuleList
from .config import SiglipVisionModelConfig

@type_check_only
class BiasedLinear(Module):
    """What torch.nn.Linear is in the reference."""

    weight: torch.Tensor
    """[out_features, in_features]."""
    bias: torch.Tensor
    """[out_features]."""
    def __init__(self, in_features: int, out_features: int) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] -> [..., out_features]."""
    __call__ = forward

@type_check_only
class LayerNorm(Module):
    """What torch.nn.LayerNorm is in the reference."""

    weight: torch.Tensor
    """[dim], ones until loaded."""
    bias: torch.Tensor
    """[dim], zeros until loaded."""
    def __init__(self, dim: int, eps: float) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., dim] -> [..., dim]."""
    __call__ = forward

@type_check_only
class PatchEmbedding(Module):
    """What torch.nn.Conv2d is in the reference, its output flattened."""

    weight: torch.Tensor
    """[out_channels, in_channels, patch_size, patch_size]."""
    bias: torch.Tensor
    """[out_channels]. Only with use_bias: else AttributeError."""
    def __init__(
        self, in_channels: int, out_channels: int, patch_size: int, use_bias: bool
    ) -> None: ...
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, height, width] -> [N, P, out_channels]."""
    __call__ = forward

class SiglipAttention(Module):
    """Every patch attends to all patches of its image."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, P, E] -> [N, P, E]."""
    __call__ = forward
    @property
    def k_proj(self) -> BiasedLinear: ...
    @property
    def q_proj(self) -> BiasedLinear: ...
    @property
    def v_proj(self) -> BiasedLinear: ...
    @property
    def o_proj(self) -> BiasedLinear: ...

class SiglipMLP(Module):
    """fc2(gelu_tanh(fc1(x)))."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., E] -> [..., E]."""
    __call__ = forward
    @property
    def fc1(self) -> BiasedLinear: ...
    @property
    def fc2(self) -> BiasedLinear: ...

class SiglipEncoderBlock(Module):
    """Attention and MLP, with a norm before each."""

    def __init__(self, config: SiglipVisionModelConfig) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, P, E] -> [N, P, E]."""
    __call__ = forward
    @property
    def self_attn(self) -> SiglipAttention: ...
    @property
    def layer_norm1(self) -> LayerNorm: ...
    @property
    def mlp(self) -> SiglipMLP: ...
    @property
    def layer_norm2(self) -> LayerNorm: ...

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
    def patch_embedding(self) -> PatchEmbedding: ...
    @property
    def position_embedding(self) -> Embedding: ...
    @property
    def encoder_blocks(self) -> ModuleList[SiglipEncoderBlock]: ...
    @property
    def final_norm(self) -> LayerNorm: ...
    @property
    def avg_pool(self) -> AveragePool2D | None:
        """None in PaliGemma, where each patch is a token."""
    @property
    def config(self) -> SiglipVisionModelConfig:
        """The model's own copy."""
