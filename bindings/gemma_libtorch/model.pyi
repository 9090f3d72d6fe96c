"""model.py of gemma_pytorch: the modules, in C++.

Shapes: B batch, L input length, S cache length, H query heads, K key/value heads, D head dim,
E hidden, V vocabulary.

Not torch.nn.Module: there is no base class in common; gemma_libtorch.nn.as_module makes one of a
module. What a module here offers is listed in the first class below, under torch's
names.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar, overload, type_check_only

import torch
from torch.nn.modules.module import _IncompatibleKeys

from .config import AttentionType, GemmaConfig
from .tokenizer import Tokenizer

# Self, without typing_extensions.
_M = TypeVar("_M", bound=_NNModule)
_Item = TypeVar("_Item", bound=_NNModule)

# Keys and values of one layer, [B, S, K, D] each.
_KVCache: TypeAlias = tuple[torch.Tensor, torch.Tensor]

@type_check_only
class _NNModule:
    """What torch.nn.Module offers, for Module and for ModuleList.

    Parameters, buffers and children are attributes. A parameter or buffer may be assigned a
    tensor of its shape, whose data it then shares; another shape raises ValueError. Any other
    assignment raises AttributeError.
    """

    @property
    def training(self) -> bool: ...
    def train(self: _M, mode: bool = True) -> _M: ...
    def eval(self: _M) -> _M: ...
    def requires_grad_(self: _M, requires_grad: bool = True) -> _M:
        """Whether parameters take gradients; exact numerics give them, bit for bit the reference's.

        Raises RuntimeError for int8 weights.
        """
    def zero_grad(self, set_to_none: bool = True) -> None: ...
    def apply(self: _M, fn: Callable[[Any], object]) -> _M:
        """Calls fn on every module below, children first, then on this one."""
    @overload
    def to(
        self: _M,
        device: torch.device | str | int | None = ...,
        dtype: torch.dtype | None = ...,
        non_blocking: bool = ...,
    ) -> _M:
        """Moves to a device; a dtype casts floating weights, never int8 or rope tables.

        Changes this module and returns it. Raises TypeError for a dtype that is not floating.
        """
    @overload
    def to(self: _M, dtype: torch.dtype, non_blocking: bool = ...) -> _M: ...
    @overload
    def to(self: _M, tensor: torch.Tensor, non_blocking: bool = ...) -> _M: ...
    def cpu(self: _M) -> _M: ...
    def cuda(self: _M, device: torch.device | str | int | None = None) -> _M: ...
    def float(self: _M) -> _M: ...
    def half(self: _M) -> _M: ...
    def bfloat16(self: _M) -> _M: ...
    def state_dict(
        self, *, prefix: str = "", keep_vars: bool = False
    ) -> OrderedDict[str, torch.Tensor]:
        """Every parameter and buffer; the tensors share the module's memory."""
    def load_state_dict(
        self, state_dict: Mapping[str, torch.Tensor], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Copies tensors into the parameters, or with assign takes them; rope tables are skipped.

        Raises RuntimeError for a shape that does not fit and, if strict, for missing or unexpected
        names; then nothing was changed.
        """
    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, torch.Tensor]]: ...
    def parameters(self, recurse: bool = True) -> Iterator[torch.Tensor]: ...
    def named_buffers(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, torch.Tensor]]: ...
    def buffers(self, recurse: bool = True) -> Iterator[torch.Tensor]: ...
    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, _NNModule]]:
        """This module, under the name `prefix`, and all below it."""
    def modules(self) -> Iterator[_NNModule]: ...
    def named_children(self) -> Iterator[tuple[str, _NNModule]]: ...
    def children(self) -> Iterator[_NNModule]: ...
    def get_submodule(self, target: str) -> _NNModule:
        """A module by its path, as "layers.0.self_attn"; "" is this one. Raises AttributeError."""
    def get_parameter(self, target: str) -> torch.Tensor:
        """A parameter of this module or of one below it, by its path. Raises AttributeError."""
    def get_buffer(self, target: str) -> torch.Tensor:
        """A buffer likewise: the rope tables. Raises AttributeError."""
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """forward."""

class TapSite:
    """Where a value is from, for the function of a tap."""

    @property
    def name(self) -> str:
        """The point's name that was asked for."""
    @property
    def texts(self) -> list[int]:
        """Of a value [B, L, ...], whose its B rows are: rows of the batch, or in fast numerics texts
        of generate() in their order. Empty when a module computes alone.
        """
    @property
    def positions(self) -> list[int]:
        """Likewise, the position of the first of the L tokens in each."""

class TapHandle:
    """Taps of a module; also a context, at whose end they are gone."""

    def remove(self) -> None: ...
    def __enter__(self) -> TapHandle: ...
    def __exit__(self, *args: object) -> None: ...

class Module(_NNModule):
    """Base of every module here. Cannot be constructed, nor derived from."""

    def set_numerics(self, numerics: str) -> None:
        """How this module and all below it compute from now on.

        "exact": the reference's results, bit for bit. "fast": float32 arithmetic in kernels of our
        own, on the CPU; weights in any dtype. Raises ValueError for another name.
        """
    @property
    def numerics(self) -> str: ...
    def add_taps(
        self, taps: Sequence[tuple[str, Callable[[torch.Tensor, TapSite], torch.Tensor | None]]]
    ) -> TapHandle:
        """Calls function(value, site) with the values of points of this module and of all below it.

        `taps` are names or patterns ("*.hook_out"), and functions: each returns nothing, or a value
        of the same shape to go on with; it may also write to the value. Raises ValueError when no
        point fits, or when fast numerics do not compute one that fits by itself.
        """
    def tap_names(self) -> list[list[str]]:
        """The names of each point: the path here, and what TransformerLens calls it."""
    def register_forward_hook(
        self, hook: Callable[[Module, tuple[torch.Tensor], torch.Tensor], torch.Tensor | None]
    ) -> TapHandle:
        """hook(module, args, output) -> None, or another output. args is (input,), the hidden states.

        Raises ValueError for a module that has no such points, as LanguageModel.
        """
    def register_forward_pre_hook(
        self,
        hook: Callable[[Module, tuple[torch.Tensor]], torch.Tensor | tuple[torch.Tensor] | None],
    ) -> TapHandle:
        """hook(module, args) -> None, or another input. Raises as above."""

class ModuleList(_NNModule, Generic[_Item]):
    """The layers of a model, as the attributes "0", "1" and so on too."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[_Item]: ...
    @overload
    def __getitem__(self, index: int) -> _Item:
        """Raises IndexError; a negative index counts from the end."""
    @overload
    def __getitem__(self, index: slice) -> list[_Item]: ...

def precompute_freqs_cis(
    dim: int, end: int, theta: float = 10000.0, rope_scaling_factor: int = 1
) -> torch.Tensor:
    """e^(i * position * frequency) for positions 0 to end - 1 -> complex64 [end, dim / 2].

    rope_scaling_factor divides the frequencies.
    """

def apply_rotary_emb(x: torch.Tensor, freqs_cis: torch.Tensor) -> torch.Tensor:
    """x [B, L, heads, D], freqs_cis complex64 [L, D / 2] -> [B, L, heads, D] in x's dtype."""

class Linear(Module):
    """x @ weight^T without bias. Weights take torch's default dtype and are unset until loaded."""

    weight: torch.Tensor
    """[out_features, in_features], float or int8."""
    weight_scaler: torch.Tensor
    """[out_features]. Only if quant: else AttributeError."""
    def __init__(self, in_features: int, out_features: int, quant: bool) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] -> [..., out_features]."""
    __call__ = forward
    @property
    def quant(self) -> bool: ...

class Embedding(Module):
    """Rows of a table. Weights take torch's default dtype and are unset until loaded."""

    weight: torch.Tensor
    """[num_embeddings, embedding_dim], float or int8."""
    weight_scaler: torch.Tensor
    """[num_embeddings]. Only if quant: else AttributeError."""
    def __init__(self, num_embeddings: int, embedding_dim: int, quant: bool) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[...] int64 -> [..., embedding_dim]. Raises IndexError for an id outside the table."""
    __call__ = forward
    @property
    def quant(self) -> bool: ...

class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * (1 + weight), computed in float32, returned in x's dtype.

    Without the unit offset: * weight.
    """

    weight: torch.Tensor
    """[dim], zeros until loaded."""
    def __init__(self, dim: int, eps: float = 1e-6, add_unit_offset: bool = True) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., dim] -> [..., dim]."""
    __call__ = forward
    @property
    def eps(self) -> float: ...
    @property
    def add_unit_offset(self) -> bool: ...

class GemmaMLP(Module):
    """down(gelu_tanh(gate(x)) * up(x))."""

    def __init__(self, hidden_size: int, intermediate_size: int, quant: bool) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., E] -> [..., E]."""
    __call__ = forward
    @property
    def gate_proj(self) -> Linear: ...
    @property
    def up_proj(self) -> Linear: ...
    @property
    def down_proj(self) -> Linear: ...

class GemmaAttention(Module):
    """Multi-head, grouped-query or multi-query attention over a cache."""

    def __init__(self, config: GemmaConfig, attn_type: AttentionType) -> None:
        """Raises ValueError, naming the field, when no model can be built from the config."""
    def forward(
        self,
        hidden_states: torch.Tensor,
        freqs_cis: torch.Tensor,
        kv_write_indices: torch.Tensor,
        kv_cache: _KVCache,
        mask: torch.Tensor,
        local_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """-> [B, L, E]; writes kv_cache in place.

        hidden_states [B, L, E], freqs_cis complex64 [L, D / 2], kv_write_indices [L] int64,
        kv_cache (k, v) of [B, S, K, D], mask and local_mask float32 [1 or B, 1, L, S]. local_mask
        replaces mask in a local layer with a window.
        """
    __call__ = forward
    @property
    def qkv_proj(self) -> Linear: ...
    @property
    def o_proj(self) -> Linear: ...
    @property
    def query_norm(self) -> RMSNorm | None:
        """None unless config.use_qk_norm."""
    @property
    def key_norm(self) -> RMSNorm | None:
        """None unless config.use_qk_norm."""
    @property
    def attn_type(self) -> AttentionType: ...
    @property
    def num_heads(self) -> int:
        """H."""
    @property
    def num_kv_heads(self) -> int:
        """K."""
    @property
    def num_queries_per_kv(self) -> int:
        """H / K."""
    @property
    def hidden_size(self) -> int:
        """E."""
    @property
    def head_dim(self) -> int:
        """D."""
    @property
    def q_size(self) -> int:
        """H * D."""
    @property
    def kv_size(self) -> int:
        """K * D."""
    @property
    def scaling(self) -> float:
        """Of the queries."""
    @property
    def sliding_window_size(self) -> int | None: ...
    @property
    def attn_logit_softcapping(self) -> float | None: ...

class DecoderLayer(Module):
    """What GemmaDecoderLayer and Gemma2DecoderLayer share."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        freqs_cis: torch.Tensor,
        kv_write_indices: torch.Tensor,
        kv_cache: _KVCache,
        mask: torch.Tensor,
        local_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """hidden_states [B, L, E] -> [B, L, E]; the rest as GemmaAttention takes it."""
    __call__ = forward
    @property
    def self_attn(self) -> GemmaAttention: ...
    @property
    def mlp(self) -> GemmaMLP: ...
    @property
    def input_layernorm(self) -> RMSNorm: ...
    @property
    def post_attention_layernorm(self) -> RMSNorm: ...
    @property
    def attn_type(self) -> AttentionType: ...

class GemmaDecoderLayer(DecoderLayer):
    """The layer of Gemma 1. Its post_attention_layernorm is the norm before the MLP.

    local_mask is accepted and not used, as in the reference.
    """

    def __init__(self, config: GemmaConfig) -> None:
        """Raises ValueError, naming the field, when no model can be built from the config."""

class Gemma2DecoderLayer(DecoderLayer):
    """The layer of Gemma 2 and 3. Outputs of attention and MLP are normalised, then added."""

    def __init__(self, config: GemmaConfig, attn_type: AttentionType) -> None:
        """Raises ValueError, naming the field, when no model can be built from the config."""
    @property
    def pre_feedforward_layernorm(self) -> RMSNorm | None:
        """None unless config.use_pre_ffw_norm."""
    @property
    def post_feedforward_layernorm(self) -> RMSNorm | None:
        """None unless config.use_post_ffw_norm."""

class GemmaModel(Module):
    """The stack of layers and the final norm."""

    def __init__(self, config: GemmaConfig) -> None:
        """Raises ValueError, naming the field, when no model can be built from the config."""
    def forward(
        self,
        hidden_states: torch.Tensor,
        freqs_cis: Mapping[AttentionType, torch.Tensor],
        kv_write_indices: torch.Tensor,
        kv_caches: Sequence[_KVCache],
        mask: torch.Tensor,
        local_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """hidden_states [B, L, E] -> [B, L, E]; writes kv_caches, one a layer, in place.

        freqs_cis holds complex64 [L, D / 2] for each type of attention in use. Raises ValueError
        when a cache or a table is missing.
        """
    __call__ = forward
    @property
    def layers(self) -> ModuleList[DecoderLayer]: ...
    @property
    def norm(self) -> RMSNorm: ...
    @property
    def config(self) -> GemmaConfig: ...
    @property
    def vocab_size(self) -> int:
        """V."""

class Sampler(Module):
    """Logits of one position, soft cap, temperature, top-p, then top-k, then one draw a row."""

    def __init__(self, vocab_size: int, config: GemmaConfig) -> None: ...
    def forward(
        self,
        embedding: torch.Tensor,
        hidden_states: torch.Tensor,
        output_positions: torch.Tensor,
        temperatures: torch.Tensor | None,
        top_ps: torch.Tensor,
        top_ks: torch.Tensor,
        embedding_bias: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """-> (next tokens [B] int64, logits [B, V]).

        embedding [V, E], hidden_states [B, L, E], output_positions int64 [1] or 0-dim (an index
        into L), temperatures [B] float or None for the likeliest token, top_ps [B] float, top_ks
        [B] int64, embedding_bias [V].

        The logits are soft-capped and divided by the temperature; the likeliest token of a single
        row comes as a 0-dim tensor. Both are the reference's. Draws from torch's default generator.
        """
    __call__ = forward
    @property
    def vocab_size(self) -> int:
        """V."""
    @property
    def config(self) -> GemmaConfig: ...

class LoadReport:
    """What load_weights did, by name."""

    @property
    def loaded(self) -> list[str]: ...
    @property
    def missing(self) -> list[str]:
        """Weights that were left as they were; empty after load_weights, which then raises."""
    @property
    def unexpected(self) -> list[str]:
        """The file's names of what the model does not have; rope tables are not counted."""

class LoadProgress:
    """How far load_weights is. Read it during the call that it is given to."""

    @property
    def tensor(self) -> str:
        """The one just done."""
    @property
    def tensors_done(self) -> int: ...
    @property
    def tensors_total(self) -> int: ...
    @property
    def bytes_done(self) -> int:
        """As the file holds them."""
    @property
    def bytes_total(self) -> int: ...

class EngineModel(Module):
    """A model that an Engine runs. Cannot be constructed."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises RuntimeError when there is none."""
    def set_tokenizer(self, path: str | os.PathLike[str]) -> None:
        """Gives it that of a file, as Tokenizer takes it.

        Raises RuntimeError when it has one already, and what Tokenizer raises.
        """

class LanguageModel(EngineModel):
    """What the text and the multimodal model share. Cannot be constructed."""

    def load_weights(
        self,
        model_path: str | os.PathLike[str],
        progress: Callable[[LoadProgress], object] | None = None,
        *,
        mmap: bool = False,
        keep_blocks: bool = False,
    ) -> LoadReport:
        """Loads a checkpoint of any format that docs/checkpoints.md lists; progress is called after each tensor.

        The weights are copies. With mmap=True they stay in the file where they can: loading takes no
        time, but nobody may write to the file as long as the model lives. With keep_blocks=True the
        matrices of a GGUF stay in its blocks, for fast numerics: `weight` is then their bytes.

        Raises FileNotFoundError, and RuntimeError, naming the file, the tensor and the cure, for a
        file that is not a checkpoint and for a weight that is missing, misshapen, or int8 where
        floats are wanted (or the other way round), and for tensors that would change what the model
        computes, had it a place for them (biases, an adapter's factors, layers beyond the config).
        Then, and when progress raises, every parameter is as it was.
        Warns of tensors that the model has no place for and that change nothing.
        """
    def logits(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Token ids [B, L] of texts from position 0 on -> the logits of all positions [B, L, V], with
        the soft cap, and with a graph for gradients.
        """
    def run(
        self,
        input: torch.Tensor,
        *,
        keep: Sequence[str] = (),
        start_at_layer: int = 0,
        stop_at_layer: int | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """logits(), and the values of points by name, `keep`.

        With start_at_layer, input is what goes into that layer, [B, L, E]; with stop_at_layer, the
        result is what would go into that one, without the final norm.
        """
    @property
    def config(self) -> GemmaConfig:
        """The model's own copy."""

class GemmaForCausalLM(LanguageModel):
    """The text model."""

    freqs_cis: torch.Tensor
    """complex64 [2 * max_position_embeddings, D / 2]. Gemma 1 and 2 only: else AttributeError."""
    local_freqs_cis: torch.Tensor
    """Likewise, Gemma 3 only."""
    global_freqs_cis: torch.Tensor
    """Likewise; config.rope_scaling_factor divides its frequencies."""

    def __init__(self, config: GemmaConfig) -> None:
        """Weights take torch's default dtype, and config.dtype, the KV cache's, has to agree.

        Raises ValueError, naming the field, when no model can be built from the config, and
        FileNotFoundError when config.tokenizer names no file.
        """
    def forward(
        self,
        input_token_ids: torch.Tensor,
        input_positions: torch.Tensor,
        kv_write_indices: torch.Tensor | None,
        kv_caches: Sequence[_KVCache],
        mask: torch.Tensor,
        output_positions: torch.Tensor,
        temperatures: torch.Tensor | None,
        top_ps: torch.Tensor,
        top_ks: torch.Tensor,
        local_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """-> (next tokens [B] int64, logits [B, V]), see Sampler; writes kv_caches in place.

        input_token_ids [B, L] int64, input_positions [L] int64, kv_caches one (k, v) a layer, of
        [B, S, K, D] each, mask and local_mask float32 [1, 1, L, S]; the rest as Sampler takes it.
        kv_write_indices and kwargs are not read, as in the reference: the cache is written at
        input_positions.
        """
    __call__ = forward
    @overload
    def generate(  # type: ignore[overload-overlap]  # A str is a Sequence[str] too.
        self,
        prompts: str,
        device: torch.device | str,
        output_len: int = 100,
        temperature: float | None = 1.0,
        top_p: float = 0.95,
        top_k: int = 64,
        *,
        on_token: Callable[[int, int], object] | None = None,
        stop_ids: Sequence[int] = (),
        kv_dtype: torch.dtype | None = None,
    ) -> str:
        """Continues a prompt, or each of several, by up to output_len tokens, to before an eos.

        temperature None or 0 takes the likeliest token; else the draws come from torch's default
        generator. on_token(row, token) is called for each token of a text as it is chosen; a token
        of stop_ids ends a text as eos does; kv_dtype, float32 or bfloat16, is that of keys and
        values in fast numerics (exact ones follow config.dtype). Ctrl-C ends it after a token.
        Raises ValueError when prompt and output exceed max_position_embeddings, for a parameter out
        of range, and for a device that is not the weights'; RuntimeError when the config named no
        tokenizer.
        """
    @overload
    def generate(
        self,
        prompts: Sequence[str],
        device: torch.device | str,
        output_len: int = 100,
        temperature: float | None = 1.0,
        top_p: float = 0.95,
        top_k: int = 64,
        *,
        on_token: Callable[[int, int], object] | None = None,
        stop_ids: Sequence[int] = (),
        kv_dtype: torch.dtype | None = None,
    ) -> list[str]: ...
    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        device: torch.device | str,
        output_len: int = 100,
        temperature: float | None = 1.0,
        top_p: float = 0.95,
        top_k: int = 64,
        *,
        on_token: Callable[[int, int], object] | None = None,
        stop_ids: Sequence[int] = (),
        kv_dtype: torch.dtype | None = None,
    ) -> list[list[int]]:
        """generate() from token ids, bos included, to the ids of the continuations."""
    @staticmethod
    def from_transformers(model: Any, tokenizer: str | None = None) -> GemmaForCausalLM:
        """A model with the weights and config of a GemmaForCausalLM, Gemma2ForCausalLM or
        Gemma3ForCausalLM of Hugging Face transformers.

        Nothing goes through a file. The tensors are shared with `model`, but for queries, keys and
        values, which are one matrix here. `tokenizer` is a file; rows of the embedding that stand
        for no token of Gemma 3 or of its folder are left out. Raises RuntimeError for a config that is no Gemma's, and
        ValueError, naming the tensor, for a multimodal model and for tensors that do not fit.
        """
    def to_transformers_state_dict(self) -> dict[str, torch.Tensor]:
        """The weights under the names of transformers, lm_head.weight included: views.

        Raises ValueError for a quantised model.
        """
    @property
    def embedder(self) -> Embedding: ...
    @property
    def model(self) -> GemmaModel: ...
    @property
    def sampler(self) -> Sampler: ...
