"""A model of this package as TransformerLens 4 has them: with its own hook points and caches.

from gemma_libtorch.transformer_lens import Bridge

bridge = Bridge(gemma)  # A GemmaForCausalLM.
logits, cache = bridge.run_with_cache("The capital of France is")  # Its ActivationCache.

Needs transformer_lens in version 4. `gemma_libtorch.lens` needs none, and has more.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from .lens import Block, LensModel
from .lens.inputs import PARTS

try:
    from transformer_lens.hook_points import HookIntrospectionMixin, HookPoint
    from transformer_lens.model_bridge.bridge_core import BridgeCore
except ImportError as error:
    raise ImportError(
        f"gemma_libtorch.transformer_lens: no TransformerLens 4 here ({error}); pip install "
        "'transformer-lens>=4', or use gemma_libtorch.lens, which needs none"
    ) from error

__all__ = ["Bridge"]

_HEADS_FIRST = 2
"""Where positions are in their norms of queries and keys, [B, H, T, D]."""


def _canonical(names: list[str]) -> str:
    """Of a point's names, that of version 4."""
    block, _, own = names[-1].rpartition(".")
    if own in PARTS:
        return f"{block}.attn.{own}"
    ends = (".hook_in", ".hook_out")
    return next((name for name in reversed(names) if name.endswith(ends)), names[-1])


class Bridge(BridgeCore, HookIntrospectionMixin):
    """TransformerLens' BridgeCore on a LensModel, which computes; what is not here is its own.

    Exact numerics serve every hook point. With fast ones, hook those that they have by name:
    run_with_cache without a filter asks for all. An edit at hook_resid_mid changes the residual, as
    in HookedTransformer; in TransformerBridge it reaches the norm behind it only, as hook_mlp_in.
    """

    def __init__(self, model: Any) -> None:
        """Of a GemmaForCausalLM, or another LanguageModel."""
        self.lens = LensModel(model)
        adapter = SimpleNamespace(
            cfg=self.lens.cfg, component_mapping={}, supports_hf_output_attentions=False
        )
        driver = SimpleNamespace(supports=lambda _feature: False, close=lambda: None)
        super().__init__(adapter, self.lens.tokenizer, driver)
        self._aliases: dict[str, str] = {}
        self._names_of_lens: dict[str, str] = {}
        points: dict[int, list[str]] = {}  # Names of one point share its list of hooks.
        for name, point in self.lens.hook_dict.items():
            points.setdefault(id(point.fwd_hooks), []).append(name)
        for names in points.values():
            name = _canonical(names)
            self._hook_registry[name] = HookPoint()
            self._hook_registry[name].name = name
            if ".attn.q_norm." in name or ".attn.k_norm." in name:
                self._hook_registry[name].pos_dim = _HEADS_FIRST
            self._names_of_lens[name] = names[0]
            self._aliases |= {alias: name for alias in names if alias != name}
        self._hook_registry_initialized = True
        self.blocks = [Block(i, self, layer) for i, layer in enumerate(model.model.layers)]

    def _add_aliases_to_hooks(self, hooks: dict[str, HookPoint]) -> None:
        hooks.update({alias: hooks[name] for alias, name in self._aliases.items()})

    def __getattr__(self, name: str) -> Any:
        """A hook point, or what a LensModel has."""
        if name == "lens":  # Before there is one.
            raise AttributeError(name)
        points = self.__dict__.get("_hook_registry", {})
        point = points.get(self.__dict__.get("_aliases", {}).get(name, name))
        return getattr(self.lens, name) if point is None else point

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def _hooked(self) -> list[tuple[str, Callable[..., torch.Tensor]]]:
        """The points that have hooks, as hooks of the LensModel."""

        def run(point: HookPoint) -> Callable[..., torch.Tensor]:
            if point.pos_dim == _HEADS_FIRST:
                return lambda value, hook: point(value.transpose(1, 2)).transpose(1, 2)
            return lambda value, hook: point(value)

        return [
            (self._names_of_lens[name], run(point))
            for name, point in self._hook_registry.items()
            if point.has_hooks() and self._gated_hook_reason(name) is None
        ]

    def forward(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """LensModel.forward with the hooks there are."""
        with self.lens.hooks(self._hooked()):
            return self.lens.forward(input, *args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """LensModel.generate with the hooks there are."""
        with self.lens.hooks(self._hooked()):
            return self.lens.generate(*args, **kwargs)

    def to_tokens(self, input: Any, prepend_bos: bool | None = None, **_: Any) -> torch.Tensor:
        """Text to ids [B, L]; shorter texts are filled up at their end."""
        return self.lens.to_tokens(input, prepend_bos)

    def loss_fn(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """LensModel.loss_fn."""
        return self.lens.loss_fn(*args, **kwargs)
