"""Writes the seeds of image_fuzz: small JPEG and PNG files of many kinds, and Exif data.

    python tests/fuzz/make_image_corpus.py corpus
"""

import itertools
import pathlib
import struct
import sys
import zlib

from PIL import Image, PngImagePlugin

ORIENTATION = 0x0112


def picture(mode):
    ramp = Image.linear_gradient("L").resize((19, 13))
    return Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180))).convert(mode)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(depth, color_type, interlaced):
    """A file of zeros, 9 x 9 pixels, of kinds that Pillow cannot write."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    size = 9 if not interlaced else 32  # More rows than seven passes have.
    rows = bytes(size * (1 + (9 * channels * depth + 7) // 8))
    header = struct.pack(">IIBBBBB", 9, 9, depth, color_type, 0, 0, interlaced)
    palette = chunk(b"PLTE", b"abcdef") if color_type == 3 else b""
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def write_orientations(folder, exif):
    """Files that say in other ways than Exif's own how they lie."""
    xmp = '<tiff:Orientation>6</tiff:Orientation>'
    profile = f"\nexif\n{len(exif):8}\n{exif.hex()}\n"
    for name, text in (("XML:com.adobe.xmp", xmp), ("Raw profile type exif", profile)):
        (folder / name.split()[-1]).write_text(text)
        for zipped in (False, True):
            for kind in ("add_text", "add_itxt"):
                texts = PngImagePlugin.PngInfo()
                getattr(texts, kind)(name, text, zip=zipped)
                picture("L").save(folder / f"{name.split()[-1]}-{kind}-{zipped}.png", pnginfo=texts)
    picture("L").save(folder / "xmp.jpg", xmp=xmp.encode())


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    (folder / "exif.tiff").write_bytes(exif.tobytes())
    write_orientations(folder, exif.tobytes())
    for mode, progressive in itertools.product(("L", "RGB", "CMYK"), (False, True)):
        picture(mode).save(folder / f"{mode}-{progressive}.jpg", progressive=progressive, exif=exif)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
        picture("RGB").save(folder / f"{subsampling.replace(':', '')}.jpg", subsampling=subsampling)
    picture("RGB").save(folder / "restart.jpg", restart_marker_blocks=1)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        picture(mode).save(folder / f"{mode}.png", exif=exif)
    kinds = [(0, 1), (0, 2), (0, 4), (0, 16), (2, 16), (3, 1), (3, 2), (3, 4), (4, 16), (6, 16)]
    for (color_type, depth), interlaced in itertools.product(kinds, (0, 1)):
        (folder / f"{color_type}-{depth}-{interlaced}.png").write_bytes(
            png(depth, color_type, interlaced))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
