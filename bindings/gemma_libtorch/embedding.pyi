"""EmbeddingGemma: texts to vectors of length 1, whose scalar product says how near they are.

    model = EmbeddingGemma.from_pretrained("embeddinggemma-300m", numerics="fast")
    query = model.embed(["Which planet is red?"], prompt_name="query")
    documents = model.embed(["Mars is red.", "Venus is hot."], prompt_name="document")
    print(query @ documents.T)
"""

import os
from collections.abc import Callable, Iterable, Sequence

import torch

from .config import GemmaConfig
from .model import Embedding, GemmaModel, Linear, LoadProgress, LoadReport, Module, ModuleList
from .tokenizer import Tokenizer

class TextEncoder(Module):
    """Token embedding and layers of Gemma 3, every token of which sees the whole text.

    In local layers it sees sliding_window_size tokens on each side, itself included.
    """

    local_freqs_cis: torch.Tensor
    global_freqs_cis: torch.Tensor
    @property
    def embedder(self) -> Embedding: ...
    @property
    def model(self) -> GemmaModel: ...
    def forward(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Token ids of texts -> [T, E], hidden states of all tokens, one text after another."""

class Dense(Module):
    """Dense of sentence-transformers, without bias and activation."""

    @property
    def linear(self) -> Linear: ...
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_features] -> [N, out_features]."""

class EmbeddingGemma(Module):
    """What SentenceTransformer.encode of sentence-transformers gives.

    With exact numerics the layers are those of gemma_pytorch, and each text goes through them by
    itself; fast ones take many together. A text has the same bits in any batch.
    """

    @property
    def encoder(self) -> TextEncoder: ...
    @property
    def dense(self) -> ModuleList[Dense]: ...
    @staticmethod
    def from_pretrained(
        directory: str | os.PathLike[str],
        dtype: torch.dtype | None = None,
        numerics: str = "exact",
        progress: Callable[[LoadProgress], object] | None = None,
        *,
        mmap: bool = False,
    ) -> EmbeddingGemma:
        """The model in a directory of sentence-transformers, its weights in `dtype` or as they are.

        Raises FileNotFoundError when there is no modules.json, and RuntimeError, naming the file
        and the field, for what is no EmbeddingGemma. mmap=True leaves weights in the file, which nobody
        may write to then.
        """
    def load_weights(
        self,
        directory: str | os.PathLike[str],
        progress: Callable[[LoadProgress], object] | None = None,
        *,
        mmap: bool = False,
    ) -> LoadReport:
        """Loads the weights of a directory of sentence-transformers; progress is called after each tensor.

        Raises as from_pretrained, and RuntimeError for weights of another shape; then every
        parameter is as it was.
        """
    def embed(
        self,
        texts: Iterable[str],
        dim: int | None = None,
        prompt_name: str | None = None,
        *,
        truncate: bool = False,
    ) -> torch.Tensor:
        """-> float32 [N, dim], rows of length 1.

        `dim` keeps the first so many numbers, of length 1 again; the model was trained for 512, 256
        and 128. `prompt_name` is one of `prompts`, which is put before each text. Raises ValueError
        for a dim or a name that the model does not have, and for a text that is longer than
        text_config.max_position_embeddings; truncate=True cuts its end instead.
        """
    def encode(
        self, text: str, prompt_name: str | None = None, *, truncate: bool = False
    ) -> list[int]:
        """The ids that a text becomes: bos, prompt and text, eos."""
    def forward(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Texts as token ids, bos and eos included -> float32 [N, dim], rows of length 1.

        Raises ValueError for a text without tokens, one that is too long, and an id outside the
        vocabulary.
        """
    @property
    def dim(self) -> int:
        """Numbers of an embedding."""
    @property
    def text_config(self) -> GemmaConfig:
        """A copy. sliding_window_size is what a token sees on each side, itself included."""
    @property
    def prompts(self) -> dict[str, str]:
        """What is put before a text for a task, by the task's name; a copy."""
    @property
    def default_prompt_name(self) -> str | None:
        """The task of texts for which none is named."""
    @property
    def tokenizer(self) -> Tokenizer: ...
