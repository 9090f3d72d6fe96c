"""siglip_vision/pan_and_scan.py of gemma_pytorch: long images cut into crops.

All images are PIL images; the crops have mode "RGB", whatever the image's is.
"""

from PIL import Image

def pan_and_scan(
    img: Image.Image, *, min_crop_size: int = 256, max_num_crops: int = 4
) -> list[Image.Image]:
    """2 to max_num_crops crops along the longer side, or the image where it is not long enough.

    Raises ValueError when min_crop_size or max_num_crops is not positive.
    """

def pan_and_scan_os_with_crop_positions(
    img: Image.Image, *, min_crop_size: int = 256, max_num_crops: int = 4
) -> tuple[list[Image.Image], list[tuple[int, int, int, int]]]:
    """The above, and where the crops lie: (top, left, bottom, right), in pixels."""
