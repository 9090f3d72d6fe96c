"""gemma_libtorch.diff beside transformers: a fault that is planted into one module is found there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gemma_libtorch
import pytest
import test_vaultgemma
import tiny
import torch
from gemma_libtorch.diff import compare
from test_diff import changed_rows, ids_of
from test_transformers import MULTIMODAL, hf_model, hf_multimodal_model

TOLERANCE = 1e-5  # In float32 transformers sums in another order.
LAYER = 1
HERE = f"model.layers.{LAYER}"
NAMES = ("gemma1_mqa", "gemma2", "gemma3")
FIELDS = {
    "gemma1_mqa": tiny.CONFIGS["gemma1_mqa"],
    "gemma2": {**tiny.CONFIGS["gemma2"], "query_pre_attn_scalar": 24},
    "gemma3": tiny.CONFIGS["gemma3"],
}


def beside_transformers(name: str) -> tuple[Any, Any]:
    ours = tiny.make_model(gemma_libtorch, FIELDS[name], "float32")
    return ours, hf_model(ours, FIELDS[name])


@pytest.mark.parametrize("name", NAMES)
def test_transformers_agrees_under_a_tolerance(name: str) -> None:
    ours, theirs = beside_transformers(name)
    report = compare(ours, theirs, ids_of(), tolerance=TOLERANCE)
    assert report.status == 0, report.as_text()
    assert report.theirs_only == []
    rows = {row.name: row for row in report.rows}
    assert rows["embedder"].note == "no module there: see model.hook_in"
    assert rows[f"{HERE}.self_attn.qkv_proj"].note.startswith("three matrices there")
    compared = [row for row in report.rows if not row.note]
    assert all(row.fed and row.end_to_end for row in compared)
    assert len(report.rows) - len(compared) == 1 + ours.config.num_hidden_layers


@pytest.mark.parametrize("name", NAMES)
def test_rows_stand_in_the_order_of_execution(name: str) -> None:
    ours, theirs = beside_transformers(name)
    ended: list[str] = []
    for path, module in theirs.named_modules():
        module.register_forward_hook(lambda *_, path=path: ended.append(path))
    rows = [row.theirs for row in compare(ours, theirs, ids_of()).rows if row.theirs]
    assert [path for path in ended if path in rows] == [path for path in rows if path in ended]
    others = {path.rpartition(".")[2] for path in set(ended) - set(rows)}
    assert others == {"", "model", "act_fn", "rotary_emb"}


def _scale(module: Any) -> None:
    """Each output by another factor, as a norm would undo one that all have in common."""
    weight = module.weight.data
    factors = torch.linspace(1.01, 1.02, len(weight)).view(-1, *[1] * (weight.dim() - 1))
    # lm_head's is the embedding's, too.
    module.weight = torch.nn.Parameter(weight * factors)


def _swap_rotary_halves(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat((second, -first), dim=-1)

    module = sys.modules[type(theirs.model.layers[0].self_attn).__module__]
    monkeypatch.setattr(module, "rotate_half", swapped)


def _permute_heads(theirs: Any, _: Any) -> None:
    weight = theirs.model.layers[LAYER].self_attn.o_proj.weight.data
    weight.copy_(weight.unflatten(1, (4, -1)).flip(1).flatten(1))


def _change(path: str, action: Callable[[Any], None]) -> Callable[[Any, Any], None]:
    return lambda theirs, _: action(theirs.get_submodule(path))


def _replace(path: str, name: str, value: Any) -> Callable[[Any, Any], None]:
    return lambda theirs, _: setattr(theirs.get_submodule(path), name, value)


def _times(path: str, name: str, factor: float) -> Callable[[Any, Any], None]:
    def multiply(theirs: Any, _: Any) -> None:
        module = theirs.get_submodule(path)
        setattr(module, name, getattr(module, name) * factor)

    return multiply


FAULTS: dict[str, tuple[Callable[[Any, Any], None], str]] = {
    "a wrong embedding scale": (_times("model.embed_tokens", "embed_scale", 1.01), "model.hook_in"),
    "a wrong scale of a norm": (
        _change(f"{HERE}.input_layernorm", _scale),
        f"{HERE}.input_layernorm",
    ),
    "a wrong projection": (
        _change(f"{HERE}.self_attn.k_proj", _scale),
        f"{HERE}.self_attn.hook_k",
    ),
    "a swapped half of the rotation": (
        _swap_rotary_halves,
        "model.layers.0.self_attn.hook_rot_q",
    ),
    "a wrong scale of scores": (
        _times(f"{HERE}.self_attn", "scaling", 1.1),
        f"{HERE}.self_attn.hook_pattern",
    ),
    "permuted heads": (_permute_heads, f"{HERE}.self_attn.o_proj"),
    "a wrong activation": (
        _replace(f"{HERE}.mlp", "act_fn", torch.nn.SiLU()),
        f"{HERE}.mlp.down_proj.hook_in",
    ),
    "a wrong matrix of an MLP": (_change(f"{HERE}.mlp.up_proj", _scale), f"{HERE}.mlp.up_proj"),
    "a wrong final norm": (_replace("model.norm", "eps", 0.1), "model.norm"),
    "a wrong matrix of logits": (_change("lm_head", _scale), "hook_logits"),
}
FAULTS_AFTER_GEMMA_1 = {
    "a missing norm": (
        _replace(HERE, "post_feedforward_layernorm", torch.nn.Identity()),
        f"{HERE}.post_feedforward_layernorm",
    ),
}
FAULTS_OF_GEMMA_3 = {
    "a wrong norm of queries": (
        _replace(f"{HERE}.self_attn.q_norm", "eps", 1.0),
        f"{HERE}.self_attn.query_norm",
    ),
    "a wrong table of rotation": (
        _times("model.rotary_emb", "full_attention_inv_freq", 1.01),
        "global_freqs_cis",
    ),
}


@pytest.mark.parametrize(
    ("name", "fault"),
    [(name, fault) for name in NAMES for fault in FAULTS]
    + [(name, fault) for name in NAMES[1:] for fault in FAULTS_AFTER_GEMMA_1]
    + [("gemma3", fault) for fault in FAULTS_OF_GEMMA_3],
)
def test_a_planted_fault_is_found_and_named(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    action, where = {**FAULTS, **FAULTS_AFTER_GEMMA_1, **FAULTS_OF_GEMMA_3}[fault]
    ours, theirs = beside_transformers(name)
    action(theirs, monkeypatch)
    report = compare(ours, theirs, ids_of(), tolerance=TOLERANCE)
    first = report.first("fed")
    assert first and first.name == where
    assert report.status == 1
    assert where in report.verdict
    last = report.rows[-1]
    assert last.differs("end_to_end", TOLERANCE)
    if where.startswith(HERE):  # Nothing before the layer differs in either pass, or after it.
        assert all(row_name.startswith(HERE) for row_name in changed_rows(report))
        assert all(
            row.layer is None or row.layer >= LAYER
            for row in report.rows
            if row.differs("end_to_end", TOLERANCE)
        )


def test_a_reference_whose_attention_returns_no_weights_is_compared_without_them() -> None:
    ours, theirs = beside_transformers("gemma3")
    theirs.set_attn_implementation("sdpa")
    report = compare(ours, theirs, ids_of(), tolerance=TOLERANCE)
    (row,) = [row for row in report.rows if row.name == f"{HERE}.self_attn.hook_pattern"]
    assert row.note == "transformers did not give it"
    assert report.status == 0


def test_the_text_part_of_a_multimodal_model_agrees() -> None:
    ours = tiny.make_multimodal(gemma_libtorch, **MULTIMODAL)
    theirs = hf_multimodal_model(ours, MULTIMODAL)
    ids = ids_of().clamp(min=1)  # 0 stands for an image here.
    report = compare(ours, theirs, ids, tolerance=TOLERANCE)
    assert report.status == 0, report.as_text()


@pytest.mark.parametrize("kind", test_vaultgemma.KINDS)
def test_vaultgemma_agrees_under_a_tolerance(kind: str) -> None:
    theirs = test_vaultgemma.vaultgemma(kind)
    ours = gemma_libtorch.model.GemmaForCausalLM.from_transformers(theirs)
    report = compare(ours, theirs, ids_of(), tolerance=TOLERANCE)
    assert report.status == 0, report.as_text()
    rows = {row.name: row for row in report.rows}
    norm = rows[f"{HERE}.post_attention_layernorm"]
    assert norm.theirs == f"{HERE}.pre_feedforward_layernorm"
    assert norm.fed and not norm.note
