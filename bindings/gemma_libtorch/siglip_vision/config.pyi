"""siglip_vision/config.py of gemma_pytorch."""

from typing import ClassVar

class SiglipVisionModelConfig:
    """Fields, order and defaults are the reference's; behaves as GemmaConfig does."""

    num_hidden_layers: int
    embedding_dim: int
    embedding_use_bias: bool
    input_channels: int
    image_size: int
    """Height and width in pixels."""
    num_attention_heads: int
    head_dim: int
    num_key_value_heads: int
    num_query_groups: int
    qkv_use_bias: bool
    output_proj_use_bias: bool
    intermediate_size: int
    layer_norm_eps: float
    dtype: str
    quant: bool
    encoding_sequence_length: int
    """Tokens that one image becomes."""
    conv2d_patch_size: int
    """14 until set. Not a parameter of the constructor: in the reference it is no field."""

    __match_args__: ClassVar[tuple[str, ...]]
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(
        self,
        num_hidden_layers: int = 27,
        embedding_dim: int = 1152,
        embedding_use_bias: bool = True,
        input_channels: int = 3,
        image_size: int = 896,
        num_attention_heads: int = 16,
        head_dim: int = 72,
        num_key_value_heads: int = 16,
        num_query_groups: int = 16,
        qkv_use_bias: bool = True,
        output_proj_use_bias: bool = True,
        intermediate_size: int = 4304,
        layer_norm_eps: float = 1e-6,
        dtype: str = "bfloat16",
        quant: bool = False,
        encoding_sequence_length: int = 256,
    ) -> None:
        """Raises TypeError for an unknown field or a value of the wrong type."""
    def __copy__(self) -> SiglipVisionModelConfig: ...
    def __deepcopy__(self, memo: dict[int, object], /) -> SiglipVisionModelConfig: ...
    def __eq__(self, other: object, /) -> bool: ...

def get_siglip_vision_model_config() -> SiglipVisionModelConfig:
    """The defaults."""
