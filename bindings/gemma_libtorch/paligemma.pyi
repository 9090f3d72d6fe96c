"""PaliGemma 1 and 2: questions about images, boxes and masks.

Shapes: B batch, L input length, n images, C their channels, P tokens that an image becomes, E
hidden, V vocabulary.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, overload

import torch
from PIL import Image

from .config import GemmaConfig
from .model import Embedding, GemmaModel, LanguageModel, Module, Sampler
from .siglip_vision.config import SiglipVisionModelConfig
from .siglip_vision.siglip_vision_model import BiasedLinear, SiglipVisionModel

class PaliGemmaConfig:
    """SigLIP without pooling, and a Gemma 1 or 2 that continues its patches and a text."""

    text_config: GemmaConfig
    vision_config: SiglipVisionModelConfig
    projection_dim: int
    """What a patch is projected to: text_config.hidden_size."""
    image_token_id: int
    """Stands in input_ids where an image does. It need not be in the vocabulary."""

    __match_args__: ClassVar[tuple[str, ...]]
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(
        self,
        text_config: GemmaConfig = ...,
        vision_config: SiglipVisionModelConfig = ...,
        projection_dim: int = 2048,
        image_token_id: int = 257152,
    ) -> None:
        """Raises TypeError for an unknown field or a value of the wrong type."""
    def __copy__(self) -> PaliGemmaConfig: ...
    def __deepcopy__(self, memo: dict[int, object], /) -> PaliGemmaConfig: ...
    def __eq__(self, other: object, /) -> bool: ...
    @property
    def image_seq_length(self) -> int:
        """P."""
    @staticmethod
    def from_pretrained(path: str | os.PathLike[str]) -> PaliGemmaConfig:
        """That of a Hugging Face directory or of a file of a published size.

        Raises RuntimeError when the weights are of another family, or nothing says the config.
        """

def paligemma_variants() -> list[str]:
    """The names that get_paligemma_config takes: "paligemma-3b-224" to "paligemma2-28b-896"."""

def get_paligemma_config(variant: str, dtype: str = "bfloat16") -> PaliGemmaConfig:
    """The config of a published size. Raises ValueError listing the valid names."""

class PaliGemmaMultiModalProjector(Module):
    def __init__(self, config: PaliGemmaConfig) -> None: ...
    def forward(self, image_features: torch.Tensor) -> torch.Tensor:
        """[n, P, width of the vision model] -> [n, P, E]."""
    __call__ = forward
    @property
    def linear(self) -> BiasedLinear: ...

class PaliGemmaForConditionalGeneration(LanguageModel):
    """The prefix, which is images, a text and a line break, sees all of itself, in local layers
    too; what follows it sees what is before it.

    With exact numerics it takes the steps of gemma_pytorch, and is within 1e-5 of transformers in
    float32.
    """

    freqs_cis: torch.Tensor
    """complex64 [2 * max_position_embeddings, D / 2]."""

    def __init__(self, config: PaliGemmaConfig) -> None:
        """Weights take torch's default dtype, and text_config.dtype, the KV cache's, has to agree.

        Raises ValueError, naming the field, when no model can be built from the config, and
        FileNotFoundError when text_config.tokenizer names no file.
        """
    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """input_ids [B, L], pixel_values [n, C, height, width] -> logits [B, L, V].

        The images stand in the places of config.image_token_id, in order. token_type_ids [B, L] is
        0 for the prefix and 1 for what follows it; without it all is prefix (in transformers: none
        of it). Raises ValueError when the places are not as many as the images have tokens.
        """
    __call__ = forward
    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """[n, C, height, width] -> [n, P, E], as the layers see them."""
    @overload
    def generate(
        self,
        prompts: str,
        images: Image.Image | Sequence[Image.Image] | None,
        output_len: int = 100,
        temperature: float | None = None,
        top_p: float = 1.0,
        top_k: int = 64,
        *,
        on_token: Callable[[int, int], object] | None = None,
        stop_ids: Sequence[int] = (),
        kv_dtype: torch.dtype | None = None,
    ) -> str:
        """Answers a prompt about an image, or several -> the answer, to before the first eos.

        Without a temperature it takes the likeliest token. The rest is as GemmaForCausalLM.generate
        has it.
        """
    @overload
    def generate(
        self,
        prompts: Sequence[str],
        images: Sequence[Image.Image | Sequence[Image.Image] | None],
        output_len: int = 100,
        temperature: float | None = None,
        top_p: float = 1.0,
        top_k: int = 64,
        *,
        on_token: Callable[[int, int], object] | None = None,
        stop_ids: Sequence[int] = (),
        kv_dtype: torch.dtype | None = None,
    ) -> list[str]:
        """Several prompts, with images for each."""
    @staticmethod
    def from_transformers(
        model: Any, tokenizer: str | None = None
    ) -> PaliGemmaForConditionalGeneration:
        """A model with the weights and config of a PaliGemmaForConditionalGeneration of Hugging Face
        transformers, as GemmaForCausalLM.from_transformers.
        """
    @property
    def config(self) -> PaliGemmaConfig: ...  # type: ignore[override]
    @property
    def text_token_embedder(self) -> Embedding: ...
    @property
    def model(self) -> GemmaModel: ...
    @property
    def sampler(self) -> Sampler: ...
    @property
    def siglip_vision_model(self) -> SiglipVisionModel: ...
    @property
    def multi_modal_projector(self) -> PaliGemmaMultiModalProjector: ...

class LocatedObject:
    """A thing that an answer names: "<loc0100><loc0200><loc0300><loc0400> cat"."""

    @property
    def place(self) -> list[int] | None:
        """Top, left, bottom and right, 0 to 1023 of 1024ths of the picture."""
    @property
    def mask(self) -> list[int]:
        """The 16 <segNNN> that a decoder of masks takes; empty: none."""
    @property
    def label(self) -> str: ...
    def box(self, height: int, width: int) -> tuple[float, float, float, float] | None:
        """Left, top, right and bottom in a picture of this size; None without a place."""

def parse_locations(answer: str) -> list[LocatedObject]:
    """The things in an answer, which are separated by ";"; what has no place is a label alone."""

def paligemma_pixel_values(image: Image.Image, image_size: int) -> torch.Tensor:
    """The image resized, whatever its aspect, with [0, 255] spread over [-1, 1].

    -> float32 [3, image_size, image_size]. Raises ValueError when image_size is not positive.
    """
