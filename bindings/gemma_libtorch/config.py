"""config.py of gemma_pytorch."""

from ._C import (
    Architecture,
    AttentionType,
    GemmaConfig,
    get_config_for_12b,
    get_config_for_1b,
    get_config_for_270m,
    get_config_for_27b,
    get_config_for_27b_v3,
    get_config_for_2b,
    get_config_for_2b_v2,
    get_config_for_4b,
    get_config_for_7b,
    get_config_for_9b,
    get_model_config,
    model_variants,
)

__all__ = [
    "Architecture",
    "AttentionType",
    "GemmaConfig",
    "get_config_for_12b",
    "get_config_for_1b",
    "get_config_for_270m",
    "get_config_for_27b",
    "get_config_for_27b_v3",
    "get_config_for_2b",
    "get_config_for_2b_v2",
    "get_config_for_4b",
    "get_config_for_7b",
    "get_config_for_9b",
    "get_model_config",
    "model_variants",
]
