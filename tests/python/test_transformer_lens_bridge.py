"""Bridge beside TransformerLens 4's own TransformerBridge on transformers, with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import tiny
import torch
from test_transformers import CONFIGS as ALL
from test_transformers import assert_close, hf_model, transformers

try:
    from gemma_libtorch.transformer_lens import Bridge
except ImportError as missing:
    pytest.skip(str(missing), allow_module_level=True)
import tokenizers
from transformer_lens import ActivationCache
from transformer_lens.model_bridge import TransformerBridge

NAMES = ("gemma1_mqa", "gemma1_mha", "gemma2", "gemma3")
SWITCHES = ("use_attn_result", "use_hook_mlp_in")
BLOCK = "blocks.1"
OF_RESIDUAL = (f"{BLOCK}.hook_resid_mid", f"{BLOCK}.ln2.hook_in")


def their_tokenizer(size: int, folder: Path) -> Any:
    """Any: no text goes through it."""
    words = tokenizers.models.WordLevel({f"<{i}>": i for i in range(size)}, unk_token="<0>")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), bos_token="<2>", eos_token="<1>"
    )
    tokenizer.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


class Pair:
    def __init__(self, name: str, folder: Path) -> None:
        fields = ALL[name]
        model = tiny.make_model(gemma_libtorch, fields, "float32")
        model.requires_grad_()
        self.ours = Bridge(model)
        theirs = hf_model(model, fields)
        theirs.config.name_or_path = theirs.name_or_path = name
        theirs.config.architectures = [type(theirs).__name__]
        tokenizer = their_tokenizer(fields["vocab_size"], folder)
        self.theirs = TransformerBridge.boot_transformers(
            name, hf_model=theirs, tokenizer=tokenizer, device="cpu"
        )
        self.ids = tiny.random_ids((2, 9), fields["vocab_size"])
        for bridge in (self.ours, self.theirs):
            for switch in SWITCHES:
                getattr(bridge, f"set_{switch}")(True)


@pytest.fixture(params=NAMES, scope="module")
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    yield Pair(request.param, tmp_path_factory.mktemp("tokenizer"))


def assert_same(got: torch.Tensor, want: torch.Tensor, name: str) -> None:
    seen = want > -1e30  # Scores where a key is not seen differ.
    assert got.shape == want.shape, name
    assert torch.equal(got > -1e30, seen), name
    try:
        assert_close(got[seen], want[seen])
    except AssertionError as error:
        raise AssertionError(name) from error


def test_all_names_are_theirs_and_mean_the_same(pair: Pair) -> None:
    ours, theirs = pair.ours.hook_dict, pair.theirs.hook_dict
    assert set(ours) <= set(theirs)
    for name, point in ours.items():
        assert point.name == theirs[name].name
    logits, cache = pair.ours.run_with_cache(pair.ids)
    want_logits, want = pair.theirs.run_with_cache(pair.ids)
    assert isinstance(cache, ActivationCache)
    assert set(cache) <= set(want)
    assert len(cache) > 30 * pair.ours.cfg.n_layers
    assert_same(logits, want_logits, "logits")
    for name, value in cache.items():
        assert_same(value, want[name], name)


def test_edits_do_what_they_do_there(pair: Pair) -> None:
    def edit(value: torch.Tensor, hook: Any) -> torch.Tensor:
        return value * torch.linspace(0.25, 1.5, value.size(-1))

    names = [name for name in pair.ours.hook_dict if name.startswith((f"{BLOCK}.", "ln_final."))]
    names = [name for name in names if not name.endswith(("_input", "attn_in"))]
    assert len(names) > 30
    for name in [*names, "hook_embed", "unembed.hook_out"]:
        # There the residual stays.
        our_name = f"{BLOCK}.hook_mlp_in" if name in OF_RESIDUAL else name
        got = pair.ours.run_with_hooks(pair.ids, fwd_hooks=[(our_name, edit)])
        want = pair.theirs.run_with_hooks(pair.ids, fwd_hooks=[(name, edit)])
        assert_same(got, want, name)


def test_gradients_are_theirs(pair: Pair) -> None:
    names = [f"{BLOCK}.hook_resid_pre", f"{BLOCK}.attn.hook_z", f"{BLOCK}.mlp.hook_post"]
    caches = []
    for bridge in (pair.ours, pair.theirs):
        with torch.enable_grad():
            loss, cache = bridge.run_with_cache(
                pair.ids, names_filter=names, incl_bwd=True, return_type="loss"
            )
        assert loss.dim() == 0
        caches.append(cache)
    for name in names:
        assert_same(caches[0][f"{name}_grad"], caches[1][f"{name}_grad"], name)


def test_layers_begin_and_end_as_theirs(pair: Pair) -> None:
    for kwargs in ({"stop_at_layer": 1}, {"stop_at_layer": -1}):
        got, cache = pair.ours.run_with_cache(pair.ids, **kwargs)
        want, their_cache = pair.theirs.run_with_cache(pair.ids, **kwargs)
        assert_same(got, want, str(kwargs))
        assert set(cache) <= set(their_cache)
        assert not [
            name for name in cache if name.startswith(f"blocks.{len(pair.ours.blocks) - 1}")
        ]
    residual = pair.ours(pair.ids, stop_at_layer=1)
    assert_same(
        pair.ours.run_with_hooks(residual, start_at_layer=1),
        pair.theirs(pair.ids),
        "start_at_layer",
    )


def test_hooks_are_added_and_gone(pair: Pair) -> None:
    plain = pair.ours(pair.ids)
    pair.ours.add_hook(f"{BLOCK}.hook_resid_post", lambda value, hook: value * 0.5)
    assert not torch.equal(pair.ours(pair.ids), plain)
    pair.ours.reset_hooks()
    assert torch.equal(pair.ours(pair.ids), plain)
    seen = []
    point = pair.ours.blocks[1].attn.hook_pattern
    point.add_hook(lambda value, hook: seen.append((hook.name, value.shape[-1])))
    pair.ours(pair.ids)
    pair.ours.reset_hooks()
    assert seen == [(f"{BLOCK}.attn.hook_pattern", 9)]
    with pytest.raises(KeyError, match="does not exist"):
        pair.ours.run_with_hooks(pair.ids, fwd_hooks=[("blocks.1.hook_nothing", lambda *_: None)])


def test_texts_are_generated_with_hooks(pair: Pair) -> None:
    bridge, places = pair.ours, []
    with bridge.hooks([(f"{BLOCK}.hook_out", lambda value, hook: places.append(value.shape[1]))]):
        text = bridge.generate("the name of", max_new_tokens=4, do_sample=False)
    assert text == bridge.lens.generate("the name of", max_new_tokens=4, do_sample=False)
    assert sum(places) >= bridge.to_tokens("the name of").size(1)
    logits, cache = bridge.run_with_cache("the name of")
    assert torch.equal(bridge("the name of"), logits)
    assert cache["resid_post", 0].shape == (*logits.shape[:2], bridge.cfg.d_model)
