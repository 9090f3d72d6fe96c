"""siglip_vision/preprocessor.py of gemma_pytorch: images as the vision model takes them."""

from collections.abc import Sequence

import torch
from PIL import Image

DEFAULT_IMAGE_SIZE: int
"""Height and width in pixels: 896."""

def preprocess_images_for_siglip_vision(
    images: Sequence[Image.Image], image_size: int = 896
) -> list[torch.Tensor]:
    """Each image resized, whatever its aspect, with [0, 255] spread over [-1, 1].

    -> float32 [3, image_size, image_size] each. A PIL image of another mode than "RGB" is converted
    to it. Raises ValueError when image_size is not positive.
    """
