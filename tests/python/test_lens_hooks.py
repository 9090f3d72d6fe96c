"""What TransformerLens' users do with hooks: their order and life, inputs of heads, positions."""

from __future__ import annotations

from typing import Any

import gemma_libtorch
import pytest
import tiny
import torch
from gemma_libtorch.lens import LensModel

TEXT = "the name of the"
POST = "blocks.0.hook_resid_post"


@pytest.fixture(params=["gemma1_mqa", "gemma2", "gemma3"])
def lens(request: pytest.FixtureRequest) -> LensModel:
    return LensModel(tiny.make_model(gemma_libtorch, tiny.CONFIGS[request.param], "float32"))


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * want.abs().max().item())


def test_hooks_run_in_their_order_by_either_name(lens: LensModel) -> None:
    calls: list[str] = []
    lens.add_hook(POST, lambda value, hook: calls.append("first"))
    lens.add_hook("blocks.0.hook_out", lambda value, hook: calls.append(hook.name))
    lens.add_hook(POST, lambda value, hook: calls.append("before"), prepend=True)
    lens(TEXT)
    assert calls == ["before", "first", "blocks.0.hook_out"]
    assert [len(hooks) for hooks in lens.list_hooks().values()] == [2, 1]
    lens.reset_hooks()
    assert lens.list_hooks() == {} and not lens.hook_dict[POST].has_hooks()


def test_a_context_takes_its_own_hooks_away(lens: LensModel) -> None:
    calls: list[str] = []
    lens.add_perma_hook(POST, lambda value, hook: calls.append("stays"))
    with lens.hooks([(POST, lambda value, hook: calls.append("inner"))]):
        lens(TEXT)
        lens.reset_hooks()
        lens(TEXT)
    assert calls == ["stays", "inner", "stays"]
    lens.remove_all_hook_fns(including_permanent=True)
    assert not lens.hook_dict[POST].fwd_hooks


def test_a_gradient_is_replaced_and_values_are_written_in_place(lens: LensModel) -> None:
    lens.model.requires_grad_()

    def write(value: torch.Tensor, hook: Any) -> None:
        value[:, :, 0] = 0

    hooks = [("blocks.0.attn.hook_v", write)]
    plain = lens.run_with_hooks(TEXT, fwd_hooks=hooks)
    stop = [("hook_embed", lambda gradient, hook: (torch.zeros_like(gradient),))]
    with torch.enable_grad():
        assert torch.equal(lens.run_with_hooks(TEXT, fwd_hooks=hooks), plain)
        assert not torch.equal(lens(TEXT), plain)
        lens.run_with_hooks(TEXT, return_type="loss", bwd_hooks=stop).backward()
    norm = lens.blocks[0].ln1.module.weight
    assert norm.grad.abs().sum() > 0


def test_one_head_reads_another_residual(lens: LensModel) -> None:
    tokens = lens.to_tokens(TEXT)
    plain, kept = lens.run_with_cache(tokens, names_filter="blocks.1.attn.hook_q")

    def change(value: torch.Tensor, hook: Any) -> None:
        value[:, :, 1] *= -3  # The norm takes the factor and keeps the sign.

    seen: dict[str, torch.Tensor] = {}
    hooks = [
        ("blocks.1.hook_q_input", change),
        ("blocks.1.attn.hook_q", lambda value, hook: seen.update(q=value.clone())),
    ]
    changed = lens.run_with_hooks(tokens, fwd_hooks=hooks)
    close(seen["q"][:, :, 1], -kept["blocks.1.attn.hook_q"][:, :, 1])
    close(seen["q"][:, :, 0], kept["blocks.1.attn.hook_q"][:, :, 0])
    assert not torch.allclose(changed, plain)
    idle = lens.run_with_hooks(tokens, fwd_hooks=[("blocks.1.hook_q_input", lambda v, hook: None)])
    assert torch.equal(idle, plain)


def test_keys_and_values_read_another_residual(lens: LensModel) -> None:
    def turn(value: torch.Tensor, hook: Any) -> torch.Tensor:
        return -value

    for part in "kv":
        name = f"blocks.1.attn.hook_{part}"
        _, kept = lens.run_with_cache(TEXT, names_filter=name)
        with lens.hooks([(f"blocks.1.hook_{part}_input", turn)]):
            _, turned = lens.run_with_cache(TEXT, names_filter=name)
        close(turned[name], -kept[name])


def test_an_input_of_all_heads_is_changed_only_where_each_has_keys(lens: LensModel) -> None:
    name = "blocks.0.hook_attn_in"
    with pytest.raises(ValueError, match="hook_attn_in was changed, but the model has 4 heads"):
        lens.run_with_hooks(TEXT, fwd_hooks=[(name, lambda value, hook: value * 2)])
    whole = LensModel(tiny.make_model(gemma_libtorch, tiny.CONFIGS["gemma1_mha"], "float32"))
    names = ["blocks.0.attn.hook_q", "blocks.0.attn.hook_v"]
    _, kept = whole.run_with_cache(TEXT, names_filter=names)
    with whole.hooks([(name, lambda value, hook: -value)]):
        _, turned = whole.run_with_cache(TEXT, names_filter=names)
    for part in names:
        close(turned[part], -kept[part])


def test_switches_say_what_a_cache_of_all_has(lens: LensModel) -> None:
    length = lens.to_tokens(TEXT).size(1)
    sizes = (1, length, lens.cfg.n_heads, lens.cfg.d_model)
    keys = (1, length, lens.cfg.n_key_value_heads, lens.cfg.d_model)
    shapes = {"hook_q_input": sizes, "hook_k_input": keys, "hook_v_input": keys}
    shapes |= {"hook_attn_in": sizes, "hook_mlp_in": (1, length, lens.cfg.d_model)}
    _, cache = lens.run_with_cache(TEXT)
    assert not any(f"blocks.0.{name}" in cache for name in shapes)
    _, cache = lens.run_with_cache(TEXT, names_filter=lambda name: "input" in name)
    assert not list(cache)
    lens.run_with_hooks(TEXT, fwd_hooks=[(lambda name: "attn" in name, lambda v, hook: v * 2)])
    lens.set_use_split_qkv_input(True)
    lens.set_use_attn_in(True)
    lens.set_use_hook_mlp_in(True)
    logits, cache = lens.run_with_cache(TEXT)
    assert torch.equal(logits, lens(TEXT))
    for name, shape in shapes.items():
        assert cache[f"blocks.0.{name}"].shape == shape
    copies = cache["blocks.1.hook_q_input"]
    assert torch.equal(copies, cache["resid_pre", 1].unsqueeze(2).expand_as(copies))


@pytest.mark.parametrize("places", [2, -1, (1, 3), [0, 2], slice(1, None)])
def test_a_cache_of_some_positions(lens: LensModel, places: Any) -> None:
    _, whole = lens.run_with_cache(TEXT)
    _, part = lens.run_with_cache(TEXT, pos_slice=places)
    chosen = {2: [2], -1: [-1]}.get(places, places) if isinstance(places, int) else places
    index = slice(*chosen) if isinstance(chosen, tuple) else chosen
    assert torch.equal(part["resid_post", 0], whole["resid_post", 0][:, index])
    assert torch.equal(part["q", 0], whole["q", 0][:, index])
    assert torch.equal(part["pattern", 1], whole["pattern", 1][:, :, index])
    assert part["embed"].untyped_storage().nbytes() == part["embed"].nbytes


def test_composition_scores_are_those_of_whole_matrices(lens: LensModel) -> None:
    for mode in "QKV":
        scores = lens.all_composition_scores(mode)
        assert not scores[1, :, 0].any() and not scores[1, :, 1].any()
        attn = lens.blocks[1].attn
        for i, j in ((0, 1), (3, 2)):
            left = lens.W_V[0, i].double() @ lens.W_O[0, i].double()
            query, key = attn.W_Q[j].double(), attn.W_K[j].double()
            of_values = attn.W_V[j].double() @ attn.W_O[j].double()
            right = {"Q": query @ key.T, "K": key @ query.T, "V": of_values}[mode]
            want = (left @ right).norm() / left.norm() / right.norm()
            torch.testing.assert_close(scores[0, i, 1, j].double(), want, rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="mode must be one of"):
        lens.all_composition_scores("X")


def test_the_embedding_and_the_tokenizer_have_their_names(lens: LensModel) -> None:
    residual, tokens, *_ = lens.input_to_embed(TEXT)
    assert torch.equal(residual, lens(TEXT, stop_at_layer=0))
    assert torch.equal(tokens, lens.to_tokens(TEXT))
    assert lens.embed.W_E is lens.W_E
    assert lens.tokenizer.bos_token_id == lens.model.tokenizer.bos_id
    assert lens.tokenizer.decode(tokens[0].tolist()) == TEXT


def test_a_part_takes_hooks_at_its_output(lens: LensModel) -> None:
    plain = lens(TEXT)
    for part in (lens.blocks[1].attn, lens.blocks[0]):
        part.add_hook(lambda value, hook: value * 0.5)
        assert list(lens.list_hooks()) == [f"{part.name}.hook_out"]
        assert not torch.equal(lens(TEXT), plain)
        part.remove_hooks()
        assert torch.equal(lens(TEXT), plain)
    point = lens.blocks[0].mlp.hook_out
    point.add_hook(lambda value, hook: value * 2)
    point.add_hook(lambda value, hook: value * 0.5, is_permanent=True)
    point.remove_hooks()
    assert not torch.equal(lens(TEXT), plain)
    point.remove_hooks(including_permanent=True)
    assert torch.equal(lens(TEXT), plain)
    assert lens.list_hooks() == {}


def test_labels_of_heads_are_a_property_and_a_method(lens: LensModel) -> None:
    labels = lens.all_head_labels
    assert labels == lens.all_head_labels()
    assert (labels[1], labels[lens.cfg.n_heads], len(labels)) == (
        "L0H1",
        "L1H0",
        lens.cfg.n_heads * lens.cfg.n_layers,
    )
