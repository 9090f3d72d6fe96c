"""copy.deepcopy and pickle of modules: the constructor's arguments, the tensors and the numerics.
Hooks stay behind.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any

import torch

from . import _C


def _sizes(module: Any) -> tuple[int, int]:
    rows, columns = module.weight.shape
    return rows, columns * 2 if module.weight.dtype == torch.uint8 else columns


_ARGUMENTS: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    _C.Linear: lambda module: (*reversed(_sizes(module)), module.quant),
    _C.Embedding: lambda module: (*_sizes(module), module.quant),
    _C.RMSNorm: lambda module: (module.weight.numel(), module.eps, module.add_unit_offset),
    _C.GemmaMLP: lambda module: (*reversed(_sizes(module.gate_proj)), module.gate_proj.quant),
    _C.Sampler: lambda module: (module.vocab_size, module.config),
    _C.GemmaModel: lambda module: (module.config,),
    _C.GemmaForCausalLM: lambda module: (module.config,),
    _C.Gemma3ForMultimodalLM: lambda module: (module.config,),
}


def _made(
    cls: type,
    arguments: tuple[Any, ...],
    dtype: torch.dtype,
    tensors: dict[str, torch.Tensor],
    with_gradients: list[str],
    numerics: str,
    training: bool,
) -> Any:
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        module = cls(*arguments)
    finally:
        torch.set_default_dtype(previous)
    module.load_state_dict(tensors, assign=True)
    for name in with_gradients:
        module.get_parameter(name).requires_grad_()
    module.set_numerics(numerics)
    return module.train(training)


def _reduced(module: Any) -> tuple[Any, ...]:
    parameters = dict(module.named_parameters())
    floats = (value.dtype for value in parameters.values() if value.is_floating_point())
    return _made, (
        type(module),
        _ARGUMENTS[type(module)](module),
        next(floats, torch.get_default_dtype()),
        {name: value.detach() for name, value in parameters.items()},
        [name for name, value in parameters.items() if value.requires_grad],
        module.numerics,
        module.training,
    )


for _class in _ARGUMENTS:
    copyreg.pickle(_class, _reduced)  # type: ignore[arg-type]
