"""gemma_libtorch.diff beside models of this package: what differs is found where it is."""

from __future__ import annotations

from typing import Any

import gemma_libtorch
import pytest
import tiny
import torch
from gemma_libtorch.diff import Report, Row, compare, measure

LAYER = 1
HERE = f"model.layers.{LAYER}"
NAMES = ("gemma1_mqa", "gemma2", "gemma3")


def ids_of(length: int = 9) -> torch.Tensor:
    return tiny.random_ids((2, length), tiny.VOCAB_SIZE)


def make(name: str, dtype: str = "float32", quant: bool = False) -> Any:
    return tiny.make_model(gemma_libtorch, tiny.CONFIGS[name], dtype, quant)


def changed_rows(report: Report, of: str = "fed") -> list[str]:
    return [row.name for row in report.rows if row.differs(of, report.tolerance)]


# --- a model of this package ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", tiny.DTYPES)
@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_a_model_is_equal_to_itself(name: str, dtype: str) -> None:
    model = make(name, dtype)
    report = compare(model, make(name, dtype), tiny.random_ids((2, 9), model.config.vocab_size))
    assert report.status == 0
    assert report.first("fed") is report.first("end_to_end") is None
    assert all(row.fed and row.fed.is_equal for row in report.rows)
    assert report.verdict == f"all {len(report.rows)} values are equal to the last bit"


def test_a_quantised_and_a_multimodal_model_are_equal_to_themselves() -> None:
    assert compare(make("gemma3", quant=True), make("gemma3", quant=True), ids_of()).status == 0
    model = tiny.make_multimodal(gemma_libtorch)
    assert compare(model, model, ids_of()).status == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_module_of_ours_has_a_row(name: str) -> None:
    model = make(name)
    rows = {row.name for row in compare(model, model, ids_of()).rows}
    lists = {"", "model", "model.layers"}  # Whose values are those of others.
    assert {path for path, _ in model.named_modules()} - lists - rows == set()


def plant(model: Any, name: str) -> Any:
    """Changes one number of a weight."""
    weight = model.get_parameter(f"{name}.weight")
    weight.view(-1)[weight.numel() // 2] += 0.1
    return model


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_weight_is_found_wherever_it_is(name: str) -> None:
    names = [path.removesuffix(".weight") for path, _ in make(name).named_parameters()]
    for module in names:
        report = compare(make(name), plant(make(name), module), torch.arange(451)[None, :120])
        first = report.first("fed")
        if module == "embedder":  # Of a token that is not in the text: the logits alone differ.
            assert first and first.name == "sampler"
            continue
        assert first and first.name == module
        assert changed_rows(report) == [module]
        assert report.status == 1


def test_a_difference_grows_end_to_end_and_stands_alone_when_modules_are_fed() -> None:
    report = compare(make("gemma3"), plant(make("gemma3"), "model.layers.2.mlp.up_proj"), ids_of())
    assert changed_rows(report) == ["model.layers.2.mlp.up_proj"]
    whole = {row.name: row.differs("end_to_end") for row in report.rows}
    outputs = [whole[f"model.layers.{i}"] for i in range(7)]
    assert outputs == [False, False, True, True, True, True, True]
    assert whole["sampler"]
    assert report.verdict == "the first that differs: model.layers.2.mlp.up_proj"


def test_a_token_that_differs_is_found_at_its_position_and_after_it() -> None:
    ours, theirs = make("gemma3"), make("gemma3")
    ids = torch.tensor([[2, 7, 11, 5]])
    theirs.embedder.weight[11] += 0.5
    report = compare(ours, theirs, ids)
    (embedder,) = [row for row in report.rows if row.name == "embedder"]
    assert embedder.fed is not None
    assert [value > 0 for value in embedder.fed.by_position] == [False, False, True, False]
    (layer,) = [row for row in report.rows if row.name == "model.layers.0"]
    assert layer.end_to_end is not None
    assert [value > 0 for value in layer.end_to_end.by_position] == [False, False, True, True]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_fast_numerics_pass_under_a_tolerance(name: str, dtype: str) -> None:
    fast, exact = make(name, dtype), make(name, dtype)
    fast.set_numerics("fast")
    tolerance = {"float32": 1e-5, "bfloat16": 0.05}[dtype]
    report = compare(fast, exact, ids_of(), tolerance=tolerance)
    assert report.status == 0, report.as_text()
    assert report.verdict.endswith(f"values are within {tolerance:g}")
    assert compare(fast, exact, ids_of()).status == 1
    notes = {row.name: row.note for row in report.rows}
    assert notes[f"{HERE}.mlp.gate_proj"] == "fused in fast numerics"
    assert notes[f"{HERE}.mlp"] == ""
    wrong = make(name, dtype)
    wrong.get_parameter(f"{HERE}.self_attn.o_proj.weight").neg_()
    found = compare(fast, wrong, ids_of(), tolerance=tolerance).first("fed")
    assert found and found.name == f"{HERE}.self_attn.o_proj"


def test_a_difference_in_either_pass_counts() -> None:
    same, other = (measure(torch.ones(2), torch.tensor([1.0, x])) for x in (1.0, 2.0))
    for fed, whole, verdict in (
        (same, same, "all 1 values are equal to the last bit"),
        (other, same, "the first that differs: a"),
        (same, other, "no module differs by itself; end to end the first is a"),
    ):
        report = Report([Row("a", "a", 0, fed, whole)], "gemma_pytorch", ["b"])
        assert report.status == int(other in (fed, whole))
        assert report.verdict.startswith(verdict)


def test_comparing_leaves_no_hooks() -> None:
    ours, theirs = make("gemma3"), make("gemma3")
    before = ours.logits(ids_of())
    compare(ours, plant(theirs, f"{HERE}.mlp.down_proj"), ids_of())
    tiny.assert_same(ours.logits(ids_of()), before)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (torch.tensor([1, 2]), r"inputs are \[2\], but must be token ids \[B, L\]"),
        (torch.zeros(1, 0, dtype=torch.long), r"inputs are \[1, 0\]"),
        (torch.zeros(1, 129, dtype=torch.long), "129 tokens, but must be 1 to .* 128"),
    ],
)
def test_other_inputs_are_refused(inputs: torch.Tensor, words: str) -> None:
    model = make("gemma3")
    with pytest.raises(ValueError, match=words):
        compare(model, model, inputs)


def test_a_reference_of_another_package_is_refused() -> None:
    with pytest.raises(ValueError, match="reference is a Linear, but must be a model of gemma_pyt"):
        compare(make("gemma3"), torch.nn.Linear(2, 2), ids_of())
