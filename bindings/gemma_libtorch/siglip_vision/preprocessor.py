"""siglip_vision/preprocessor.py of gemma_pytorch."""

from .._C import DEFAULT_IMAGE_SIZE, preprocess_images_for_siglip_vision

__all__ = ["DEFAULT_IMAGE_SIZE", "preprocess_images_for_siglip_vision"]
