"""config.py of gemma_pytorch: what a model is made of, and the published variants.

Shapes: B batch, L input length, S cache length, H query heads, K key/value heads, D head dim,
E hidden, V vocabulary.
"""

import enum
import os
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from .siglip_vision.config import SiglipVisionModelConfig

class AttentionType(enum.Enum):
    GLOBAL = 1
    LOCAL_SLIDING = 2

class Architecture(enum.Enum):
    GEMMA_1 = 1
    GEMMA_2 = 2
    GEMMA_3 = 3

class GemmaConfig:
    """Fields, order and defaults (those of 7b) are the reference's.

    Like a dataclass it compares by value, prints its fields, can be copied and pickled; unlike one it
    refuses an attribute that is not a field (AttributeError) and a value of the wrong type
    (TypeError). A model keeps a copy of the config that it is given.
    """

    architecture: Architecture
    vocab_size: int
    """V, the rows of the embedding."""
    max_position_embeddings: int
    """Longest prompt plus output, in tokens."""
    num_hidden_layers: int
    num_attention_heads: int
    """H."""
    num_key_value_heads: int
    """K; divides H."""
    hidden_size: int
    """E."""
    intermediate_size: int
    head_dim: int
    """D; independent of hidden_size / num_attention_heads."""
    rms_norm_eps: float
    dtype: str
    """The KV cache's dtype. Weights take torch's default dtype at construction."""
    quant: bool
    """int8 weights with one scale a row."""
    tokenizer: str | None
    """Path of the SentencePiece model; None for a model without generate()."""
    sliding_window_size: int | None
    """Keys that a local layer sees, the token itself included."""
    final_logit_softcapping: float | None
    attn_logit_softcapping: float | None
    query_pre_attn_scalar: int | None
    """Queries are scaled by this to the power -1/2; head_dim when None."""
    use_pre_ffw_norm: bool
    use_post_ffw_norm: bool
    use_qk_norm: bool
    """RMSNorm of queries and keys over D."""
    vision_config: SiglipVisionModelConfig | None
    rope_scaling_factor: int | None
    """Divides the rotary frequencies of global layers."""

    @property
    def attn_types(self) -> list[AttentionType] | None:
        """Layer i has type attn_types[i % len]; None: all layers are global.

        Reading gives a copy: assign a new list to change it.
        """
    @attn_types.setter
    def attn_types(self, value: Sequence[AttentionType] | None) -> None: ...
    @property
    def rope_wave_length(self) -> dict[AttentionType, int] | None:
        """Base of the rotary embedding for each type of attention (Gemma 3).

        Reading gives a copy: assign a new dict to change it.
        """
    @rope_wave_length.setter
    def rope_wave_length(self, value: Mapping[AttentionType, int] | None) -> None: ...

    __match_args__: ClassVar[tuple[str, ...]]
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(
        self,
        architecture: Architecture = Architecture.GEMMA_1,
        vocab_size: int = 256000,
        max_position_embeddings: int = 8192,
        num_hidden_layers: int = 28,
        num_attention_heads: int = 16,
        num_key_value_heads: int = 16,
        hidden_size: int = 3072,
        intermediate_size: int = 24576,
        head_dim: int = 256,
        rms_norm_eps: float = 1e-6,
        dtype: str = "bfloat16",
        quant: bool = False,
        tokenizer: str | None = "tokenizer/tokenizer.model",
        attn_types: Sequence[AttentionType] | None = None,
        sliding_window_size: int | None = None,
        final_logit_softcapping: float | None = None,
        attn_logit_softcapping: float | None = None,
        query_pre_attn_scalar: int | None = None,
        use_pre_ffw_norm: bool = False,
        use_post_ffw_norm: bool = False,
        rope_wave_length: Mapping[AttentionType, int] | None = None,
        use_qk_norm: bool = False,
        vision_config: SiglipVisionModelConfig | None = None,
        rope_scaling_factor: int | None = None,
    ) -> None:
        """Raises TypeError for an unknown field or a value of the wrong type.

        Whether a model can be built from the fields is checked when one is built.
        """
    def get_dtype(self) -> torch.dtype:
        """The type that `dtype` names. Raises ValueError for an unknown name."""
    @staticmethod
    def from_pretrained(path: str | os.PathLike[str]) -> GemmaConfig:
        """The config of the model that load_weights would load from `path`, with its tokenizer.

        Of a directory the config.json; of a file the metadata of GGUF, what `gemma convert` put in
        a .ckpt, or the variant whose shapes it has. The tokenizer is the GGUF file, or
        tokenizer.model beside the weights, or None. Raises FileNotFoundError when there is nothing
        at `path`, and RuntimeError, naming the file and the field, when nothing says what model it
        is, and for one that is no Gemma 1, 2 or 3.
        """
    def to_hf(self) -> str:
        """The text of config.json for Hugging Face transformers.

        Raises ValueError, naming the field, when transformers has no such model.
        """
    def __copy__(self) -> GemmaConfig: ...
    def __deepcopy__(self, memo: dict[int, object], /) -> GemmaConfig: ...
    def __eq__(self, other: object, /) -> bool: ...

def get_config_for_7b(dtype: str = "bfloat16") -> GemmaConfig: ...
def get_config_for_2b(dtype: str = "bfloat16") -> GemmaConfig: ...
def get_config_for_2b_v2(dtype: str = "bfloat16") -> GemmaConfig: ...
def get_config_for_9b(dtype: str = "bfloat16") -> GemmaConfig: ...
def get_config_for_27b(dtype: str = "bfloat16") -> GemmaConfig: ...
# Those of Gemma 3 have no default, as in the reference.
def get_config_for_270m(dtype: str) -> GemmaConfig: ...
def get_config_for_1b(dtype: str) -> GemmaConfig: ...
def get_config_for_4b(dtype: str) -> GemmaConfig: ...
def get_config_for_12b(dtype: str) -> GemmaConfig: ...
def get_config_for_27b_v3(dtype: str) -> GemmaConfig: ...
def model_variants() -> list[str]:
    """The names that get_model_config takes."""

def get_model_config(variant: str, dtype: str = "bfloat16") -> GemmaConfig:
    """The config of a variant such as "1b".

    Raises ValueError for an unknown variant or dtype, listing the valid ones.
    """
