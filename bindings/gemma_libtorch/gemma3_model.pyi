"""gemma3_model.py of gemma_pytorch: the multimodal model, in C++.

Shapes: B batch, N images of a prompt, C their channels, U the tokens that an image becomes,
L input length, S cache length, E hidden, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image

from .config import GemmaConfig
from .model import Embedding, GemmaModel, LanguageModel, Linear, RMSNorm, Sampler
from .siglip_vision.siglip_vision_model import SiglipVisionModel

class Gemma3ForMultimodalLM(LanguageModel):
    """Text and images."""

    local_freqs_cis: torch.Tensor
    """complex64 [2 * max_position_embeddings, D / 2]."""
    global_freqs_cis: torch.Tensor
    """Likewise; config.rope_scaling_factor divides its frequencies."""

    def __init__(self, config: GemmaConfig) -> None:
        """Weights take torch's default dtype, and config.dtype, the KV cache's, has to agree.

        Raises ValueError, naming the field, when no model can be built from the config, and
        FileNotFoundError when config.tokenizer names no file.
        """
    def forward(
        self,
        input_token_ids: torch.Tensor,
        image_patches: torch.Tensor | None,
        image_presence_mask: torch.Tensor | None,
        input_positions: torch.Tensor,
        kv_caches: Sequence[tuple[torch.Tensor, torch.Tensor]],
        mask: torch.Tensor,
        output_positions: torch.Tensor,
        temperatures: torch.Tensor | None,
        top_ps: torch.Tensor,
        top_ks: torch.Tensor,
        local_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """-> (next tokens [B] int64, logits [B, V]), see Sampler; writes kv_caches in place.

        image_patches [B, N, C, height, width], of which image_presence_mask [B, N] bool says which
        are images; mask and local_mask float32 [1 or B, 1, L, S]; the rest as GemmaForCausalLM
        takes it. kwargs are not read.
        """
    __call__ = forward
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """[N, C, height, width] -> [N, U, E], as the layers see them."""
    def populate_image_embeddings(
        self,
        hidden_states: torch.Tensor,
        image_embeddings: torch.Tensor,
        input_token_ids: torch.Tensor,
        image_presence_mask: torch.Tensor,
    ) -> torch.Tensor:
        """hidden_states [B, L, E] with image_embeddings [B * N, U, E] in the placeholders' places.

        Raises ValueError when there are not as many places.
        """
    def create_attention_mask(
        self, input_ids: torch.Tensor, sequence_length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What tokens see in global and in local layers, bool [B, 1, S, S] each."""
    def generate(
        self,
        prompts: Sequence[Sequence[str | Image.Image]],
        device: torch.device | str,
        output_len: int = 100,
        temperature: float | None = 1.0,
        top_p: float = 0.95,
        top_k: int = 64,
        *,
        on_token: Callable[[int, int], object] | None = None,
        stop_ids: Sequence[int] = (),
        kv_dtype: torch.dtype | None = None,
        reference_tail_mask: bool = True,
    ) -> list[str]:
        """Continues prompts of text and images -> prompts and continuations, to before an eos.

        A shorter prompt gets correspondingly more tokens, as in the reference.
        reference_tail_mask: with exact numerics a generated token sees the empty places after it
        too, as in the reference; else, and with fast numerics, what it sees does not depend on
        output_len. The rest is as GemmaForCausalLM.generate has it.
        """
    @staticmethod
    def from_transformers(model: Any, tokenizer: str | None = None) -> Gemma3ForMultimodalLM:
        """A model with the weights and config of a Gemma3ForConditionalGeneration of Hugging Face
        transformers.

        As GemmaForCausalLM.from_transformers; the projection of images, transposed here, is copied
        too. Raises ValueError for a model of text alone.
        """
    def to_transformers_state_dict(self, model: Any) -> dict[str, torch.Tensor]:
        """The weights for the load_state_dict of `model`, a Gemma3ForConditionalGeneration, under its
        own names, which differ from release to release: views.

        Raises ValueError for a quantised model.
        """
    @property
    def text_token_embedder(self) -> Embedding: ...
    @property
    def model(self) -> GemmaModel: ...
    @property
    def sampler(self) -> Sampler: ...
    @property
    def siglip_vision_model(self) -> SiglipVisionModel: ...
    @property
    def mm_soft_embedding_norm(self) -> RMSNorm: ...
    @property
    def mm_input_projection(self) -> Linear: ...
