"""Google's recurrentgemma as the reference of RecurrentGemma."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ..recurrentgemma import TemporalBlockType
from .beside import Beside
from .capture import Values, Watch
from .pairs import Pair, Place

_RECURRENT = (
    "linear_y",
    "linear_x",
    "conv_1d",
    "rg_lru.input_gate",
    "rg_lru.a_gate",
    "rg_lru",
    "linear_out",
)
_ATTENTION = ("proj_q", "proj_k", "proj_v", "proj_final")
_TAKE_POSITIONS = ("recurrent_block", "attention_block", "conv_1d", "rg_lru")


def _parts(block: Any) -> Iterator[str]:
    """The paths of a block's modules, in the order in which they end."""
    is_recurrent = block.temporal_block_type == TemporalBlockType.RECURRENT
    name = "recurrent_block" if is_recurrent else "attention_block"
    yield "temporal_pre_norm"
    yield from (f"{name}.{part}" for part in (_RECURRENT if is_recurrent else _ATTENTION))
    yield name
    yield from ("channel_pre_norm", "mlp_block.ffw_up", "mlp_block.ffw_down", "mlp_block")


class RecurrentGemma(Beside):
    """Our modules have no taps: each is called by itself."""

    title = "recurrentgemma"

    def _pairs(self) -> Iterable[Pair]:
        yield Pair("embedder", (Place("blocks.0", "in"),))
        for i, block in enumerate(self.ours.blocks):
            for part in (*_parts(block), ""):
                path = f"blocks.{i}.{part}".removesuffix(".")
                tokens = 2 if part.endswith("ffw_up") else 1  # [2, B, L, F].
                yield Pair(path, (Place(path), Place(path, "in")), position_dim=tokens, layer=i)
        yield Pair("final_norm", (Place("final_norm"), Place("final_norm", "in")))
        yield Pair("logits", (Place(""),))

    @property
    def _positions(self) -> torch.Tensor:
        batch, length = self.ids.shape
        return torch.arange(length, device=self.ids.device).expand(batch, -1).int()

    def _run_theirs(self) -> None:
        self.theirs(self.ids, self._positions)

    def _take(self, watch: Watch) -> None:
        self._inputs = {path: value for (path, part), value in watch.kept.items() if part == "in"}

    def _call(self, path: str, x: torch.Tensor) -> torch.Tensor:
        module, name = self.ours.get_submodule(path), path.rpartition(".")[2]
        if name.isdigit() or name in _TAKE_POSITIONS:
            return module(x, self._positions)[0]
        return module(x)

    def _decode(self, x: torch.Tensor) -> torch.Tensor:
        logits, cap = self.ours.embedder.decode(x), self.ours.config.logits_soft_cap
        return torch.tanh(logits / cap) * cap if cap else logits

    def ours_at(self, fed: Mapping[str, torch.Tensor]) -> Values:
        with torch.no_grad():
            if not fed:
                return self._end_to_end()
            values = {path: self._call(path, x) for path, x in self._inputs.items()}
            values["embedder"] = self.ours.embedder.encode(self.ids)
            if "final_norm" in fed:
                values["logits"] = self._decode(fed["final_norm"])
            return values

    def _end_to_end(self) -> Values:
        x = self.ours.embedder.encode(self.ids)
        values = {"embedder": x}
        for i, block in enumerate(self.ours.blocks):
            inside = self._inside(f"blocks.{i}", list(_parts(block)), x)
            x = self._call(f"blocks.{i}", x)
            values |= inside | {f"blocks.{i}": x}
        values["final_norm"] = self._call("final_norm", x)
        logits = self.ours(self.ids, self._positions)[0]
        return values | {"logits": logits}

    def _inside(self, block: str, parts: list[str], x: torch.Tensor) -> Values:
        """Of the modules of a block whose input is x. The last of a group gives what the group
        gives.
        """
        values: Values = {}
        temporal = parts[parts.index("channel_pre_norm") - 1]
        normed = values["temporal_pre_norm"] = self._call(f"{block}.temporal_pre_norm", x)
        values[temporal] = self._call(f"{block}.{temporal}", normed)
        for part in parts:
            if part.startswith(f"{temporal}."):
                name = part.removeprefix(f"{temporal}.")
                given = {"conv_1d": "linear_x"}.get(name, "conv_1d" if "rg_lru" in name else "")
                source = values[f"{temporal}.{given}"] if given else normed
                is_last = name in ("linear_out", "proj_final")
                path = f"{block}.{part}"
                values[part] = values[temporal] if is_last else self._call(path, source)
        middle = x + values[temporal]
        normed = values["channel_pre_norm"] = self._call(f"{block}.channel_pre_norm", middle)
        values["mlp_block"] = self._call(f"{block}.mlp_block", normed)
        values["mlp_block.ffw_up"] = self._call(f"{block}.mlp_block.ffw_up", normed)
        values["mlp_block.ffw_down"] = values["mlp_block"]
        return {f"{block}.{part}": value for part, value in values.items()}


# --- making one -----------------------------------------------------------------------------------


@functools.cache
def package_of(root: Path | None) -> ModuleType:
    """recurrentgemma.torch.griffin of a checkout, or without one of the package that is installed.
    Raises ValueError when there is none.
    """
    name = "--reference griffin" if root is None else f"--reference griffin:{root}"
    if root is None:
        spec = importlib.util.find_spec("recurrentgemma")
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(
                f"{name}: recurrentgemma is not installed; griffin:DIR names a checkout"
            )
        root = Path(spec.submodule_search_locations[0]).parent
    if not (root / "recurrentgemma" / "torch" / "griffin.py").is_file():
        raise ValueError(f"{name}: not a checkout of recurrentgemma")
    # The packages' own __init__.py import JAX.
    for part in ("recurrentgemma", "recurrentgemma.torch"):
        package = ModuleType(part)
        package.__path__ = [str(root.resolve() / part.replace(".", "/"))]
        sys.modules.setdefault(part, package)
    try:
        return importlib.import_module("recurrentgemma.torch.griffin")
    except ImportError as error:
        raise ValueError(f"{name}: {error}; install what its torch part needs") from error


def load(package: ModuleType, ours: Any, path: Path) -> tuple[Any, str]:
    """The reference with the weights of our model's file, and which loader read them."""
    common, fields = package.common, ours.config._asdict()
    fields["block_types"] = tuple(common.TemporalBlockType[t.name] for t in fields["block_types"])
    fields["scan_type"] = common.ScanType[fields["scan_type"].name]
    parameters = ours.state_dict()
    dtype = next(iter(parameters.values())).dtype
    config = common.GriffinConfig(**fields)
    model = package.Griffin(config, gradient_checkpointing=False, dtype=dtype).eval()
    if path.is_file() and zipfile.is_zipfile(path):
        state = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
        if all(name in state for name in parameters):
            model.load_state_dict({name: state[name] for name in parameters})
            return model, "torch.load, as its README has it"
    model.load_state_dict(parameters)
    return model, "the loader of gemma_libtorch"
