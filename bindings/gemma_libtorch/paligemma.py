"""PaliGemma 1 and 2: questions about images, boxes and masks."""

from ._C import (
    LocatedObject,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaMultiModalProjector,
    get_paligemma_config,
    paligemma_pixel_values,
    paligemma_variants,
    parse_locations,
)

__all__ = [
    "LocatedObject",
    "PaliGemmaConfig",
    "PaliGemmaForConditionalGeneration",
    "PaliGemmaMultiModalProjector",
    "get_paligemma_config",
    "paligemma_pixel_values",
    "paligemma_variants",
    "parse_locations",
]
