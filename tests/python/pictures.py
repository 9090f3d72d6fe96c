"""Pictures for the tests of images: smooth enough for JPEG, with noise that shows a lost bit."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    draw = np.random.default_rng(width * 10_007 + height)
    y, x = np.mgrid[:height, :width]
    slopes = (x[..., None] * [3, 1, 2] + y[..., None] * [1, 2, 5]) % 256
    noise = draw.integers(0, 256, (height, width, 3))
    image = Image.fromarray(((slopes * 3 + noise) // 4).astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray(draw.integers(0, 65536, (height, width), dtype=np.uint16))
    if mode in ("LA", "RGBA"):
        image = image.convert("RGBA")
        image.putalpha(Image.fromarray(noise[..., 0].astype(np.uint8)))
    return image.convert(mode)


def file_of(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, color_type: int, palette: bytes = b"") -> bytes:
    """A PNG file of noise, of any colour type and depth."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    row_size = (width * channels * depth + 7) // 8
    draw = np.random.default_rng(depth * 10 + color_type)
    rows = b"".join(b"\0" + draw.bytes(row_size) for _ in range(height))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)),
            chunk(b"PLTE", palette) if palette else b"",
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )
