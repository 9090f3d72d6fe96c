"""gemma_libtorch.diff beside gemma_pytorch: equal to the last bit, but for faults that are planted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import reference
import tiny
import torch
from gemma_libtorch.diff import compare
from gemma_libtorch.diff.__main__ import main

gemma_pytorch = reference.required()

LAYER = 1
HERE = f"model.layers.{LAYER}"
NAMES = ("gemma1_mqa", "gemma2", "gemma3")


def pair_of(name: str, dtype: str = "float32", quant: bool = False) -> tuple[Any, Any]:
    ours, theirs = (
        tiny.make_model(package, tiny.CONFIGS[name], dtype, quant)
        for package in (gemma_libtorch, gemma_pytorch)
    )
    return ours, theirs


def ids_of(vocab_size: int = tiny.VOCAB_SIZE) -> torch.Tensor:
    return tiny.random_ids((2, 9), vocab_size)


@pytest.mark.parametrize("quant", [False, True], ids=["floats", "int8"])
@pytest.mark.parametrize("dtype", tiny.DTYPES)
@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_every_value_is_equal(name: str, dtype: str, quant: bool) -> None:
    ours, theirs = pair_of(name, dtype, quant)
    report = compare(ours, theirs, ids_of())
    assert report.status == 0, report.as_text()
    assert all(row.fed and row.end_to_end and not row.note for row in report.rows)
    assert report.theirs_only == []


@pytest.mark.parametrize("name", NAMES)
def test_rows_stand_in_the_order_of_execution(name: str) -> None:
    ours, theirs = pair_of(name)
    ended: list[str] = []
    for path, module in theirs.named_modules():
        module.register_forward_hook(lambda *_, path=path: ended.append(path))
    rows = [row.name for row in compare(ours, theirs, ids_of()).rows]
    assert [path for path in ended if path in rows] == [path for path in rows if path in ended]
    assert set(ended) - set(rows) == {"", "model"}


def test_the_text_part_of_a_multimodal_model_is_equal() -> None:
    ours, theirs = (tiny.make_multimodal(package) for package in (gemma_libtorch, gemma_pytorch))
    report = compare(ours, theirs, ids_of())
    assert report.status == 0, report.as_text()
    assert report.rows[0].name == "text_token_embedder"


@pytest.mark.parametrize("name", NAMES)
def test_fast_numerics_pass_under_a_tolerance(name: str) -> None:
    ours, theirs = pair_of(name)
    ours.set_numerics("fast")
    assert compare(ours, theirs, ids_of(), tolerance=1e-5).status == 0
    assert compare(ours, theirs, ids_of()).status == 1


# --- planted faults -------------------------------------------------------------------------------

Fault = Callable[[Any, pytest.MonkeyPatch], None]


def wrong_weight(path: str) -> Fault:
    def change(theirs: Any, _: Any) -> None:
        weight = theirs.get_parameter(f"{path}.weight")
        weight.view(-1)[:5] += 0.01

    return change


def attribute(path: str, name: str, value: Any) -> Fault:
    return lambda theirs, _: setattr(theirs.get_submodule(path), name, value)


def wrong_embedding(theirs: Any, _: Any) -> None:
    theirs.embedder.weight[:, 0] += 0.01


def wrong_embedding_scale(theirs: Any, _: Any) -> None:
    theirs.config = copy.copy(theirs.config)
    theirs.config.hidden_size += 1


def swapped_rotary_halves(_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rotate = gemma_pytorch.model.apply_rotary_emb

    def swapped(x: torch.Tensor, freqs_cis: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return rotate(torch.cat((second, first), dim=-1), freqs_cis=freqs_cis)

    monkeypatch.setattr(gemma_pytorch.model, "apply_rotary_emb", swapped)


def permuted_heads(theirs: Any, _: Any) -> None:
    weight = theirs.get_parameter(f"{HERE}.self_attn.o_proj.weight")
    weight.copy_(weight.unflatten(1, (4, -1)).flip(1).flatten(1))


def wrong_activation(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = theirs.get_submodule(f"{HERE}.mlp")

    def relu(x: torch.Tensor) -> torch.Tensor:
        return mlp.down_proj(torch.relu(mlp.gate_proj(x)) * mlp.up_proj(x))

    monkeypatch.setattr(mlp, "forward", relu)


def wrong_residual(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = theirs.get_submodule(HERE)
    forward = layer.forward
    monkeypatch.setattr(layer, "forward", lambda **given: forward(**given) * 1.01)


def wrong_table(theirs: Any, _: Any) -> None:
    for table in theirs.buffers():
        table.copy_(table.roll(1, dims=0))


FAULTS: dict[str, tuple[tuple[str, ...], Fault, str]] = {
    "a wrong embedding scale": (NAMES, wrong_embedding_scale, "model.hook_in"),
    "a wrong embedding": (NAMES, wrong_embedding, "embedder"),
    "a wrong weight of a norm": (
        NAMES,
        wrong_weight(f"{HERE}.input_layernorm"),
        f"{HERE}.input_layernorm",
    ),
    "a wrong epsilon": (
        NAMES,
        attribute(f"{HERE}.post_attention_layernorm", "eps", 1.0),
        f"{HERE}.post_attention_layernorm",
    ),
    "a norm without its 1": (
        NAMES,
        attribute(f"{HERE}.input_layernorm", "add_unit_offset", False),
        f"{HERE}.input_layernorm",
    ),
    "a wrong projection": (
        NAMES,
        wrong_weight(f"{HERE}.self_attn.qkv_proj"),
        f"{HERE}.self_attn.qkv_proj",
    ),
    "a swapped half of the rotation": (
        NAMES,
        swapped_rotary_halves,
        "model.layers.0.self_attn.hook_rot_q",
    ),
    "a wrong scale of scores": (
        NAMES,
        attribute(f"{HERE}.self_attn", "scaling", 0.3),
        f"{HERE}.self_attn.hook_z",
    ),
    "a wrong soft cap of scores": (
        ("gemma2",),
        attribute(f"{HERE}.self_attn", "attn_logit_softcapping", 1.0),
        f"{HERE}.self_attn.hook_z",
    ),
    "a window that is not seen": (
        ("gemma3",),
        attribute(f"{HERE}.self_attn", "sliding_window_size", None),
        f"{HERE}.self_attn.hook_z",
    ),
    "permuted heads": (NAMES, permuted_heads, f"{HERE}.self_attn.o_proj"),
    "a wrong norm of keys": (
        ("gemma3",),
        attribute(f"{HERE}.self_attn.key_norm", "eps", 1.0),
        f"{HERE}.self_attn.key_norm",
    ),
    "a missing norm": (
        ("gemma2", "gemma3"),
        attribute(HERE, "post_feedforward_layernorm", None),
        f"{HERE}.post_feedforward_layernorm",
    ),
    "a missing norm before the MLP": (
        ("gemma2", "gemma3"),
        attribute(HERE, "pre_feedforward_layernorm", None),
        f"{HERE}.pre_feedforward_layernorm",
    ),
    "a norm that does nothing": (
        ("gemma2", "gemma3"),
        attribute(HERE, "post_feedforward_layernorm", torch.nn.Identity()),
        f"{HERE}.post_feedforward_layernorm",
    ),
    "a wrong activation": (NAMES, wrong_activation, f"{HERE}.mlp.down_proj.hook_in"),
    "a wrong matrix of an MLP": (
        NAMES,
        wrong_weight(f"{HERE}.mlp.gate_proj"),
        f"{HERE}.mlp.gate_proj",
    ),
    "a wrong residual": (NAMES, wrong_residual, HERE),
    "a wrong final norm": (NAMES, attribute("model.norm", "eps", 0.1), "model.norm"),
    "a wrong soft cap of logits": (
        ("gemma1_mqa", "gemma3"),
        lambda theirs, _: setattr(theirs.sampler.config, "final_logit_softcapping", 1.0),
        "sampler",
    ),
}


@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for fault in FAULTS for name in FAULTS[fault][0]]
)
def test_a_planted_fault_is_found_and_named(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plant, where = FAULTS[fault]
    ours, theirs = pair_of(name)
    plant(theirs, monkeypatch)
    report = compare(ours, theirs, ids_of())
    first, whole = report.first("fed"), report.first("end_to_end")
    assert first and first.name == where
    assert whole and whole.name == where
    assert report.status == 1
    assert where in report.verdict
    assert report.rows[-1].differs("end_to_end")
    if where.startswith(HERE):
        assert all(row.name.startswith(HERE) for row in report.rows if row.differs("fed"))


def test_a_wrong_table_of_rotation_is_named_before_the_layers() -> None:
    ours, theirs = pair_of("gemma3")
    wrong_table(theirs, None)
    first = compare(ours, theirs, ids_of()).first("fed")
    assert first and first.name == "local_freqs_cis"


def test_a_table_that_the_reference_has_not_is_said() -> None:
    ours, theirs = pair_of("gemma1_mqa")
    table = theirs.freqs_cis
    del theirs.freqs_cis
    theirs.forward = lambda **given: theirs.model(
        theirs.embedder(given["input_token_ids"]) * torch.tensor(60**0.5),
        dict.fromkeys(gemma_pytorch.config.AttentionType, table[: ids_of().size(1)]),
        given["input_positions"],
        given["kv_caches"],
        given["mask"],
        given["local_mask"],
    )
    report = compare(ours, theirs, ids_of())
    notes = {row.name: row.note for row in report.rows if row.note}
    assert dict.fromkeys(notes) == dict.fromkeys(("freqs_cis", "sampler"))
    assert report.status == 0


def test_a_module_that_the_reference_has_alone_is_listed() -> None:
    ours, theirs = pair_of("gemma3")
    theirs.model.norm.extra = torch.nn.Linear(60, 60)
    forward = theirs.model.norm.forward
    theirs.model.norm.forward = lambda x: forward(theirs.model.norm.extra(x))
    report = compare(ours, theirs, ids_of())
    assert report.theirs_only == ["model.norm.extra"]
    first = report.first("fed")
    assert first and first.name == "model.norm"
    assert "in gemma_pytorch only: model.norm.extra" in report.as_text()


def test_the_function_that_rotates_is_put_back() -> None:
    before = gemma_pytorch.model.apply_rotary_emb
    ours, theirs = pair_of("gemma3")
    compare(ours, theirs, ids_of())
    assert gemma_pytorch.model.apply_rotary_emb is before
    assert not any(module._forward_hooks for module in theirs.modules())


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_equal(
    name: str, dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny.make_model(gemma_libtorch, tiny.CONFIGS[name], dtype)
    path = tiny.save_checkpoint(model, tmp_path)
    status = main(["--reference", str(reference.checkout()), "--ckpt", str(path)])
    out = capsys.readouterr().out
    assert status == 0, out
    assert out.splitlines()[-1].endswith("values are equal to the last bit")
    assert "weights by its own load_weights" in out


def test_a_file_that_the_reference_does_not_read_goes_through_our_loader(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    import test_transformers

    ours = tiny.make_model(gemma_libtorch, tiny.CONFIGS["gemma3"], "float32")
    test_transformers.hf_model(ours, tiny.CONFIGS["gemma3"]).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(tiny.TOKENIZER.read_bytes())
    status = main(["--reference", str(reference.checkout()), "--ckpt", str(tmp_path)])
    out = capsys.readouterr().out
    assert status == 0, out
    assert "weights by the loader of gemma_libtorch" in out
