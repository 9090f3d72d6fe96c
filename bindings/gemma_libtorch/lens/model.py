"""LensModel: a model of this package as TransformerLens' users know one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from .cache import ActivationCache, at_positions
from .components import Block, Embed, Norm, Unembed
from .composition import Composition
from .config import config_of
from .hooks import Hooked, HookFunction, HookPoint, chosen
from .inputs import PARTS, InputPoint
from .tokens import LensTokenizer, Tokens
from .weights import Weights

Hooks = Sequence[tuple[Any, HookFunction]]


class LensModel(Hooked, Tokens, Composition, Weights):
    """Runs a model with hooks and caches. `model` is a GemmaForCausalLM, or another
    LanguageModel; it keeps its weights and its numerics. Exact numerics serve every hook point,
    fast ones those between the model's modules, and q, k, v, z.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.cfg = config_of(model)
        points = [names[1:] for names in model.tap_names() if len(names) > 1]
        self._first_names = [names[0] for names in points]
        self.hook_dict: dict[str, HookPoint] = {}
        for first, *others in points:
            point = HookPoint(first, self)
            self.hook_dict |= {first: point, **{n: HookPoint(n, self, point) for n in others}}
        layers = model.model.layers
        inputs = [f"blocks.{i}.{name}" for i in range(len(layers)) for name in PARTS]
        self._first_names += inputs
        self.hook_dict |= {name: InputPoint(name, self) for name in inputs}
        self.blocks = [Block(i, self, layer) for i, layer in enumerate(layers)]
        self.embed = Embed("embed", self, lambda ids: self.run_layers(ids, 0, 0))
        self.unembed = Unembed("unembed", self, lambda x: x @ self.W_U)
        self.ln_final = Norm("ln_final", self, model.model.norm)
        self.tokenizer = LensTokenizer(model.tokenizer)

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
        inputs = [name for name in keep if isinstance(self.hook_dict[name], InputPoint)]
        seen: dict[str, torch.Tensor] = {}
        with self.hooks([(inputs, lambda value, hook: seen.update({hook.name: value}))]):
            result, kept = self.model.run(
                given,
                keep=[name for name in keep if name not in inputs],
                start_at_layer=start,
                stop_at_layer=self._layer(stop_at_layer),
            )
        kept |= seen
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

    def input_to_embed(
        self, input: Any, prepend_bos: bool | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        """-> the residual [B, L, E] before the first layer, the ids [B, L], and what TransformerLens
        has of other models: embedded positions and a mask.
        """
        tokens = self.input_to_tokens(input, prepend_bos)
        return self.embed(tokens), tokens, None, None

    def to(self, device: Any) -> LensModel:
        """Moves the model."""
        self.model.to(device)
        self.cfg.device = torch.device(device)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of all weights."""
        self.model.zero_grad(set_to_none)

    def cpu(self) -> LensModel:
        return self.to("cpu")

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
        pos_slice: Any = None,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """forward(), and the values of hook points by name: of those that the filter means, else of
        all, by their older names. With incl_bwd also the gradients of the result, which must be one
        number, as "<name>_grad". pos_slice, an int, (begin, end), a slice or a list, keeps those
        positions alone, of attention those of the queries.
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
        if pos_slice is not None:
            kept = {name: at_positions(value, name, pos_slice) for name, value in kept.items()}
        cache = ActivationCache(kept, self)
        if device is not None:
            cache.to(device)
        if remove_batch_dim:
            cache.remove_batch_dim()
        return result, (cache if return_cache_object else cache.cache_dict)

    def _to_keep(self, names_filter: Any) -> list[str]:
        if names_filter is not None:
            names = chosen(names_filter, self.hook_dict)
            return [n for n in names if not callable(names_filter) or self.hook_dict[n].is_on]
        left_out: tuple[str, ...] = (".hook_in",)  # Equal to others.
        optional = {
            ("attn.hook_result",): self.cfg.use_attn_result,
            ("hook_q_input", "hook_k_input", "hook_v_input"): self.cfg.use_split_qkv_input,
            ("hook_attn_in",): self.cfg.use_attn_in,
            ("hook_mlp_in",): self.cfg.use_hook_mlp_in,
        }
        left_out += tuple(n for names, is_used in optional.items() if not is_used for n in names)
        if self.model.numerics == "fast":
            left_out += ("hook_scale", "hook_normalized", "hook_rot_q", "hook_rot_k")
            left_out += ("hook_attn_scores", "hook_pattern", "hook_result", "_norm.hook_out")
        return [name for name in self._first_names if not name.endswith(left_out)]

    # --- hooks ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def hooks(self, fwd_hooks: Hooks = (), bwd_hooks: Hooks = ()) -> Iterator[LensModel]:
        """The model with these hooks, for as long as the context lasts."""
        added = self.add_hooks(fwd_hooks)
        try:
            added += self.add_hooks(bwd_hooks, "bwd")
            yield self
        finally:
            mine = {id(hook) for hook in added}
            self.remove_hooks(lambda hook: id(hook) in mine)

    def run_with_hooks(
        self, input: Any, *, fwd_hooks: Hooks = (), bwd_hooks: Hooks = (), **kwargs: Any
    ) -> Any:
        """forward() with hooks: (name or filter, hook) each."""
        with self.hooks(fwd_hooks, bwd_hooks):
            return self.forward(input, **kwargs)

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Whether run_with_cache without a filter keeps what each head adds, [B, L, H, E]."""
        self.cfg.use_attn_result = use_attn_result

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Likewise hook_q_input [B, L, H, E], hook_k_input and hook_v_input [B, L, K, E]."""
        self.cfg.use_split_qkv_input = use_split_qkv_input

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Likewise hook_attn_in [B, L, H, E]."""
        self.cfg.use_attn_in = use_attn_in

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Likewise hook_mlp_in [B, L, E]."""
        self.cfg.use_hook_mlp_in = use_hook_mlp_in

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
