"""Hooks while texts are generated together: what they see and do is what they see and do when each
text is generated alone, to the last bit.
"""

from __future__ import annotations

from typing import Any

import gemma_libtorch
import pytest
import tiny
import tiny_griffin
import torch
from gemma_libtorch.engine import Engine, Request
from gemma_libtorch.lens import LensModel

NAMES = ("gemma1_mqa", "gemma2", "gemma3")
POINTS = ("blocks.1.hook_resid_post", "blocks.1.attn.hook_z", "blocks.0.mlp.hook_out")
PROMPTS = [
    "the name of the",
    "a",
    "when does the ferry leave and when does it arrive",
    "no",
    "the day",
]
TOKENS = 9

Place = tuple[str, int, int]
"""A point, the number of a text and a position in it."""


class Watch:
    """Hooks that keep every value and add one that depends on the text and the position. The text
    with the model's number i is number texts[i].
    """

    def __init__(self, width: int, texts: list[int]) -> None:
        self.texts = texts
        self.steer = torch.linspace(-1, 1, width)
        self.seen: dict[Place, torch.Tensor] = {}

    def keep(self, value: torch.Tensor, site: Any) -> None:
        """value [texts, tokens, ...]"""
        for row, (text, first) in enumerate(zip(site.texts, site.positions, strict=True)):
            for i in range(value.size(1)):
                place = (site.name, self.texts[text], first + i)
                assert place not in self.seen
                self.seen[place] = value[row, i].clone()

    def edit(self, value: torch.Tensor, site: Any) -> torch.Tensor:
        tokens = torch.arange(value.size(1))
        at = torch.tensor(site.positions)[:, None] + tokens  # [texts, tokens]
        numbers = torch.tensor([self.texts[text] for text in site.texts])[:, None]
        return value + self.steer * ((1 + numbers) * (1 + at % 3))[..., None]

    def taps(self, points: tuple[str, ...], edited: str) -> list[Any]:
        return [(edited, self.edit), *((point, self.keep) for point in points)]


def assert_same(together: dict[Place, torch.Tensor], alone: dict[Place, torch.Tensor]) -> None:
    assert together.keys() == alone.keys()
    for place, value in alone.items():
        assert torch.equal(together[place], value), place


def prompts_of(vocab_size: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    sizes = (5, 1, 17, 2, 30, 9)
    return [torch.randint(4, vocab_size, (n,), generator=generator).tolist() for n in sizes]


@pytest.mark.parametrize("name", NAMES)
def test_hooks_of_a_batch_are_those_of_each_text(name: str) -> None:
    fields = tiny.CONFIGS[name]
    model = tiny.make_model(gemma_libtorch, fields, "float32")
    model.set_numerics("fast")
    prompts = prompts_of(fields["vocab_size"])

    def generated(texts: list[int], **kwargs: Any) -> Any:
        watch = Watch(fields["hidden_size"], texts)
        with model.add_taps(watch.taps(POINTS, "blocks.0.hook_resid_post")):
            rows = model.generate_ids(
                [prompts[i] for i in texts], "cpu", TOKENS, temperature=None, **kwargs
            )
        return rows, watch.seen

    numbers = list(range(len(prompts)))
    rows, together = generated(numbers)
    alone: dict[Place, torch.Tensor] = {}
    for number in numbers:
        own, seen = generated([number])
        assert own == [rows[number]]
        alone |= seen
    assert_same(together, alone)
    assert len(together) >= len(POINTS) * sum(map(len, prompts))
    plain = model.generate_ids(prompts, "cpu", TOKENS, temperature=None)
    assert plain != rows


def test_hooks_of_an_engine_are_those_of_each_text() -> None:
    """RecurrentGemma's, more texts than the engine takes at a time."""
    fields = tiny_griffin.CONFIGS["griffin"]
    model = tiny_griffin.make(gemma_libtorch.recurrentgemma, fields, "float32")
    model.set_tokenizer(str(tiny.TOKENIZER))
    model.set_numerics("fast")
    prompts = prompts_of(fields["vocab_size"])
    points = ("blocks.1.hook_resid_mid", "blocks.1.mlp_block.hook_out", "blocks.1.hook_out")

    def generated(texts: list[int]) -> Any:
        watch = Watch(fields["width"], texts)
        with model.add_taps(watch.taps(points, "blocks.0.hook_out")):
            engine = Engine(model, max_batch=3, prefix_cache=False)
            answers = engine.generate(
                [Request(prompts[i], max_tokens=TOKENS, temperature=0.0) for i in texts]
            )
            del engine
        return [[token.id for token in answer.tokens] for answer in answers], watch.seen

    numbers = list(range(len(prompts)))
    rows, together = generated(numbers)
    alone: dict[Place, torch.Tensor] = {}
    for number in numbers:
        own, seen = generated([number])
        assert own == [rows[number]]
        alone |= seen
    assert_same(together, alone)


@pytest.mark.parametrize("name", NAMES)
def test_a_lens_generates_a_batch_as_each_text(name: str) -> None:
    lens = LensModel(tiny.make_model(gemma_libtorch, tiny.CONFIGS[name], "float32"))
    lens.model.set_numerics("fast")
    ids = tiny.random_ids((4, 7), lens.cfg.d_vocab)
    places: list[tuple[int, int, int]] = []

    def steer(value: torch.Tensor, hook: Any) -> torch.Tensor:
        for text, first in zip(hook.texts, hook.positions, strict=True):
            places.append((text, first, value.size(1)))
        at = torch.tensor(hook.positions)[:, None] + torch.arange(value.size(1))
        return value * (1 + (at % 2)[..., None])

    with lens.hooks([("blocks.0.hook_resid_post", steer)]):
        together = lens.generate(ids, max_new_tokens=6, do_sample=False)
        assert min(places) == (0, 0, 7)
        alone = [
            lens.generate(row[None], max_new_tokens=6, do_sample=False)[0].tolist() for row in ids
        ]
    eos = lens.tokenizer.eos_id
    for row, own in zip(together.tolist(), alone, strict=True):
        assert row[: len(own)] == own
        assert set(row[len(own) :]) <= {eos}
