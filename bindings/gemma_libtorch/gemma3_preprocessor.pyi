"""gemma3_preprocessor.py of gemma_pytorch: prompts of text and images -> tensors.

An image is a PIL image; one of another mode than "RGB" is converted to it.
"""

from collections.abc import Sequence
from typing import TypedDict

import torch
from PIL import Image

from .config import GemmaConfig
from .tokenizer import Tokenizer

class _ProcessedPrompts(TypedDict):
    user_input_token_ids: torch.Tensor
    """[B, max_seq_len] int64: each prompt, bos first, then pad_id."""
    image_batch: torch.Tensor | None
    """[B, N, C, H, W] float32, zeros where a prompt has fewer than N images."""
    batch_size: int
    min_prompt_len: int
    max_prompt_len: int
    max_seq_len: int
    """max_prompt_len + output_len."""
    image_presence_mask: torch.Tensor | None
    """[B, N] bool: which of image_batch are images."""

def gemma3_input_preprocessor(
    raw_user_prompt: Sequence[str | Image.Image],
) -> list[str | torch.Tensor]:
    """Text as it is; each image as float32 [3, 896, 896], with its crops if it is a long one."""

def gemma3_batch_input_preprocessor(
    raw_input: Sequence[Sequence[str | Image.Image]],
) -> list[list[str | torch.Tensor]]:
    """The above for each prompt."""

def tokenize_raw_input(
    tokenizer_obj: Tokenizer,
    raw_input: Sequence[Sequence[str | Image.Image]],
    config: GemmaConfig,
    output_len: int,
    device: torch.device | str | int,
) -> _ProcessedPrompts:
    """Token ids and images of a batch of prompts, padded to one length and number.

    Raises ValueError when the config has no vision_config, there are no prompts, or output_len is
    negative.
    """
