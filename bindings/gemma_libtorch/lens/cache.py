"""The values of a run, by TransformerLens' names and short names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

_OF_ATTENTION = ("q", "k", "v", "z", "rot_q", "rot_k", "attn_scores", "pattern", "result")
_OF_MLP = ("pre", "post", "pre_linear")
_SHORT = {"attn": "pattern", "attn_logits": "attn_scores", "key": "k", "query": "q", "value": "v"}
_SHORT |= {"mlp_pre": "pre", "mlp_post": "post"}


def full_name(name: str, layer: int | str | None = None, layer_type: str | None = None) -> str:
    """ "blocks.5.attn.hook_pattern" of ("pattern", 5), "blocks.5.ln1.hook_scale" of ("scale", 5,
    "ln1"); transformer_lens.utils.get_act_name.
    """
    if "." in name or name.startswith("hook_"):
        return name
    name = _SHORT.get(name, name)
    if layer_type in ("a", "attn"):
        layer_type = "attn"
    elif layer_type in ("m", "mlp"):
        layer_type = "mlp"
    elif name in _OF_ATTENTION:
        layer_type = "attn"
    elif name in _OF_MLP:
        layer_type = "mlp"
    if name in ("scale", "normalized") and layer is None:
        layer_type = "ln_final"
    parts = [] if layer is None else [f"blocks.{layer}"]
    parts += [layer_type] if layer_type else []
    return ".".join([*parts, f"hook_{name}"])


def at_positions(value: torch.Tensor, name: str, pos_slice: Any) -> torch.Tensor:
    """A value at some positions. `pos_slice` is what transformer_lens.utils.Slice is made of, or
    such a Slice; of one int the dimension stays.
    """
    places = getattr(pos_slice, "slice", pos_slice)
    if isinstance(places, int):
        places = [places]
    elif isinstance(places, tuple):
        places = slice(*places)
    is_square = name.removesuffix("_grad").endswith(("hook_attn_scores", "hook_pattern"))
    index = (slice(None),) * (2 if is_square else 1) + (places,)
    return value[index].clone()  # A view would keep all positions.


class ActivationCache:
    """A mapping from names to values, as LensModel.run_with_cache gives it.
    `transformer_lens.ActivationCache(cache.cache_dict, lens)` has what is left out here.
    """

    def __init__(self, cache_dict: dict[str, torch.Tensor], model: Any, has_batch_dim: bool = True):
        self.cache_dict = cache_dict
        self.model = model
        self.has_batch_dim = has_batch_dim

    def __getitem__(self, key: Any) -> torch.Tensor:
        """By a name, a short name ("embed"), or ("pattern", 5) and ("scale", 5, "ln1")."""
        if isinstance(key, tuple):
            name, layer, *layer_type = key
            if isinstance(layer, int) and layer < 0:
                layer += self.model.cfg.n_layers
            key = full_name(name, layer, *layer_type)
        if key not in self.cache_dict:
            key = full_name(key)
        return self.cache_dict[key]

    def __len__(self) -> int:
        return len(self.cache_dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.cache_dict)

    def __contains__(self, name: object) -> bool:
        return name in self.cache_dict

    def __repr__(self) -> str:
        return f"ActivationCache with keys {list(self.cache_dict)}"

    def keys(self) -> Any:
        return self.cache_dict.keys()

    def values(self) -> Any:
        return self.cache_dict.values()

    def items(self) -> Any:
        return self.cache_dict.items()

    def to(self, device: Any) -> ActivationCache:
        """Moves all values to a device."""
        self.cache_dict = {name: value.to(device) for name, value in self.items()}
        return self

    def remove_batch_dim(self) -> ActivationCache:
        """Takes the dimension of the batch, of one text, from all values."""
        if self.has_batch_dim:
            for name, value in self.items():
                if value.size(0) != 1:
                    raise ValueError(
                        f"ActivationCache: {name} has {value.size(0)} texts; give one to remove "
                        "their dimension"
                    )
            self.cache_dict = {name: value[0] for name, value in self.items()}
            self.has_batch_dim = False
        return self

    def head_contributions(self, layer: int) -> torch.Tensor:
        """What each head adds to the residual, [B, L, H, E]: hook_result through the norm after
        the attention with its scale as it was, where the model has that norm. They sum to
        hook_attn_out, which TransformerLens' stack_head_results do not in Gemma 2 and 3.
        """
        result = self["result", layer]
        norm = self.model.blocks[layer].norm_after_attention
        if norm is None:
            return result
        scale = self["scale", layer, "ln1_post"].unsqueeze(-1)
        return (result.float() / scale * norm.w).to(result.dtype)
