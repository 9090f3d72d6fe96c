"""siglip_vision/pan_and_scan.py of gemma_pytorch."""

from .._C import pan_and_scan, pan_and_scan_os_with_crop_positions

__all__ = ["pan_and_scan", "pan_and_scan_os_with_crop_positions"]
