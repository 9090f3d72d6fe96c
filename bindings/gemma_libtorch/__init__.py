"""Gemma in C++ and LibTorch, under the names of Google's gemma_pytorch.

    from gemma_libtorch import config, model

    model_config = config.get_model_config("1b", dtype="float32")
    model_config.tokenizer = "tokenizer.model"
    gemma = model.GemmaForCausalLM(model_config)
    gemma.load_weights("model.ckpt")
    print(gemma.generate("The capital of France is", "cpu", output_len=20))
"""

import torch  # noqa: F401  The extension needs LibTorch loaded before it.

try:
    from . import (
        _copies,  # noqa: F401  deepcopy and pickle know the modules then.
        config,
        diff,
        embedding,
        engine,
        gemma3_model,
        gemma3_preprocessor,
        lens,
        model,
        modeling_gemma,
        nn,
        paligemma,
        prompts,
        recurrentgemma,
        siglip_vision,
        summary,
        tokenizer,
    )
except ImportError as error:
    raise ImportError(
        f"gemma_libtorch does not fit torch {torch.__version__}: an extension works with the torch "
        "it was built with; install gemma_libtorch again"
    ) from error

__all__ = [
    "config",
    "diff",
    "embedding",
    "engine",
    "gemma3_model",
    "gemma3_preprocessor",
    "lens",
    "model",
    "modeling_gemma",
    "nn",
    "paligemma",
    "prompts",
    "recurrentgemma",
    "siglip_vision",
    "summary",
    "tokenizer",
]
__version__ = "0.1.0"
