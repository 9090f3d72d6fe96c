"""Google's gemma_pytorch as the reference: GemmaForCausalLM, and Gemma3ForMultimodalLM on text."""

from __future__ import annotations

import functools
import importlib
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .beside import LanguageModelBeside
from .capture import Values
from .pairs import Names, Pair, Place, layers

_MASKED = -2.3819763e38  # As in model.py: generate.


class GemmaPytorch(LanguageModelBeside):
    title = "gemma_pytorch"
    rotation = "apply_rotary_emb"

    def _pairs(self) -> Iterable[Pair]:
        embedder = self._embedder()
        yield Pair(f"{embedder}.hook_out", (Place(embedder),))
        yield Pair("model.hook_in", (Place("model", "in"),))
        for name, _ in self.ours.named_buffers(recurse=False):
            used = (Place("", f"buffer.{name}", lambda table: table[: self.ids.size(1)]),)
            yield Pair(name, used, position_dim=0)
        yield from layers(self.ours, Names())
        yield Pair("model.norm.hook_out", (Place("model.norm"),))
        yield Pair("sampler", (Place("sampler", "out.1"),), position_dim=None)

    def _arguments(self) -> dict[str, Any]:
        """Those of forward(), which both models take, for texts from position 0 on."""
        config, (batch, length), device = self.ours.config, self.ids.shape, self.ids.device
        full = torch.full((1, 1, length, length), _MASKED, dtype=torch.float32, device=device)
        mask = torch.triu(full, diagonal=1)
        window = config.sliding_window_size
        size = (2, batch, length, config.num_key_value_heads, config.head_dim)
        caches = [
            tuple(torch.zeros(size, dtype=config.get_dtype(), device=device))
            for _ in range(config.num_hidden_layers)
        ]
        images = {"image_patches": None, "image_presence_mask": None}
        return {
            "input_token_ids": self.ids,
            "input_positions": torch.arange(length, device=device),
            "kv_write_indices": None,
            "kv_caches": caches,
            "mask": mask,
            "local_mask": None if window is None else mask + torch.tril(full, diagonal=-window),
            "output_positions": torch.tensor([length - 1], device=device),
            "temperatures": None,
            "top_ps": torch.ones(batch, dtype=torch.float32, device=device),
            "top_ks": torch.ones(batch, dtype=torch.long, device=device),
            **(images if config.vision_config is not None else {}),
        }

    def _run_theirs(self) -> None:
        self.theirs(**self._arguments())

    def _logits(self) -> torch.Tensor:
        if self.ours.numerics == "fast":  # Whose sampler does not keep them.
            return self.ours.logits(self.ids)[:, -1]
        return self.ours(**self._arguments())[1]


class Itself(GemmaPytorch):
    """Another model of this package as the reference, in exact numerics."""

    title = "gemma_libtorch"

    def theirs_at(self) -> Values:
        return type(self)(self.theirs, self.theirs, self.ids).ours_at({})


# --- making one -----------------------------------------------------------------------------------


@functools.cache
def package_of(root: Path) -> ModuleType:
    """The package `gemma` of a checkout. Raises ValueError when there is none."""
    if not (root / "gemma" / "model.py").is_file():
        raise ValueError(f"--reference {root}: not a checkout of gemma_pytorch: no gemma/model.py")
    sys.path.insert(0, str(root.resolve()))
    try:
        package = importlib.import_module("gemma")
        for name in ("config", "model", "gemma3_model"):
            importlib.import_module(f"gemma.{name}")
    except ImportError as error:
        raise ValueError(
            f"--reference {root}: {error}; install what gemma_pytorch needs"
        ) from error
    finally:
        sys.path.remove(str(root.resolve()))
    if not Path(package.__path__[0]).samefile(root / "gemma"):
        raise ValueError(f"--reference {root}: another package named gemma is loaded already")
    return package


def _config(package: ModuleType, ours: Any) -> Any:
    theirs = package.config
    vision = None
    if ours.vision_config is not None:
        names = [name for name in ours.vision_config.__match_args__ if name != "conv2d_patch_size"]
        vision = package.siglip_vision.config.SiglipVisionModelConfig(
            **{name: getattr(ours.vision_config, name) for name in names}
        )
        vision.conv2d_patch_size = ours.vision_config.conv2d_patch_size
    kinds, bases = ours.attn_types, ours.rope_wave_length
    fields = {name: getattr(ours, name) for name in ours.__match_args__}
    fields |= {
        "architecture": theirs.Architecture[ours.architecture.name],
        "attn_types": kinds and [theirs.AttentionType[kind.name] for kind in kinds],
        "rope_wave_length": bases and {theirs.AttentionType[k.name]: bases[k] for k in bases},
        "vision_config": vision,
    }
    return theirs.GemmaConfig(**fields)


def _reads(model: Any, path: Path) -> bool:
    """Whether the reference's load_weights finds all of its weights in a file."""
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return False
    state = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
    named = state.get("model_state_dict", {}) if isinstance(state, dict) else {}
    return all(name in named for name, _ in model.named_parameters())


def load(package: ModuleType, ours: Any, path: Path) -> tuple[Any, str]:
    """The reference with the weights of our model's file, and which loader read them."""
    is_multimodal = ours.config.vision_config is not None
    module = package.gemma3_model if is_multimodal else package.model
    name = "Gemma3ForMultimodalLM" if is_multimodal else "GemmaForCausalLM"
    tokenizer, previous = module.tokenizer.Tokenizer, torch.get_default_dtype()
    # It gets token ids, and takes no other files than SentencePiece's.
    module.tokenizer.Tokenizer = lambda path: None
    torch.set_default_dtype(ours.config.get_dtype())
    try:
        model = getattr(module, name)(_config(package, ours.config)).eval()
    finally:
        module.tokenizer.Tokenizer = tokenizer
        torch.set_default_dtype(previous)
    if _reads(model, path):
        model.load_weights(str(path))
        return model, "its own load_weights"
    model.load_state_dict(ours.state_dict(), strict=False, assign=True)
    return model, "the loader of gemma_libtorch"
