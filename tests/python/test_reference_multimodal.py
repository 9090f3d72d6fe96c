"""Gemma3ForMultimodalLM gives what the reference's gives, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gemma_libtorch
import numpy
import pytest
import reference
import tiny
import torch
from PIL import Image

gemma_pytorch = reference.required()

PACKAGES = (gemma_pytorch, gemma_libtorch)
WEIGHTS = pytest.mark.parametrize("quant", [False, True], ids=["plain", "quant"])

GREEDY = {"temperature": None}
SEEDED = {"temperature": 1.2, "top_p": 0.97, "top_k": 200}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.large_tokenizer(tmp_path_factory.mktemp("tokenizer") / "large.model"))


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = numpy.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 20, width // 20, 3), dtype=numpy.uint8)
    return Image.fromarray(small).resize((width, height))


# Where no text is made of an image's ends.
SMALL = {"tokenizer": str(tiny.TOKENIZER), "vocab_size": tiny.VOCAB_SIZE}

SQUARE, OTHER = picture(300, 260), picture(200, 200, seed=1)
WIDE = picture(900, 300, seed=2)  # Pan and scan makes crops of it.


def both(tokenizer: str, **changes: Any) -> tuple[Any, Any]:
    return tuple(
        tiny.make_multimodal(package, tokenizer=tokenizer, **changes) for package in PACKAGES
    )


def assert_same_text(models: tuple[Any, Any], prompts: Any, **kwargs: Any) -> list[str]:
    results = []
    for model in models:
        torch.manual_seed(11)
        text = model.generate(prompts, "cpu", **{"output_len": 4, **kwargs})
        results.append((text, torch.get_rng_state()))
    (want, want_rng), (got, got_rng) = results
    assert got == want
    tiny.assert_same(got_rng, want_rng)
    return got


def test_parameters_have_the_references_names() -> None:
    for quant in (False, True):
        want, got = both(**SMALL, quant=quant)
        assert list(got.state_dict()) == list(want.state_dict())


def test_rope_tables_are_equal() -> None:
    want, got = both(**SMALL)
    for name in ("local_freqs_cis", "global_freqs_cis"):
        tiny.assert_same(getattr(got, name), getattr(want, name))


def test_masks_are_equal() -> None:
    want, got = both(**SMALL)
    generator = torch.Generator().manual_seed(3)
    cases = [
        torch.randint(0, 2, (3, 17), generator=generator),
        torch.randint(0, 5, (2, 30), generator=generator).sort(dim=1).values.roll(7, dims=1),
        torch.zeros((1, 9), dtype=torch.long),
        torch.ones((1, 1), dtype=torch.long),
    ]
    for ids in cases:
        tiny.assert_same(
            got.create_attention_mask(ids, ids.shape[1]),
            want.create_attention_mask(ids, ids.shape[1]),
        )


def test_images_are_put_in_their_places_alike() -> None:
    models = both(**SMALL)
    hidden = torch.randn(2, 9, 12)
    images = torch.randn(4, 4, 12)
    ids = torch.tensor([[2, 0, 0, 0, 0, 7, 8, 9, 9], [0, 0, 0, 0, 5, 0, 0, 0, 0]])
    presence = torch.tensor([[True, False], [True, True]])
    want, got = (
        model.populate_image_embeddings(hidden.clone(), images, ids, presence) for model in models
    )
    tiny.assert_same(got, want)
    with pytest.raises(ValueError, match="2 images are 8 tokens, but the prompts have 12 places?"):
        models[1].populate_image_embeddings(
            hidden, images, ids, torch.tensor([[True, False], [True, False]])
        )


@WEIGHTS
@pytest.mark.parametrize("dtype", tiny.DTYPES)
def test_forward_is_equal(dtype: str, quant: bool) -> None:
    models = both(**SMALL, dtype=dtype, quant=quant)
    image = [0, 0, 0, 0]
    ids = torch.tensor([[2, 5, *image, 6, 9, 9, 9, 9], [2, *image, 7, *image, 8]])
    patches = torch.randn(2, 2, 3, 896, 896).clamp(-1, 1).to(tiny.DTYPES[dtype])
    presence = torch.tensor([[True, False], [True, True]])
    for choice in (tiny.greedy(2), tiny.sampling(2)):
        results = []
        for model in models:
            torch.manual_seed(4)
            images = {"image_patches": patches, "image_presence_mask": presence}
            results.append(tiny.decode_images(model, ids, 3, choice, **images))
        tiny.assert_same(results[1], results[0])


def test_images_are_encoded_alike() -> None:
    want, got = both(**SMALL)
    images = torch.randn(3, 3, 896, 896)
    embedded = want.mm_soft_embedding_norm(want.siglip_vision_model(images).clone())
    tiny.assert_same(got.encode_images(images), want.mm_input_projection(embedded))


@pytest.mark.parametrize(
    "prompts, quant",
    [
        ([["The ferry leaves", " the harbour"], ["A lantern"]], False),
        ([["What is in ", SQUARE]], False),
        ([[SQUARE, "and", OTHER, "are the same?"]], True),
        ([["Look: ", WIDE, " there"]], False),
        ([[SQUARE, "What is this?"], [OTHER, "If the wind is from the north"]], False),
        ([[SQUARE, "What is this?"], [OTHER, "If the wind is from the north"]], True),
    ],
    ids=["texts", "image", "images_quant", "crops", "batch", "batch_quant"],
)
def test_prompts_are_continued_alike(tokenizer: str, prompts: Any, quant: bool) -> None:
    models = both(tokenizer, quant=quant)
    for choice in (GREEDY, SEEDED):
        assert_same_text(models, prompts, **choice)


def test_no_output_at_all_is_alike(tokenizer: str) -> None:
    assert_same_text(both(tokenizer), [["A", SQUARE], ["A", OTHER]], output_len=0)


def test_text_ends_before_eos(tokenizer: str) -> None:
    models = both(tokenizer)
    for model in models:
        model.text_token_embedder.weight[model.tokenizer.eos_id].mul_(6)
    texts = [
        assert_same_text(models, [["A", SQUARE], ["A", OTHER]], output_len=n, **GREEDY)
        for n in (8, 10)
    ]
    assert any(a == b for a, b in zip(*texts, strict=True))


UNEQUAL = [["A"], ["If the wind is from the north", SQUARE, "bring the nets in"], [OTHER]]


def test_images_past_the_shortest_prompt_work_here_only(tokenizer: str) -> None:
    want, got = both(tokenizer)
    with pytest.raises(RuntimeError):
        want.generate(UNEQUAL, "cpu", output_len=5, **GREEDY)
    alone = [want.generate([prompt], "cpu", output_len=5, **GREEDY)[0] for prompt in UNEQUAL]
    told: set[int] = set()
    texts = got.generate(
        UNEQUAL, "cpu", output_len=5, on_token=lambda row, _: told.add(row), **GREEDY
    )
    assert texts == alone
    assert told == {0, 1, 2}


def test_with_the_corrected_mask_a_text_does_not_depend_on_how_long_it_may_get(
    tokenizer: str,
) -> None:
    _, model = both(tokenizer)
    texts = []
    for output_len in (4, 12):
        torch.manual_seed(3)
        texts += model.generate(
            [["What is in", SQUARE, "?"]],
            "cpu",
            output_len=output_len,
            reference_tail_mask=False,
            **SEEDED,
        )
    assert texts[1].startswith(texts[0])


def test_with_the_references_mask_logits_depend_on_how_long_a_text_may_get() -> None:
    model = both(**SMALL)[1]
    ids = torch.tensor([[2, 5, 0, 0, 0, 0, 6, 7]])
    feed = torch.full((1, 12), 9)
    images = {
        "image_patches": torch.randn(1, 1, 3, 896, 896),
        "image_presence_mask": torch.tensor([[True]]),
    }

    def logits(steps: int, corrected: bool) -> torch.Tensor:
        is_text = torch.arange(ids.shape[1] + steps)[None] >= ids.shape[1] if corrected else None
        run = tiny.decode_images(model, ids, steps, tiny.greedy(1), feed, is_text, **images)
        return run["logits.2"]

    # Longer rows are summed in another order.
    shorter, longer = logits(3, True), logits(12, True)
    torch.testing.assert_close(shorter, longer, rtol=0, atol=1e-6 * longer.abs().max().item())
    assert (logits(3, False) - logits(12, False)).abs().max() > 1e-3


@WEIGHTS
def test_fast_numerics_say_what_the_corrected_mask_says(tokenizer: str, quant: bool) -> None:
    _, model = both(tokenizer, quant=quant)
    prompts = [["What is in", WIDE, "?"], [SQUARE, "and", OTHER]]

    def alone(**kwargs: Any) -> list[str]:
        texts = []
        for prompt in prompts:
            torch.manual_seed(6)
            texts += model.generate([prompt], "cpu", output_len=6, **SEEDED, **kwargs)
        return texts

    want = alone(reference_tail_mask=False)
    greedy = [
        model.generate([prompt], "cpu", output_len=6, reference_tail_mask=False, **GREEDY)[0]
        for prompt in prompts
    ]
    model.set_numerics("fast")
    assert alone() == want
    together = model.generate(prompts, "cpu", output_len=6, **GREEDY)
    assert all(text.startswith(one) for text, one in zip(together, greedy, strict=True))


def test_pictures_of_any_mode_become_rgb_here_only(tokenizer: str) -> None:
    want, got = both(tokenizer)
    grey = SQUARE.convert("L")
    with pytest.raises(Exception):  # noqa: B017  Whatever the reference stumbles over.
        want.generate([[grey]], "cpu", output_len=2)
    assert got.generate([[grey]], "cpu", output_len=4, **GREEDY) == got.generate(
        [[grey.convert("RGB")]], "cpu", output_len=4, **GREEDY
    )


def test_a_model_that_cannot_be_is_refused(tokenizer: str) -> None:
    fields = {**tiny.MULTIMODAL, "tokenizer": tokenizer}
    for config, message in (
        (tiny.make_config(gemma_libtorch, fields, vision_config=None), "vision_config is none"),
        (tiny.make_config(gemma_libtorch, tiny.CONFIGS["gemma2"]), "architecture is GEMMA_2"),
    ):
        with pytest.raises(ValueError, match=message):
            gemma_libtorch.gemma3_model.Gemma3ForMultimodalLM(config)


def test_a_checkpoint_of_the_reference_loads(tokenizer: str, tmp_path: Path) -> None:
    want, _ = both(tokenizer)
    torch.save({"model_state_dict": want.state_dict()}, tmp_path / "model.ckpt")
    config = tiny.make_config(
        gemma_libtorch,
        tiny.MULTIMODAL,
        dtype="float32",
        tokenizer=tokenizer,
    )
    got = gemma_libtorch.gemma3_model.Gemma3ForMultimodalLM(config)
    report = got.load_weights(tmp_path / "model.ckpt")
    assert report.missing == report.unexpected == []
    tiny.assert_same(dict(got.named_parameters()), dict(want.named_parameters()))
    assert_same_text((want, got), [["A", SQUARE]], **GREEDY)
