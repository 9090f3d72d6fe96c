"""What a TransformerLens user types, on a model of this package; TransformerLens is not needed.

from gemma_libtorch.lens import LensModel

lens = LensModel(gemma)  # A GemmaForCausalLM.
logits, cache = lens.run_with_cache("The capital of France is")
cache["pattern", 5]  # [1, heads, length, length]
lens.run_with_hooks(tokens, fwd_hooks=[("blocks.5.hook_resid_post", steer)])
"""

from .cache import ActivationCache
from .components import Block, Component
from .config import LensConfig
from .hooks import HookPoint
from .model import LensModel

__all__ = ["ActivationCache", "Block", "Component", "HookPoint", "LensConfig", "LensModel"]
