"""JPEG and PNG files to pixels, without PIL."""

from .._C import decode_image, read_image

__all__ = ["decode_image", "read_image"]
