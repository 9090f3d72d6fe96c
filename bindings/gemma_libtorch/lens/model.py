"""LensModel: a model of this package as TransformerLens' users know one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from .cache import ActivationCache
from .components import Block, Component, Norm, Unembed
from .config import config_of
from .hooks import HookFunction, HookPoint, chosen, tap_function
from .tokens import Tokens
from .weights import Weights

Hooks = Sequence[tuple[Any, HookFunction]]


class LensModel(Tokens, Weights):
    """Runs a model with hooks and caches. `model` is a GemmaForCausalLM, or another
    LanguageModel; it keeps its weights and its numerics. Exact numerics serve every hook point,
    fast ones those between the model's modules, and q, k, v, z.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.cfg = config_of(model)
        points = [names[1:] for names in model.tap_names() if len(names) > 1]
        self._first_names = [names[0] for names in points]
        self.hook_dict = {name: HookPoint(name, self) for names in points for name in names}
        layers = model.model.layers
        self.blocks = [Block(i, self, layer) for i, layer in enumerate(layers)]
        self.embed = Component("embed", self, lambda ids: self.run_layers(ids, 0, 0))
        self.unembed = Unembed("unembed", self, lambda x: x @ self.W_U)
        self.ln_final = Norm("ln_final", self, model.model.norm)
        self._handles: list[tuple[Any, bool]] = []  # Of add_hook, and whether it stays.

    @property
    def tokenizer(self) -> Any:
        return self.model.tokenizer

    @property
    def hook_embed(self) -> HookPoint:
        return self.hook_dict["hook_embed"]

    def get_component(self, name: str) -> Any:
        """A part by its name, as "blocks.3.attn.q": each computes alone."""
        part: Any = self
        for word in name.split("."):
            part = part[int(word)] if word.isdigit() else getattr(part, word)
        return part

    # --- running ----------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(
        self,
        input: Any,
        return_type: str | None = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
    ) -> Any:
        """The logits [B, L, V] of text, token ids, or, with start_at_layer, a residual
        [B, L, E]; or "loss", "both", or None. With stop_at_layer the residual before that layer,
        [B, L, E].
        """
        return self._forward(
            input, (), return_type, loss_per_token, prepend_bos, start_at_layer, stop_at_layer
        )[0]

    def _forward(
        self,
        input: Any,
        keep: Sequence[str],
        return_type: str | None = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
    ) -> tuple[Any, dict[str, torch.Tensor]]:
        if return_type not in ("logits", "loss", "both", None):
            raise ValueError(
                f"LensModel: return_type is {return_type!r}, but must be 'logits', 'loss', 'both' "
                "or None"
            )
        start = self._layer(start_at_layer) or 0
        is_residual = torch.is_tensor(input) and input.dim() == 3
        given = input if is_residual else self.input_to_tokens(input, prepend_bos)
        result, kept = self.model.run(
            given,
            keep=list(keep),
            start_at_layer=start,
            stop_at_layer=self._layer(stop_at_layer),
        )
        if stop_at_layer is not None or return_type == "logits":
            return result, kept
        if return_type is None:
            return None, kept
        loss = self.loss_fn(result, given, loss_per_token)
        return (loss if return_type == "loss" else (result, loss)), kept

    def _layer(self, layer: int | None) -> int | None:
        return layer + self.cfg.n_layers if layer is not None and layer < 0 else layer

    def run_layers(self, input: torch.Tensor, first: int, end: int) -> torch.Tensor:
        """What comes out of layers first to end - 1, of token ids or of a residual."""
        return self.model.run(input, start_at_layer=first, stop_at_layer=end)[0]

    def loss_fn(
        self, logits: torch.Tensor, tokens: torch.Tensor, per_token: bool = False
    ) -> torch.Tensor:
        """Cross-entropy of each next token, [B, L - 1]; or its mean."""
        log_probs = logits[:, :-1].float().log_softmax(-1)
        losses = -log_probs.gather(-1, tokens[:, 1:, None].to(logits.device))[..., 0]
        return losses if per_token else losses.mean()

    def run_with_cache(
        self,
        input: Any,
        return_type: str | None = "logits",
        *,
        names_filter: Any = None,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        incl_bwd: bool = False,
        device: Any = None,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """forward(), and the values of hook points by name: of those that the filter means, else of
        all, by their older names. With incl_bwd also the gradients of the result, which must be one
        number, as "<name>_grad".
        """
        keep = self._to_keep(names_filter)
        result, kept = self._forward(input, keep, return_type, **kwargs)
        if incl_bwd:
            watched = {name: value for name, value in kept.items() if value.requires_grad}
            for value in watched.values():
                value.retain_grad()
            result.backward()
            kept |= {
                f"{name}_grad": value.grad
                for name, value in watched.items()
                if value.grad is not None
            }
        cache = ActivationCache(kept, self)
        if device is not None:
            cache.to(device)
        if remove_batch_dim:
            cache.remove_batch_dim()
        return result, (cache if return_cache_object else cache.cache_dict)

    def _to_keep(self, names_filter: Any) -> list[str]:
        if names_filter is not None:
            return chosen(names_filter, self.hook_dict)
        left_out: tuple[str, ...] = (".hook_in", "hook_mlp_in")  # Equal to others.
        if not self.cfg.use_attn_result:
            left_out += ("attn.hook_result",)
        if self.model.numerics == "fast":
            left_out += ("hook_scale", "hook_normalized", "hook_rot_q", "hook_rot_k")
            left_out += ("hook_attn_scores", "hook_pattern", "hook_result", "_norm.hook_out")
        return [name for name in self._first_names if not name.endswith(left_out)]

    # --- hooks ------------------------------------------------------------------------------------

    def add_hook(
        self, name: Any, hook: HookFunction, dir: str = "fwd", is_permanent: bool = False
    ) -> None:
        """hook(value, hook=HookPoint) at points by name, until reset_hooks; dir "bwd": with the
        gradient of the value.
        """
        self._handles.append((self._taps([(name, hook)], dir), is_permanent))

    def reset_hooks(self, including_permanent: bool = False) -> None:
        """Removes the hooks of add_hook."""
        for handle, is_permanent in self._handles:
            if including_permanent or not is_permanent:
                handle.remove()
        self._handles = [item for item in self._handles if item[1] and not including_permanent]

    @contextlib.contextmanager
    def hooks(self, fwd_hooks: Hooks = (), bwd_hooks: Hooks = ()) -> Iterator[LensModel]:
        """The model with these hooks, for as long as the context lasts."""
        with self._taps(fwd_hooks, "fwd"), self._taps(bwd_hooks, "bwd"):
            yield self

    def run_with_hooks(
        self, input: Any, *, fwd_hooks: Hooks = (), bwd_hooks: Hooks = (), **kwargs: Any
    ) -> Any:
        """forward() with hooks: (name or filter, hook) each."""
        with self.hooks(fwd_hooks, bwd_hooks):
            return self.forward(input, **kwargs)

    def _taps(self, hooks: Hooks, direction: str) -> Any:
        taps = [
            (name, tap_function(self.hook_dict[name], hook, direction))
            for names, hook in hooks
            for name in self._hook_names(names)
        ]
        return self.model.add_taps(taps)

    def _hook_names(self, names: Any) -> list[str]:
        # A filter means a point once, whatever names it has.
        return chosen(names, self._first_names if callable(names) else self.hook_dict)

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Whether run_with_cache without a filter keeps what each head adds, [B, L, H, E]."""
        self.cfg.use_attn_result = use_attn_result

    # --- text -------------------------------------------------------------------------------------

    def generate(
        self,
        input: Any = "",
        max_new_tokens: int = 10,
        *,
        do_sample: bool = True,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        prepend_bos: bool | None = None,
        return_type: str = "input",
        on_token: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Continues text or token ids, with the hooks there are; ends at eos. -> text for text,
        else ids [B, longest], filled up with eos; return_type "str" or "tokens" says which.
        """
        tokens = self.input_to_tokens(input, prepend_bos)
        rows = self.model.generate_ids(
            tokens.tolist(),
            str(self.cfg.device),
            output_len=max_new_tokens,
            temperature=temperature if do_sample else None,
            top_k=self.cfg.d_vocab if top_k is None else top_k,
            top_p=1.0 if top_p is None else top_p,
            on_token=on_token,
        )
        longest = max(len(row) for row in rows)
        eos = self.tokenizer.eos_id
        new = [row + [eos] * (longest - len(row)) for row in rows]
        whole = torch.cat([tokens, torch.tensor(new, dtype=torch.long).view(len(rows), -1)], 1)
        if return_type == "tokens" or (return_type == "input" and torch.is_tensor(input)):
            return whole
        texts = [
            self.tokenizer.decode(row[1:] if row[0] == self.tokenizer.bos_id else row)
            for row in (old + new for old, new in zip(tokens.tolist(), rows, strict=True))
        ]
        return texts[0] if isinstance(input, str) else texts
