"""generate() gives the reference's text, from prompts to the random numbers used up."""

from __future__ import annotations

from typing import Any

import gemma_libtorch
import pytest
import reference
import tiny
import torch

gemma_pytorch = reference.required()

WEIGHTS = pytest.mark.parametrize("quant", [False, True], ids=["plain", "quant"])
DTYPES = pytest.mark.parametrize("dtype", tiny.DTYPES)
CONFIGS = pytest.mark.parametrize("name", tiny.CONFIGS)

SHORT = "The ferry"
LONG = "If the wind is from the north, bring the nets in; if it is from the south, leave them out."
OTHER = "Küste 😀\n\n  12 <start_of_turn>"

GREEDY = {"temperature": None}
SEEDED = {"temperature": 1.2, "top_p": 0.97, "top_k": 200}


def both(name: str, dtype: str = "float32", quant: bool = False, **changes: Any) -> tuple[Any, Any]:
    fields = {**tiny.CONFIGS[name], **changes}
    return tuple(
        tiny.make_model(package, fields, dtype, quant)
        for package in (gemma_pytorch, gemma_libtorch)
    )


def assert_same_text(models: tuple[Any, Any], prompts: str | list[str], **kwargs: Any) -> Any:
    results = []
    for model in models:
        torch.manual_seed(11)
        text = model.generate(prompts, "cpu", **{"output_len": 9, **kwargs})
        results.append((text, torch.get_rng_state()))
    (want, want_rng), (got, got_rng) = results
    assert got == want
    assert type(got) is type(want)
    tiny.assert_same(got_rng, want_rng)
    return got


@DTYPES
@WEIGHTS
@CONFIGS
def test_a_batch_of_unequal_prompts_is_continued_alike(dtype: str, quant: bool, name: str) -> None:
    models = both(name, dtype, quant)
    for choice in (GREEDY, SEEDED):
        assert_same_text(models, [LONG, SHORT, OTHER], **choice)


@CONFIGS
def test_a_single_prompt_is_continued_alike(name: str) -> None:
    models = both(name)
    for choice in (GREEDY, SEEDED, {}):
        assert isinstance(assert_same_text(models, LONG, **choice), str)


@pytest.mark.parametrize(
    "prompts", [[SHORT], (SHORT, LONG), [SHORT, SHORT], ["", LONG], ""], ids=str
)
def test_any_sequence_of_prompts_is_continued_alike(prompts: Any) -> None:
    models = both("gemma3")
    for choice in (GREEDY, SEEDED):
        assert_same_text(models, prompts, **choice)


@pytest.mark.parametrize("prompts", [SHORT, [SHORT, LONG], [SHORT, ""]], ids=str)
def test_no_output_at_all_is_alike(prompts: Any) -> None:
    for choice in (GREEDY, SEEDED):
        assert_same_text(both("gemma2"), prompts, output_len=0, **choice)


def test_a_temperature_of_zero_is_greedy() -> None:
    models = both("gemma1_mqa")
    greedy = assert_same_text(models, [SHORT, LONG], temperature=None)
    assert assert_same_text(models, [SHORT, LONG], temperature=0.0) == greedy


@pytest.mark.parametrize(
    "choice",
    [
        {"top_k": 1},
        {"top_p": 0.0},
        {"top_p": 1.0, "top_k": 100_000},
        {"temperature": 0.05},
        {"temperature": 50.0},
        {"temperature": 2, "top_p": 1},
    ],
    ids=str,
)
def test_sampling_is_alike_at_the_ends_of_its_ranges(choice: dict[str, Any]) -> None:
    assert_same_text(both("gemma3", "bfloat16"), [SHORT, LONG], **choice)


@WEIGHTS
def test_text_is_alike_while_bfloat16_is_the_default_dtype(quant: bool) -> None:
    models = both("gemma3", "bfloat16", quant)
    with tiny.default_dtype(torch.bfloat16):
        for choice in (GREEDY, SEEDED):
            assert_same_text(models, [LONG, SHORT], **choice)


def test_float16_left_as_the_default_dtype_breaks_generation_in_the_reference_only() -> None:
    models = both("gemma3", "float16")
    text = assert_same_text(models, [LONG, SHORT], **GREEDY)
    with tiny.default_dtype(torch.float16):
        with pytest.raises(RuntimeError, match="overflow"):
            models[0].generate([LONG, SHORT], "cpu", output_len=9, **GREEDY)
        assert models[1].generate([LONG, SHORT], "cpu", output_len=9, **GREEDY) == text


def test_text_is_alike_up_to_the_last_position() -> None:
    models = both("gemma2")
    prompt_len = len(models[1].tokenizer.encode(LONG))
    assert_same_text(models, LONG, output_len=128 - prompt_len, temperature=None)


def test_text_ends_before_eos() -> None:
    models = both("gemma3")
    for model in models:
        model.embedder.weight[model.tokenizer.eos_id].mul_(4)  # Likely, whenever its sign is right.
    for choice in (GREEDY, SEEDED):
        texts = [
            assert_same_text(models, [LONG, SHORT, OTHER], output_len=n, **choice) for n in (40, 60)
        ]
        assert any(a == b for a, b in zip(*texts, strict=True))


def test_a_tokenizer_without_pad_is_alike(tmp_path: Any) -> None:
    model = tiny.TOKENIZER.read_bytes().replace(b"<pad>", b"<not>", 1)
    path = tmp_path / "nopad.model"
    path.write_bytes(model)
    models = both("gemma3", tokenizer=str(path))
    assert models[1].tokenizer.pad_id == models[0].tokenizer.pad_id == -1
    for choice in (GREEDY, SEEDED):
        assert_same_text(models, [LONG, SHORT], **choice)


def test_a_prompt_too_long_is_refused_by_both() -> None:
    want, got = both("gemma3", max_position_embeddings=20)
    with pytest.raises(AssertionError):
        want.generate(LONG, "cpu", output_len=10)
    with pytest.raises(ValueError, match="exceed max_position_embeddings, 20"):
        got.generate(LONG, "cpu", output_len=10)
