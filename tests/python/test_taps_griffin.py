"""Taps in RecurrentGemma see and do what hooks on the modules of Google's recurrentgemma do, to the
last bit.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import recurrentgemma_reference
import sentencepiece
import tiny
import tiny_griffin
import torch
from gemma_libtorch import recurrentgemma as ours
from gemma_libtorch.tokenizer import Tokenizer
from module_hooks import Edit, Seen, at_ours, at_theirs, ends_of_modules, scaled

google = recurrentgemma_reference.required()

DTYPES = pytest.mark.parametrize("dtype", tiny.DTYPES)
CONFIGS = pytest.mark.parametrize("name", tiny_griffin.CONFIGS)
LENGTH = 12


class Pair:
    """The reference's model and ours, with the same weights, ids and positions; a row is padded."""

    def __init__(self, name: str, dtype: str) -> None:
        fields = tiny_griffin.CONFIGS[name]
        self.theirs = tiny_griffin.make(google, fields, dtype).requires_grad_(False)
        self.ours = tiny_griffin.make(ours, fields, dtype)
        self.ids = tiny.random_ids((2, LENGTH), fields["vocab_size"])
        self.positions = tiny_griffin.positions(2, LENGTH, [3, 0])

    def their_logits(self) -> torch.Tensor:
        return self.theirs(self.ids, self.positions)[0]

    def our_logits(self) -> torch.Tensor:
        return self.ours(self.ids, self.positions)[0]

    def at_ours(self, point: str, edit: Edit | None = None) -> Seen:
        return at_ours(self.ours, self.our_logits, point, edit)

    def at_theirs(self, module: str, end: str, edit: Edit | None = None) -> Seen:
        return at_theirs(self.theirs, self.their_logits, module, end, edit)

    def places(self) -> list[tuple[str, str]]:
        """All but the embedding, which is no module that the reference calls."""
        return [(m, end) for m, end in ends_of_modules(self.ours) if m != "embedder"]


@DTYPES
@CONFIGS
def test_values_are_those_of_the_references_hooks(name: str, dtype: str) -> None:
    pair = Pair(name, dtype)
    places = pair.places()
    assert len(places) > 20 * len(tiny_griffin.CONFIGS[name]["block_types"])
    for module, end in places:
        got, _ = pair.at_ours(f"{module}.hook_{end}")
        want, _ = pair.at_theirs(module, end)
        assert torch.equal(got, want), (module, end)


@DTYPES
@CONFIGS
def test_edits_do_what_they_do_in_the_reference(name: str, dtype: str) -> None:
    pair = Pair(name, dtype)
    plain = pair.our_logits()
    for module, end in pair.places():
        _, got = pair.at_ours(f"{module}.hook_{end}", scaled)
        _, want = pair.at_theirs(module, end, scaled)
        assert torch.equal(got, want), (module, end)
        assert not torch.equal(got, plain), (module, end)


@contextlib.contextmanager
def replaced(owner: Any, name: str, function: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, before)


@pytest.fixture(params=[None, scaled], ids=["seen", "edited"])
def edit(request: pytest.FixtureRequest) -> Edit | None:
    return request.param


def check(
    pair: Pair,
    points: list[str],
    owner: Any,
    name: str,
    wrap: Callable[[Any, Callable[[torch.Tensor], torch.Tensor]], Any],
    edit: Edit | None,
) -> None:
    """Beside a function of the reference of which `wrap` makes one that hands over a value: what
    comes at its calls, in order, is at these points.
    """
    for number, point in enumerate(points):
        seen: list[torch.Tensor] = []

        def hand_over(value: torch.Tensor, number: int = number, seen: Any = seen) -> torch.Tensor:
            seen.append(value.clone())
            return edit(value) if edit is not None and len(seen) == number + 1 else value

        with replaced(owner, name, wrap(getattr(owner, name), hand_over)):
            want = pair.their_logits()
        value, got = pair.at_ours(point, edit)
        assert len(seen) == len(points)
        assert torch.equal(value, seen[number]), point
        assert torch.equal(got, want), point


def modules_named(pair: Pair, name: str) -> list[str]:
    return [path for path, _ in pair.ours.named_modules() if path.endswith(f".{name}")]


@DTYPES
@CONFIGS
def test_the_recurrence_is_that_of_the_reference(name: str, dtype: str, edit: Edit | None) -> None:
    pair = Pair(name, dtype)
    units = modules_named(pair, "rg_lru")
    layers = importlib.import_module("recurrentgemma.torch.layers")
    gates = [f"{unit}.hook_gate_{letter}" for unit in units for letter in "xa"]
    check(
        pair,
        gates,
        layers.torch,
        "sigmoid",
        lambda theirs, hand_over: lambda x: hand_over(theirs(x)),
        edit,
    )
    for key, point in (("x", "hook_normalized_x"), ("a", "hook_a")):
        check(
            pair,
            [f"{unit}.{point}" for unit in units],
            layers,
            "rnn_scan",
            lambda theirs, hand_over, key=key: (
                lambda **kwargs: theirs(**kwargs | {key: hand_over(kwargs[key])})
            ),
            edit,
        )


@DTYPES
@pytest.mark.parametrize("name", ["griffin", "griffin_wide"])
def test_the_attention_is_that_of_the_reference(name: str, dtype: str, edit: Edit | None) -> None:
    pair = Pair(name, dtype)
    blocks = modules_named(pair, "attention_block")
    modules = importlib.import_module("recurrentgemma.torch.modules")
    check(
        pair,
        [f"{block}.hook_rot_{letter}" for block in blocks for letter in "qk"],
        modules,
        "_apply_rope",
        lambda theirs, hand_over: lambda x, positions: hand_over(theirs(x, positions)),
        edit,
    )
    check(
        pair,
        [f"{block}.hook_attn_scores" for block in blocks],
        modules.nn.functional,
        "softmax",
        lambda theirs, hand_over: lambda x, dim: theirs(hand_over(x), dim=dim),
        edit,
    )
    for letter in "qkv":  # Heads of what the projections give.
        for block in blocks:
            value, _ = pair.at_ours(f"{block}.hook_{letter}")
            want, _ = pair.at_theirs(f"{block}.proj_{letter}", "out")
            assert torch.equal(value.flatten(2), want)
    for block in blocks:
        scores, _ = pair.at_ours(f"{block}.hook_attn_scores")
        pattern, _ = pair.at_ours(f"{block}.hook_pattern")
        assert torch.equal(pattern, scores.softmax(-1).to(pattern.dtype))


@CONFIGS
def test_a_sampler_hooks_each_token(name: str) -> None:
    """The reference's sampler and ours on the same prompts, with the same edit."""
    fields = tiny_griffin.CONFIGS[name]
    if fields["vocab_size"] != tiny.VOCAB_SIZE:
        pytest.skip("the tokenizer has more tokens than this config")
    pair = Pair(name, "float32")
    steer = torch.linspace(-2, 2, fields["width"])
    prompts = ["the cat", "a"]
    vocab = sentencepiece.SentencePieceProcessor(model_file=str(tiny.TOKENIZER))
    theirs = google.Sampler(model=pair.theirs, vocab=vocab)
    block = pair.theirs.get_submodule("blocks.1")
    with block.register_forward_hook(lambda _m, _a, output: (output[0] + steer, *output[1:])):
        want = theirs(prompts, total_generation_steps=6).text
    sampler = ours.Sampler(model=pair.ours, vocab=Tokenizer(str(tiny.TOKENIZER)))
    with pair.ours.add_taps([("blocks.1.hook_out", lambda value, _site: value + steer)]):
        got = sampler(prompts, total_generation_steps=6).text
    assert got == want
    assert got != sampler(prompts, total_generation_steps=6).text
