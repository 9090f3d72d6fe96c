"""Image files, resizing and PIL images, against Pillow; the reference is not needed."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from gemma_libtorch import gemma3_preprocessor
from gemma_libtorch.siglip_vision import image, pan_and_scan, preprocessor
from pictures import chunk, file_of, picture, png
from PIL import Image, ImageOps, PngImagePlugin

# Earlier ones resize every image by rows first.
HAS_COLUMNS_FIRST = int(PIL.__version__.split(".")[0]) >= 13


def as_tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture))


def expect_as_pillow(file: bytes) -> None:
    want = ImageOps.exif_transpose(Image.open(io.BytesIO(file)).convert("RGB"))
    assert torch.equal(image.decode_image(file), as_tensor(want))


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(61, 47), (8, 8), (1, 1), (17, 33), (130, 3)], ids=str)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
def test_jpeg_is_decoded_as_pillow_does(size, progressive: bool, subsampling: str) -> None:
    for quality in (20, 75, 95):
        expect_as_pillow(
            file_of(
                picture(*size),
                "JPEG",
                quality=quality,
                progressive=progressive,
                subsampling=subsampling,
            )
        )


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr"])
def test_jpeg_of_other_modes_is_decoded_as_pillow_does(mode: str) -> None:
    expect_as_pillow(file_of(picture(61, 47, mode), "JPEG"))


@pytest.mark.parametrize(
    "options",
    [{"keep_rgb": True}, {"restart_marker_blocks": 2}, {"optimize": True}, {"comment": "x" * 999}],
    ids=str,
)
def test_jpeg_with_options_is_decoded_as_pillow_does(options) -> None:
    expect_as_pillow(file_of(picture(61, 47), "JPEG", **options))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_is_decoded_as_pillow_does(mode: str) -> None:
    expect_as_pillow(file_of(picture(61, 47, mode), "PNG"))


@pytest.mark.parametrize(
    ("mode", "transparency"), [("L", 7), ("RGB", (1, 2, 3)), ("P", 5), ("P", bytes(range(64)))]
)
def test_transparent_colours_of_png_stay_what_they_are(mode: str, transparency) -> None:
    expect_as_pillow(file_of(picture(61, 47, mode), "PNG", transparency=transparency))


DEPTHS = [(0, depth) for depth in (1, 2, 4, 8, 16)] + [(3, depth) for depth in (1, 2, 4, 8)]
DEPTHS += [(type, depth) for type in (2, 4, 6) for depth in (8, 16)]


@pytest.mark.parametrize(("color_type", "depth"), DEPTHS)
def test_png_of_every_type_and_depth_is_decoded_as_pillow_does(color_type, depth) -> None:
    colors = min(2**depth, 200)  # Of 256, some indices have no colour.
    palette = bytes(i * 37 % 256 for i in range(3 * colors)) if color_type == 3 else b""
    for width in (1, 7, 16, 33):
        expect_as_pillow(png(width, 5, depth, color_type, palette))


# The passes of interlaced files, which Pillow cannot write: left, top, and steps along both.
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
ADAM7 += [(0, 1, 1, 2)]


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (33, 9)], ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_interlaced_png_is_decoded_as_pillow_does(size, mode: str) -> None:
    values = np.atleast_3d(np.array(picture(*size, mode)))
    rows = b""
    for left, top, step_x, step_y in ADAM7:
        part = values[top::step_y, left::step_x]
        if part.size:
            rows += b"".join(b"\0" + row.tobytes() for row in part)
    color_type = {"L": 0, "RGB": 2, "RGBA": 6}[mode]
    header = np.array(size, ">u4").tobytes() + bytes([8, color_type, 0, 0, 1])
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    file += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    expect_as_pillow(file)
    assert torch.equal(image.decode_image(file), as_tensor(picture(*size, mode).convert("RGB")))


# --- upright ---------------------------------------------------------------------------------------

XMP = "XML:com.adobe.xmp"
RAW_PROFILE = "Raw profile type exif"


def expect_upright_as_pillow(file: bytes) -> Image.Image:
    """Returns what Pillow makes of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of damaged Exif.
        want = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
    assert torch.equal(image.decode_image(file), as_tensor(want))
    return want


def exif_of(orientation: int, endian: str = "<") -> bytes:
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    exif[0x0112] = orientation
    exif.endian = endian
    return exif.tobytes()


def entry_of(type: int, value: bytes, count: int = 1, endian: str = "<") -> bytes:
    """Exif of one entry, the orientation; a value of more than 4 bytes follows it, at byte 26."""
    start = b"II*\0" if endian == "<" else b"MM\0*"
    field = value if len(value) <= 4 else struct.pack(endian + "I", 26)
    entry = struct.pack(endian + "HHI", 0x0112, type, count) + field.ljust(4, b"\0")
    return start + struct.pack(endian + "IH", 8, 1) + entry + bytes(4) + value


def raw_profile(exif: bytes) -> str:
    lines = "\n".join(exif[i : i + 36].hex() for i in range(0, len(exif), 36))
    return f"\nexif\n{len(exif):8}\n{lines}\n"


def attribute(orientation: int) -> str:
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'


def element(orientation: int) -> str:
    return f"<x:xmpmeta><tiff:Orientation>{orientation}</tiff:Orientation></x:xmpmeta>"


def png_with(*chunks: tuple[bytes, bytes], after: bool = False) -> bytes:
    texts = PngImagePlugin.PngInfo()
    for name, data in chunks:
        texts.add(name, data, after_idat=after)
    file = file_of(picture(31, 17), "PNG", pnginfo=texts)
    added = b"".join(chunk(*named) for named in chunks)
    if added not in file:  # Pillow writes no other chunks than private ones after the pixels.
        end = file.index(chunk(b"IEND", b"")) if after else file.index(b"IDAT") - 4
        file = file[:end] + added + file[end:]
    return file


def text_chunks(keyword: str, text: str) -> dict[str, tuple[bytes, bytes]]:
    """The same text as each of the three kinds of chunk, packed and not."""
    name, body = keyword.encode() + b"\0", text.encode()
    return {
        "tEXt": (b"tEXt", name + body),
        "zTXt": (b"zTXt", name + b"\0" + zlib.compress(body)),
        "iTXt": (b"iTXt", name + b"\0\0en\0word\0" + body),
        "packed iTXt": (b"iTXt", name + b"\1\0\0\0" + zlib.compress(body)),
    }


def jpeg_with(*segments: bytes) -> bytes:
    file = file_of(picture(31, 17), "JPEG")
    app1 = (b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data for data in segments)
    return file[:2] + b"".join(app1) + file[2:]


ADOBE = b"http://ns.adobe.com/xap/1.0/\0"


def carriers(orientation: int) -> dict[str, bytes]:
    """Files that say in each way that Pillow knows how they lie."""
    files = {}
    for endian in "<>":
        exif = exif_of(orientation, endian)
        bare = exif.removeprefix(b"Exif\0\0")
        files[f"JPEG {endian}"] = jpeg_with(exif)
        files[f"JPEG twice prefixed {endian}"] = jpeg_with(b"Exif\0\0" + exif)
        files[f"JPEG in two segments {endian}"] = jpeg_with(exif[:21], b"Exif\0\0" + exif[21:])
        files[f"PNG eXIf {endian}"] = png_with((b"eXIf", bare))
        files[f"PNG late eXIf {endian}"] = png_with((b"eXIf", bare), after=True)
        files[f"PNG text exif {endian}"] = png_with((b"tEXt", b"exif\0" + exif))
        for kind, text in text_chunks(RAW_PROFILE, raw_profile(exif)).items():
            files[f"PNG {kind} profile {endian}"] = png_with(text)
            files[f"PNG late {kind} profile {endian}"] = png_with(text, after=True)
    for write in (attribute, element):
        xmp = write(orientation)
        files[f"JPEG {write.__name__}"] = jpeg_with(ADOBE + xmp.encode())
        for kind, text in text_chunks(XMP, xmp).items():
            files[f"PNG {kind} {write.__name__}"] = png_with(text)
            files[f"PNG late {kind} {write.__name__}"] = png_with(text, after=True)
    return files


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("carrier", carriers(1))
def test_files_are_turned_upright_as_pillow_does(carrier: str, orientation: int) -> None:
    shown = expect_upright_as_pillow(carriers(orientation)[carrier])
    assert shown.size == ((17, 31) if 5 <= orientation <= 8 else (31, 17))


NUMBERS = {"H": 3, "I": 4, "b": 6, "h": 8, "i": 9, "f": 11, "d": 12, "L": 13, "Q": 16}


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", [0, 1, 6, 8, 9])
@pytest.mark.parametrize("format", NUMBERS)
def test_exif_numbers_of_every_type_count_as_for_pillow(format, orientation, endian) -> None:
    value = struct.pack(endian + format, orientation)
    exif = entry_of(NUMBERS[format], value, endian=endian)
    shown = expect_upright_as_pillow(png_with((b"eXIf", exif)))
    assert (shown.size == (17, 31)) == (orientation in (6, 8))


@pytest.mark.parametrize(
    "exif",
    [
        entry_of(1, b"\6"),
        entry_of(2, b"6\0", count=2),
        entry_of(5, struct.pack("<II", 12, 2)),
        entry_of(5, struct.pack("<II", 13, 2)),
        entry_of(5, struct.pack("<II", 6, 0)),
        entry_of(3, struct.pack("<HHH", 6, 1, 1), count=3),
        entry_of(3, struct.pack("<HH", 6, 1), count=2),
        entry_of(3, b"\6\0", count=0),
        entry_of(7, b"\6"),
        entry_of(14, b"\6\0\0\0"),
        entry_of(17, struct.pack("<Q", 6)),
        entry_of(16, struct.pack("<Q", 6))[:-1],
        entry_of(16, struct.pack("<Q", 6), count=2**32 - 1),
        entry_of(3, b"\6\0")[:21],
        entry_of(3, b"\6\0")[:22],
        b"II\0*" + entry_of(3, b"\6\0")[4:],
        b"MM*\0" + entry_of(3, b"\0\6", endian=">")[4:],
        b"MM\0+" + entry_of(3, b"\0\6", endian=">")[4:],
        b"II*\0" + struct.pack("<I", 2**32 - 1),
        b"",
    ],
    ids=repr,
)
@pytest.mark.parametrize("xmp", [None, 3, 6])
def test_odd_exif_counts_as_for_pillow(exif: bytes, xmp: int | None) -> None:
    texts = [] if xmp is None else [text_chunks(XMP, attribute(xmp))["iTXt"]]
    expect_upright_as_pillow(png_with((b"eXIf", exif), *texts))


@pytest.mark.parametrize(
    "behind",
    [
        b"\x0f\1\2\0\4\0\0\0abc\0",
        b"\x0f\1\x63\0\1\0\0\0\0\0\0\0",
        b"\x0f\1\2\0\xff\xff\xff\xff\0\0\0\0",
        b"\x0f\1\2\0\5\0\0\0\xff\0\0\0",
        b"\x12\1\3\0\1\0\0\0\4\0\0\0",
    ],
    ids=repr,
)
def test_an_entry_is_found_behind_others_as_by_pillow(behind: bytes) -> None:
    exif = entry_of(3, b"\6\0")
    expect_upright_as_pillow(png_with((b"eXIf", exif[:8] + b"\2\0" + behind + exif[10:])))


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("second", range(4))
def test_of_several_places_the_one_counts_that_pillow_takes(first: int, second: int) -> None:
    bare = exif_of(6)[6:]
    chunks = [
        (b"eXIf", bare),
        text_chunks(RAW_PROFILE, raw_profile(exif_of(3)))["zTXt"],
        text_chunks(XMP, attribute(2))["iTXt"],
        text_chunks(XMP, element(8))["tEXt"],
    ]
    expect_upright_as_pillow(png_with(chunks[first], chunks[second]))


@pytest.mark.parametrize(
    "xmp",
    [
        "tiff:Orientation='6'",
        'tiff:Orientation tiff:Orientation="6"',
        "tiff:Orientation>66",
        'tiff:Orientation="9" tiff:Orientation="6"',
        'tiff:Orientation=">6',
        "é tiff:Orientation>8",
    ],
)
def test_odd_xmp_counts_as_for_pillow(xmp: str) -> None:
    expect_upright_as_pillow(jpeg_with(ADOBE + xmp.encode()))
    expect_upright_as_pillow(jpeg_with(ADOBE + b"tiff:Orientation>2", ADOBE + xmp.encode()))
    for text in text_chunks(XMP, xmp).values():
        expect_upright_as_pillow(png_with(text))


@pytest.mark.parametrize(
    "exif", [b"", b"II", b"II*\0", b"XX*\0\x08\0\0\0\0\0", b"II+\0\x08\0\0\0"]
)
def test_damaged_exif_loses_no_picture(exif: bytes) -> None:
    upright = as_tensor(picture(31, 17))
    assert torch.equal(image.decode_image(png_with((b"eXIf", exif))), upright)
    profile = text_chunks(RAW_PROFILE, raw_profile(exif) + "x")
    assert torch.equal(image.decode_image(png_with(profile["zTXt"])), upright)
    for segments in ([], [ADOBE + attribute(6).encode()]):
        expect_upright_as_pillow(jpeg_with(b"Exif\0\0" + exif, *segments))


# --- bad files ------------------------------------------------------------------------------------


def test_read_image_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a picture.of no type"
    path.write_bytes(file_of(picture(31, 17), "PNG"))
    for name in (path, str(path)):
        assert torch.equal(image.read_image(name), as_tensor(picture(31, 17)))


def test_what_is_no_image_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.png: there is no such file"):
        image.read_image(tmp_path / "nowhere.png")
    with pytest.raises(RuntimeError, match="is not a file"):
        image.read_image(tmp_path)
    with pytest.raises(RuntimeError, match="a.gif: is neither a JPEG nor a PNG file"):
        image.decode_image(file_of(picture(3, 3), "GIF"), "a.gif")
    with pytest.raises(RuntimeError, match="b.png: has 61 x 47 pixels, but at most 2866 are read"):
        image.decode_image(file_of(picture(61, 47), "PNG"), "b.png", max_pixels=61 * 47 - 1)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_truncated_file_is_an_error(format: str, progressive: bool) -> None:
    options = {"progressive": progressive} if format == "JPEG" else {}
    file = file_of(picture(61, 47), format, **options)
    for part in range(20):
        with pytest.raises(RuntimeError, match="^read_image: x: is [^\n]*$"):
            image.decode_image(file[: len(file) * part // 20], "x")


# --- PIL images -----------------------------------------------------------------------------------


def wanted(picture: Image.Image, size: int) -> torch.Tensor:
    resized = picture.resize((size, size), Image.Resampling.BILINEAR)
    shares = torch.from_numpy(np.array(resized, dtype=np.float32) / 255.0).permute(2, 0, 1)
    return ((shares - 0.5) / 0.5).clamp(-1, 1)


def test_images_of_every_size_are_resized_as_pillow_does() -> None:
    draw = np.random.default_rng(0)
    left_out = 0
    for _ in range(400):
        width, height, size = (int(value) for value in draw.integers(1, 80, 3))
        if height - size > max(2 * (width - size), 0) and not HAS_COLUMNS_FIRST:
            left_out += 1
            continue
        image = picture(width, height)
        (got,) = preprocessor.preprocess_images_for_siglip_vision([image], size)
        assert torch.equal(got, wanted(image, size)), (width, height, size)
    if left_out:
        pytest.skip(f"{left_out} of 400 sizes: Pillow {PIL.__version__} resizes rows first")


@pytest.mark.parametrize("size", [(4000, 11), (11, 4000), (1, 900), (900, 1)], ids=str)
def test_images_of_extreme_sizes_are_resized_as_pillow_does(size) -> None:
    if not HAS_COLUMNS_FIRST and size[1] > size[0]:
        pytest.skip(f"Pillow {PIL.__version__} resizes rows first")
    image = picture(*size)
    (got,) = preprocessor.preprocess_images_for_siglip_vision([image], 56)
    assert torch.equal(got, wanted(image, 56))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "HSV"])
def test_images_of_other_modes_are_converted_as_pillow_does(mode: str) -> None:
    image = picture(61, 47, "RGB" if mode == "HSV" else mode)
    image = image.convert("HSV") if mode == "HSV" else image
    (got,) = preprocessor.preprocess_images_for_siglip_vision([image], 56)
    assert torch.equal(got, wanted(image.convert("RGB"), 56))


def test_crops_are_pil_images() -> None:
    image = picture(1001, 300)
    crops, positions = pan_and_scan.pan_and_scan_os_with_crop_positions(image)
    assert positions == [(0, 0, 300, 334), (0, 334, 300, 668), (0, 668, 300, 1002)]
    assert [crop.size for crop in crops] == [(334, 300)] * 3
    for crop, (top, left, bottom, right) in zip(crops, positions, strict=True):
        assert crop.tobytes() == image.crop((left, top, right, bottom)).tobytes()


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(ValueError, match="image_size is 0, but must be at least 1 pixel"):
        preprocessor.preprocess_images_for_siglip_vision([], 0)
    with pytest.raises(ValueError, match="min_crop_size is 0 and max_num_crops is 4"):
        pan_and_scan.pan_and_scan(picture(3, 3), min_crop_size=0)
    with pytest.raises(TypeError):
        pan_and_scan.pan_and_scan("not an image")
    with pytest.raises(TypeError):
        gemma3_preprocessor.gemma3_input_preprocessor([1])


def test_a_damaged_pil_image_raises_what_pil_raises() -> None:
    file = file_of(picture(61, 47), "PNG")
    image = Image.open(io.BytesIO(file[: len(file) // 2]))
    with pytest.raises(OSError, match="truncated"):
        preprocessor.preprocess_images_for_siglip_vision([image], 56)


def test_pil_is_needed_only_for_pil_images() -> None:
    code = """
import sys
sys.modules["PIL"] = None  # As if it were not installed.
from gemma_libtorch import gemma3_preprocessor
from gemma_libtorch.siglip_vision import image, pan_and_scan, preprocessor
assert gemma3_preprocessor.gemma3_input_preprocessor(["text"]) == ["text"]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
