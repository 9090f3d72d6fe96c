"""recurrentgemma.torch of Google's recurrentgemma: RecurrentGemma's network, in C++.

Shapes: B batch, T tokens, E width, H heads, D head width, W attention window, K width of the
convolution, R width of the recurrence, V vocabulary.

segment_pos [B, T], of any integer dtype, is a token's place in its document: 0 for the first, -1
for padding on the left. With a cache T is 1. The tensors of a cache are written to.

Weights take `dtype`, or else torch's default one, and hold nothing until loaded.
"""

import enum
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch

from .model import EngineModel, Linear, LoadProgress, LoadReport, Module, ModuleList
from .siglip_vision.siglip_vision_model import BiasedLinear
from .tokenizer import Tokenizer

_Device: TypeAlias = torch.device | str | int | None

class TemporalBlockType(enum.Enum):
    ATTENTION = 1
    RECURRENT = 2

class ScanType(enum.Enum):
    """How JAX would run the recurrence; nothing here reads it."""

    AUTO = 1
    LINEAR_NATIVE = 2
    ASSOCIATIVE_NATIVE = 3
    LINEAR_PALLAS = 4

class Preset(enum.Enum):
    """The published models, and those of the paper."""

    GRIFFIN_PAPER_7B = 1
    HAWK_PAPER_7B = 2
    RECURRENT_GEMMA_2B_V1 = 3
    RECURRENT_GEMMA_9B_V1 = 4

class GriffinConfig(NamedTuple):
    vocab_size: int
    """V, the rows of the embedding."""
    width: int
    """E."""
    mlp_expanded_width: int
    num_heads: int
    """H; also the blocks of the recurrence's gates. Divides width and lru_width."""
    block_types: tuple[TemporalBlockType, ...]
    embeddings_scale_by_sqrt_dim: bool
    attention_window_size: int
    """W. A token sees itself and the W tokens before it."""
    logits_soft_cap: float
    """0: none."""
    lru_width: int | None = None
    """R; width when None."""
    scan_type: ScanType = ScanType.AUTO

    @property
    def max_cache_length(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @staticmethod
    def from_preset(
        preset: Preset, vocab_size: int = 256000, max_sequence_length: int | None = None
    ) -> GriffinConfig:
        """max_sequence_length makes the window smaller, for texts that are never longer."""
    @staticmethod
    def from_torch_params(
        params: Mapping[str, torch.Tensor],
        preset: Preset | None = None,
        embeddings_scale_by_sqrt_dim: bool | None = None,
        attention_window_size: int | None = None,
        logits_soft_cap: float | None = None,
        scan_type: ScanType | None = None,
        max_sequence_length: int | None = None,
    ) -> GriffinConfig:
        """Sizes from a state dict, the rest as given, or else the preset's.

        Raises ValueError when the weights are not those of the preset, or nothing says the rest.
        """
    @staticmethod
    def from_pretrained(path: str | os.PathLike[str]) -> GriffinConfig:
        """That of a file of Google's or a directory of Hugging Face: what load_weights takes.

        Raises FileNotFoundError, or RuntimeError when the file does not say it.
        """

class RecurrentBlockCache(NamedTuple):
    """May be any tuple of the two, where a function takes one."""

    rg_lru_state: torch.Tensor
    """[B, R], float32."""
    conv1d_state: torch.Tensor
    """[B, K - 1, R]."""

class AttentionBlockCache(NamedTuple):
    """May be any tuple of the three, where a function takes one."""

    keys: torch.Tensor
    """[B, W, 1, D]. A token's place is its position % W."""
    values: torch.Tensor
    """Likewise."""
    num_tokens: torch.Tensor
    """[B], of any integer dtype."""

ResidualBlockCache = RecurrentBlockCache | AttentionBlockCache

class SamplerOutput(NamedTuple):
    """One of each a text."""

    text: list[str]
    logits: list[torch.Tensor]
    """[tokens, V] each; none unless asked for."""
    tokens: list[torch.Tensor]
    """[tokens] each, int32."""

def rnn_scan(
    x: torch.Tensor,
    a: torch.Tensor,
    reset: torch.Tensor,
    h0: torch.Tensor | None,
    acc_dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """h[t] = a[t] * h[t - 1] + x[t], where a[t] counts as 0 when reset[t].

    x and a [B, T, E], reset bool [B, T], h0 [B, E] in acc_dtype, None for zeros
    -> (h in x's dtype, the last one in acc_dtype). Raises ValueError.
    """

class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * (1 + scale), computed in x's dtype."""

    scale: torch.Tensor
    """[width], zeros until loaded."""
    def __init__(
        self,
        width: int,
        eps: float = 1e-6,
        *,
        device: _Device = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., width] -> [..., width]."""
    __call__ = forward
    @property
    def width(self) -> int: ...
    @property
    def eps(self) -> float: ...

class BlockDiagonalLinear(Module):
    """A linear layer for each block of features."""

    w: torch.Tensor
    """[num_blocks, block_width, block_width]."""
    b: torch.Tensor
    """[num_blocks, block_width]."""
    def __init__(
        self,
        width: int,
        num_blocks: int,
        *,
        device: _Device = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., width] -> [..., width]."""
    __call__ = forward
    @property
    def width(self) -> int: ...
    @property
    def num_blocks(self) -> int: ...
    @property
    def block_width(self) -> int: ...

class RGLRU(Module):
    """The Real-Gated Linear Recurrent Unit."""

    a_param: torch.Tensor
    """[width]."""
    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        device: _Device = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
    def forward(
        self,
        x: torch.Tensor,
        segment_pos: torch.Tensor,
        cache: torch.Tensor | None = None,
        return_cache: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x [B, T, width], cache float32 [B, width] -> ([B, T, width], the next cache)."""
    __call__ = forward
    @staticmethod
    def init_cache(batch_size: int, width: int, device: _Device = None) -> torch.Tensor: ...
    @property
    def width(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def input_gate(self) -> BlockDiagonalLinear: ...
    @property
    def a_gate(self) -> BlockDiagonalLinear: ...

class Conv1D(Module):
    """Each feature by itself, over the last temporal_width tokens of its document."""

    w: torch.Tensor
    """[temporal_width, width], the token's own last."""
    b: torch.Tensor
    """[width]."""
    def __init__(
        self,
        width: int,
        temporal_width: int,
        *,
        device: _Device = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
    def forward(
        self,
        x: torch.Tensor,
        segment_pos: torch.Tensor,
        cache: torch.Tensor | None = None,
        return_cache: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x [B, T, width], cache [B, temporal_width - 1, width]
        -> ([B, T, width], the next cache).

        Without a cache, a token of x that another document follows within temporal_width - 1
        becomes 0, in x itself.
        """
    __call__ = forward
    @staticmethod
    def init_cache(
        *,
        batch_size: int,
        width: int,
        dtype: torch.dtype,
        conv1d_temporal_width: int = 4,
        device: _Device = None,
    ) -> torch.Tensor: ...
    @property
    def width(self) -> int: ...
    @property
    def temporal_width(self) -> int: ...

class Einsum(Module):
    """einsum(eqn, x, w) + b."""

    w: torch.Tensor
    b: torch.Tensor
    def __init__(
        self,
        w_shape: Sequence[int],
        b_shape: Sequence[int],
        eqn: str,
        *,
        device: _Device = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the equation says."""
    __call__ = forward
    @property
    def eqn(self) -> str: ...

class RecurrentBlock(Module):
    """linear_out(rg_lru(conv_1d(linear_x(x))) * gelu_tanh(linear_y(x)))."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        lru_width: int | None = None,
        conv1d_temporal_width: int = 4,
        *,
        device: _Device = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
    def forward(
        self,
        x: torch.Tensor,
        segment_pos: torch.Tensor,
        cache: RecurrentBlockCache | None = None,
        return_cache: bool = True,
    ) -> tuple[torch.Tensor, RecurrentBlockCache | None]:
        """[B, T, width] -> ([B, T, width], the next cache)."""
    __call__ = forward
    @staticmethod
    def init_cache(
        batch_size: int,
        lru_width: int,
        dtype: torch.dtype,
        conv1d_temporal_width: int = 4,
        device: _Device = None,
    ) -> RecurrentBlockCache: ...
    @property
    def width(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def lru_width(self) -> int: ...
    @property
    def conv1d_temporal_width(self) -> int: ...
    @property
    def linear_y(self) -> BiasedLinear: ...
    @property
    def linear_x(self) -> BiasedLinear: ...
    @property
    def linear_out(self) -> BiasedLinear: ...
    @property
    def conv_1d(self) -> Conv1D: ...
    @property
    def rg_lru(self) -> RGLRU: ...

class LocalAttentionBlock(Module):
    """Attention with one key/value head, to the token itself and the window_size before it."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        window_size: int,
        *,
        device: _Device = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
    def forward(
        self,
        x: torch.Tensor,
        segment_pos: torch.Tensor,
        cache: AttentionBlockCache | None = None,
        return_cache: bool = True,
    ) -> tuple[torch.Tensor, AttentionBlockCache | None]:
        """[B, T, width] -> ([B, T, width], the next cache). With a cache T may be window_size or
        more, which then replace it.
        """
    __call__ = forward
    @staticmethod
    def init_cache(
        batch_size: int,
        window_size: int,
        heads_dim: int,
        dtype: torch.dtype,
        device: _Device = None,
    ) -> AttentionBlockCache: ...
    @property
    def width(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def window_size(self) -> int: ...
    @property
    def proj_q(self) -> Linear: ...
    @property
    def proj_k(self) -> Linear: ...
    @property
    def proj_v(self) -> Linear: ...
    @property
    def proj_final(self) -> BiasedLinear: ...

class MLPBlock(Module):
    """ffw_down(gelu_tanh(up[0]) * up[1]), both of ffw_up."""

    def __init__(
        self,
        width: int,
        expanded_width: int,
        *,
        device: _Device = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, width] -> [B, T, width]."""
    __call__ = forward
    @property
    def width(self) -> int: ...
    @property
    def expanded_width(self) -> int: ...
    @property
    def ffw_up(self) -> Einsum: ...
    @property
    def ffw_down(self) -> BiasedLinear: ...

class ResidualBlock(Module):
    """One layer: recurrence or attention, then an MLP, each behind a norm.

    It has a recurrent_block or an attention_block: the other is an AttributeError.
    """

    def __init__(
        self,
        width: int,
        mlp_expanded_width: int,
        num_heads: int,
        attention_window_size: int,
        temporal_block_type: TemporalBlockType,
        lru_width: int | None = None,
        conv1d_temporal_width: int = 4,
        *,
        device: _Device = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
    def forward(
        self,
        x: torch.Tensor,
        segment_pos: torch.Tensor,
        cache: RecurrentBlockCache | AttentionBlockCache | None = None,
        return_cache: bool = True,
    ) -> tuple[torch.Tensor, RecurrentBlockCache | AttentionBlockCache | None]:
        """[B, T, width] -> ([B, T, width], the next cache)."""
    __call__ = forward
    @staticmethod
    def init_cache(
        batch_size: int,
        width: int,
        num_heads: int,
        attention_window_size: int,
        temporal_block_type: TemporalBlockType,
        dtype: torch.dtype,
        lru_width: int | None = None,
        conv1d_temporal_width: int = 4,
        device: _Device = None,
    ) -> RecurrentBlockCache | AttentionBlockCache: ...
    @property
    def temporal_block_type(self) -> TemporalBlockType: ...
    @property
    def temporal_pre_norm(self) -> RMSNorm: ...
    @property
    def recurrent_block(self) -> RecurrentBlock: ...
    @property
    def attention_block(self) -> LocalAttentionBlock: ...
    @property
    def channel_pre_norm(self) -> RMSNorm: ...
    @property
    def mlp_block(self) -> MLPBlock: ...

class Embedder(Module):
    input_embedding: torch.Tensor
    """[vocab_size, embed_dim]."""
    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        scale_by_sqrt_dim: bool,
        *,
        device: _Device = None,
        dtype: torch.dtype | None = None,
    ) -> None: ...
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Token ids [B, T] -> [B, T, embed_dim], scaled by its root as bfloat16 rounds that."""
    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, embed_dim] -> logits [B, T, vocab_size]."""
    @property
    def vocab_size(self) -> int: ...
    @property
    def embed_dim(self) -> int: ...
    @property
    def scale_by_sqrt_dim(self) -> bool: ...

class Griffin(EngineModel):
    """The network. forward computes with exact numerics; an Engine runs it with fast ones."""

    def __init__(
        self,
        config: GriffinConfig,
        gradient_checkpointing: bool = True,
        device: _Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Raises ValueError, naming the field. Nothing here has gradients to checkpoint."""
    def forward(
        self,
        tokens: torch.Tensor,
        segment_pos: torch.Tensor,
        cache: Mapping[str, RecurrentBlockCache | AttentionBlockCache] | None = None,
        return_logits: bool = True,
        return_cache: bool = True,
    ) -> tuple[torch.Tensor | None, dict[str, RecurrentBlockCache | AttentionBlockCache] | None]:
        """tokens [B, T], int32 or int64 -> (logits [B, T, V], the next cache by block: "blocks.0").

        Raises ValueError for other shapes and for a cache of another model.
        """
    __call__ = forward
    def init_cache(
        self, batch_size: int, dtype: torch.dtype
    ) -> dict[str, RecurrentBlockCache | AttentionBlockCache]: ...
    def load_weights(
        self,
        model_path: str | os.PathLike[str],
        progress: Callable[[LoadProgress], object] | None = None,
        *,
        mmap: bool = False,
    ) -> LoadReport:
        """Loads a file of Google's (.pt), or what Hugging Face has; see GemmaForCausalLM."""
    def to_transformers_state_dict(self) -> dict[str, torch.Tensor]:
        """The weights under the names of transformers' RecurrentGemmaForCausalLM: views of them."""
    @property
    def config(self) -> GriffinConfig: ...
    @property
    def embedder(self) -> Embedder: ...
    @property
    def blocks(self) -> ModuleList[ResidualBlock]: ...
    @property
    def final_norm(self) -> RMSNorm: ...

class Sampler:
    """Continues texts with a Griffin."""

    def __init__(
        self,
        model: Griffin,
        vocab: Tokenizer,
        greedy_sampling: bool = True,
        is_it_model: bool = False,
    ) -> None:
        """greedy_sampling: always the likeliest token, else draws from torch's default generator.

        is_it_model: prompts become a user's turn.
        """
    def __call__(
        self,
        input_strings: Iterable[str],
        total_generation_steps: int,
        echo: bool = False,
        return_logits: bool = False,
        end_sampling_at_eos_token: bool = True,
    ) -> SamplerOutput:
        """Continues each text by total_generation_steps tokens.

        Of several prompts only the longest gets all of them unless echo, and eos ends none, as in
        the reference. Raises ValueError for negative steps and for no prompts.
        """
    def tokenize(self, input_string: str) -> torch.Tensor:
        """bos and the text's tokens: int32 [tokens]."""
    @property
    def model(self) -> Griffin: ...
    @property
    def greedy_sampling(self) -> bool: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def vocab_size(self) -> int: ...
