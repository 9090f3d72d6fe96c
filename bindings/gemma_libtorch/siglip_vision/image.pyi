"""JPEG and PNG files to pixels, without PIL.

The colours are those of PIL's Image.open(path).convert("RGB"); pictures are turned upright, as
ImageOps.exif_transpose does.
"""

import os

import torch

def read_image(path: str | os.PathLike[str], max_pixels: int = 178956970) -> torch.Tensor:
    """-> uint8 [height, width, 3].

    Raises FileNotFoundError, or RuntimeError, naming the file, when it is neither JPEG nor PNG,
    damaged, truncated, or has more than max_pixels.
    """

def decode_image(bytes: bytes, name: str = "image", max_pixels: int = 178956970) -> torch.Tensor:
    """The same for a file's bytes; `name` stands in messages."""
