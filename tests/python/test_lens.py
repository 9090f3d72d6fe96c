"""LensModel, hooks on modules, and gradients, on tiny models."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import gemma_libtorch
import pytest
import tiny
import torch
from gemma_libtorch.lens import LensModel

CONFIGS = {name: tiny.CONFIGS[name] for name in ("gemma1_mqa", "gemma2", "gemma3")}
TEXT = "the name of the"


def make_lens(name: str) -> LensModel:
    return LensModel(tiny.make_model(gemma_libtorch, CONFIGS[name], "float32"))


@pytest.fixture(params=CONFIGS)
def lens(request: pytest.FixtureRequest) -> LensModel:
    return make_lens(request.param)


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * want.abs().max().item())


# --- running --------------------------------------------------------------------------------------


def test_text_and_its_tokens_have_the_same_logits(lens: LensModel) -> None:
    tokens = lens.to_tokens(TEXT)
    assert tokens[0, 0] == lens.tokenizer.bos_id
    assert torch.equal(lens(TEXT), lens(tokens))
    assert torch.equal(lens(TEXT), lens(tokens[0]))
    assert lens(TEXT).shape == (1, tokens.size(1), lens.cfg.d_vocab)
    assert torch.equal(lens(TEXT, prepend_bos=False), lens(tokens[:, 1:]))


def test_a_cache_leaves_the_bits_and_has_all_older_names(lens: LensModel) -> None:
    logits, cache = lens.run_with_cache(TEXT)
    assert torch.equal(logits, lens(TEXT))
    for name in ("embed", "resid_pre", "q", "pattern", "z", "attn_out", "resid_mid", "mlp_out"):
        key = name if name == "embed" else (name, 1)
        assert torch.isfinite(cache[key].clamp(min=-1)).all()
    assert torch.equal(cache["resid_pre", 1], cache["resid_post", 0])
    assert torch.equal(cache["resid_pre", 1] + cache["attn_out", 1], cache["resid_mid", 1])
    assert "blocks.0.attn.hook_result" not in cache
    lens.set_use_attn_result(True)
    assert "blocks.0.attn.hook_result" in lens.run_with_cache(TEXT)[1]


def test_a_filter_keeps_what_it_names(lens: LensModel) -> None:
    name = "blocks.1.hook_out"
    for names in (name, [name], lambda known: known == name):
        _, cache = lens.run_with_cache(TEXT, names_filter=names)
        assert list(cache) == [name]
    with pytest.raises(ValueError, match="no hook point 'blocks.9.hook_out'"):
        lens.run_with_cache(TEXT, names_filter="blocks.9.hook_out")


def test_layers_run_in_parts(lens: LensModel) -> None:
    residual, cache = lens.run_with_cache(TEXT, stop_at_layer=1)
    assert torch.equal(residual, cache["resid_post", 0])
    assert not any(name.startswith("blocks.1") for name in cache)
    assert torch.equal(lens(residual, start_at_layer=1), lens(TEXT))
    assert torch.equal(
        lens(TEXT, stop_at_layer=-1), lens(TEXT, stop_at_layer=lens.cfg.n_layers - 1)
    )


def test_the_loss_is_the_cross_entropy_of_the_next_tokens(lens: LensModel) -> None:
    tokens = lens.to_tokens(TEXT)
    logits, loss = lens(TEXT, return_type="both")
    want = torch.nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:])
    torch.testing.assert_close(loss, want)
    per_token = lens(TEXT, return_type="loss", loss_per_token=True)
    assert per_token.shape == (1, tokens.size(1) - 1)
    torch.testing.assert_close(per_token.mean(), want)


# --- hooks ----------------------------------------------------------------------------------------


def test_hooks_get_value_and_point_and_are_gone_afterwards(lens: LensModel) -> None:
    plain = lens(TEXT)
    seen = []

    def ablate(value: torch.Tensor, hook: Any) -> torch.Tensor:
        seen.append((hook.name, hook.layer(), hook.texts, hook.positions))
        return torch.zeros_like(value)

    changed = lens.run_with_hooks(TEXT, fwd_hooks=[("blocks.1.attn.hook_z", ablate)])
    assert seen == [("blocks.1.attn.hook_z", 1, [0], [0])]
    assert not torch.equal(changed, plain)
    assert torch.equal(lens(TEXT), plain)


def test_a_hook_that_fails_leaves_none(lens: LensModel) -> None:
    def fail(value: torch.Tensor, hook: Any) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        lens.run_with_hooks(TEXT, fwd_hooks=[("hook_embed", fail)])
    lens(TEXT)


def test_hooks_stay_until_they_are_reset(lens: LensModel) -> None:
    plain = lens(TEXT)
    lens.add_hook("hook_embed", lambda value, hook: value * 2)
    lens.blocks[0].hook_resid_post.add_hook(lambda value, hook: value * 2, is_permanent=True)
    both = lens(TEXT)
    lens.reset_hooks()
    one = lens(TEXT)
    lens.reset_hooks(including_permanent=True)
    assert not torch.equal(both, one)
    assert not torch.equal(one, plain)
    assert torch.equal(lens(TEXT), plain)


def test_a_function_chooses_points_once(lens: LensModel) -> None:
    calls: list[str] = []
    lens.run_with_hooks(
        TEXT,
        fwd_hooks=[(lambda name: "resid_post" in name, lambda v, hook: calls.append(hook.name))],
    )
    assert calls == [f"blocks.{i}.hook_resid_post" for i in range(lens.cfg.n_layers)]


def test_backward_hooks_and_caches_get_gradients(lens: LensModel) -> None:
    lens.model.requires_grad_()
    name = "blocks.0.hook_resid_post"
    seen = []
    with torch.enable_grad():
        _, cache = lens.run_with_cache(TEXT, names_filter=[name], return_type="loss", incl_bwd=True)
        lens.run_with_hooks(
            TEXT,
            return_type="loss",
            bwd_hooks=[(name, lambda grad, hook: seen.append(grad))],
        ).backward()
        residual = cache[name].detach().requires_grad_()
        log_probs = lens(residual, start_at_layer=1)[0, :-1].log_softmax(-1)
        want = -log_probs.gather(-1, lens.to_tokens(TEXT)[0, 1:, None]).mean()
    (gradient,) = torch.autograd.grad(want, residual)
    close(cache[name + "_grad"], gradient)
    assert torch.equal(seen[0], cache[name + "_grad"])


@pytest.mark.parametrize("numerics", ["exact", "fast"])
def test_generation_runs_under_hooks(lens: LensModel, numerics: str) -> None:
    tokens = lens.to_tokens(["the name", "a"])
    direction = torch.randn(lens.cfg.d_model, generator=torch.Generator().manual_seed(3)) * 20

    def steer(value: torch.Tensor, hook: Any) -> torch.Tensor:
        return value + direction

    def greedy(row: torch.Tensor, count: int) -> list[int]:
        new: list[int] = []
        for _ in range(count):
            logits = lens(torch.cat([row, torch.tensor(new, dtype=torch.long)]))
            new.append(int(logits[0, -1].argmax()))
        return new

    row = tokens[0]
    plain = greedy(row, 6)
    with lens.hooks([(f"blocks.{lens.cfg.n_layers - 1}.hook_resid_post", steer)]):
        want = greedy(row, 6)
        lens.model.set_numerics(numerics)
        got = lens.generate(row, max_new_tokens=6, do_sample=False)[0, len(row) :].tolist()
    assert want != plain
    assert got == want[: len(got)]


def test_threads_compute_under_hooks_of_one(lens: LensModel) -> None:
    calls: list[int] = []
    with lens.hooks([("hook_embed", lambda value, hook: calls.append(value.size(1)))]):
        threads = [threading.Thread(target=lens, args=(TEXT,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(calls) == 4


def test_fast_numerics_keep_what_they_compute(lens: LensModel) -> None:
    want, exact = lens.run_with_cache(TEXT)
    lens.model.set_numerics("fast")
    got, fast = lens.run_with_cache(TEXT)
    close(got, want)
    assert ("blocks.0.attn.hook_z" in fast) and ("blocks.0.attn.hook_pattern" not in fast)
    for name in fast:
        close(fast[name], exact[name])
    with pytest.raises(ValueError, match='use set_numerics\\("exact"\\)'):
        lens.run_with_cache(TEXT, names_filter="blocks.0.attn.hook_pattern")


# --- parts and weights ----------------------------------------------------------------------------


def test_each_component_computes_alone(lens: LensModel) -> None:
    lens.set_use_attn_result(True)
    _, cache = lens.run_with_cache(TEXT, names_filter=lambda name: True)
    tokens = lens.to_tokens(TEXT)
    assert torch.equal(lens.get_component("embed")(tokens), cache["embed"])
    for i in range(lens.cfg.n_layers):
        block = f"blocks.{i}"
        assert torch.equal(lens.get_component(block)(cache["resid_pre", i]), cache["resid_post", i])
        normed = cache[f"{block}.ln1.hook_out"]
        assert torch.equal(lens.get_component(f"{block}.ln1")(cache["resid_pre", i]), normed)
        for letter in "qkv":
            got = lens.get_component(f"{block}.attn.{letter}")(normed)
            assert torch.equal(got, cache[letter, i].flatten(2))
        close(lens.get_component(f"{block}.attn")(normed), cache[f"{block}.attn.hook_out"])
        z = cache["z", i].flatten(2)
        assert torch.equal(
            lens.get_component(f"{block}.attn.o")(z), cache[f"{block}.attn.hook_out"]
        )
        fed = cache[f"{block}.mlp.hook_in"]
        assert torch.equal(lens.get_component(f"{block}.mlp")(fed), cache[f"{block}.mlp.hook_out"])
        assert torch.equal(lens.get_component(f"{block}.mlp.gate")(fed), cache["pre", i])
        assert torch.equal(lens.get_component(f"{block}.mlp.in")(fed), cache["pre_linear", i])
        assert torch.equal(
            lens.get_component(f"{block}.mlp.out")(cache["post", i]),
            cache[f"{block}.mlp.hook_out"],
        )
    close(lens.unembed(cache["ln_final.hook_out"]), cache["unembed.hook_out"])


@pytest.mark.parametrize("quant", [False, True])
def test_weights_are_those_that_compute(quant: bool) -> None:
    for fields in CONFIGS.values():
        lens = LensModel(tiny.make_model(gemma_libtorch, fields, "float32", quant))
        lens.set_use_attn_result(True)
        _, cache = lens.run_with_cache(TEXT)
        for i, block in enumerate(lens.blocks):
            normed = block.ln1(cache["resid_pre", i])
            for letter, weight in (("q", block.attn.W_Q), ("k", block.attn._W_K)):
                close(torch.einsum("ble,hed->blhd", normed, weight), cache[letter, i])
            results = torch.einsum("blhd,hde->blhe", cache["z", i], block.attn.W_O)
            close(results, cache["result", i])
            fed = cache["resid_mid", i] if block.ln2 is None else block.ln2(cache["resid_mid", i])
            close(fed @ block.mlp.W_gate, cache["pre", i])
            close(fed @ block.mlp.W_in, cache["pre_linear", i])
            close(cache["post", i] @ block.mlp.W_out, block.mlp.out(cache["post", i]))
        tokens = lens.to_tokens(TEXT)[0]
        close(lens.W_E[tokens] * lens.cfg.d_model**0.5, cache["embed"][0])
        heads = (lens.cfg.n_heads, lens.cfg.d_model, lens.cfg.d_head)
        assert lens.W_V.shape == lens.W_K.shape == (lens.cfg.n_layers, *heads)
        assert lens.W_U.shape == (lens.cfg.d_model, lens.cfg.d_vocab)


def test_contributions_of_heads_sum_to_what_is_added(lens: LensModel) -> None:
    lens.set_use_attn_result(True)
    _, cache = lens.run_with_cache(TEXT)
    for i in range(lens.cfg.n_layers):
        parts = cache.head_contributions(i)
        assert parts.shape == (1, lens.to_tokens(TEXT).size(1), lens.cfg.n_heads, lens.cfg.d_model)
        close(parts.sum(2), cache["attn_out", i])


# --- tokens ---------------------------------------------------------------------------------------


def test_tokens_go_to_text_and_back(lens: LensModel) -> None:
    tokens = lens.to_tokens(TEXT)
    assert lens.to_string(tokens[0, 1:]) == TEXT
    assert lens.to_string(tokens[:, 1:]) == [TEXT]
    pieces = lens.to_str_tokens(TEXT)
    assert "".join(pieces[1:]).strip() == TEXT
    last = pieces[-1]
    assert lens.to_single_token(last) == tokens[0, -1]
    assert lens.get_token_position(last, TEXT, mode="last") == tokens.size(1) - 1
    with pytest.raises(ValueError, match="tokens, not one"):
        lens.to_single_token(TEXT)
    padded = lens.to_tokens([TEXT, "a"])
    assert padded[1, -1] == lens.tokenizer.pad_id


# --- hooks on modules -----------------------------------------------------------------------------


def test_modules_take_forward_hooks(lens: LensModel) -> None:
    model = lens.model
    plain = lens(TEXT)
    for path in ("model", "model.layers.0", "model.layers.0.self_attn", "model.layers.0.mlp"):
        module = model.get_submodule(path)
        seen = []

        def note(owner: Any, args: Any, output: torch.Tensor, seen: list[Any] = seen) -> None:
            seen.append((owner, args, output))

        def double(owner: Any, args: Any) -> Any:
            return (args[0] * 2,)

        handle = module.register_forward_hook(note)
        assert torch.equal(lens(TEXT), plain)
        (owner, (given,), output) = seen[0]
        assert owner is module
        assert given.shape == output.shape == (1, lens.to_tokens(TEXT).size(1), 60)
        handle.remove()
        with module.register_forward_pre_hook(double):
            assert not torch.equal(lens(TEXT), plain)
        assert torch.equal(lens(TEXT), plain)
        assert len(seen) == 1


def test_a_module_by_itself_takes_hooks() -> None:
    linear = tiny.randomize(gemma_libtorch.model.Linear(3, 4, False))
    x = torch.randn(2, 3)
    want = linear(x)
    with linear.register_forward_hook(lambda module, args, output: output + args[0].sum()):
        torch.testing.assert_close(linear(x), want + x.sum())
    assert torch.equal(linear(x), want)


def test_a_module_without_points_says_so() -> None:
    sampler = gemma_libtorch.model.Sampler(7, tiny.make_config(gemma_libtorch, CONFIGS["gemma2"]))
    with pytest.raises(ValueError, match="Sampler has no point 'hook_in'"):
        sampler.register_forward_hook(lambda *_: None)


def test_fast_numerics_refuse_gradients(lens: LensModel) -> None:
    lens.model.requires_grad_()
    lens.model.set_numerics("fast")
    with torch.enable_grad(), pytest.raises(RuntimeError, match='set_numerics\\("exact"\\)'):
        lens.model.logits(lens.to_tokens(TEXT))
    lens.model.requires_grad_(False)
    with torch.enable_grad():
        assert not lens.model.logits(lens.to_tokens(TEXT)).requires_grad


# --- modules as torch.nn.Module, and copies -------------------------------------------------------


def test_a_module_becomes_a_torch_module(lens: LensModel) -> None:
    wrapped = gemma_libtorch.nn.as_module(lens.model)
    assert isinstance(wrapped, torch.nn.Module)
    names = [name for name, _ in lens.model.named_parameters()]
    assert [name for name, _ in wrapped.named_parameters()] == names
    assert set(names) <= set(wrapped.state_dict())
    outer = torch.nn.Sequential(wrapped)
    assert len(list(outer.parameters())) == len(names)
    wrapped.requires_grad_()
    torch.nn.utils.clip_grad_norm_(outer.parameters(), 1.0)
    assert lens.model.embedder.weight.requires_grad
    wrapped.load_state_dict({name: torch.zeros_like(p) for name, p in wrapped.named_parameters()}
                            | {name: b for name, b in wrapped.named_buffers()})  # fmt: skip
    assert not lens.model.embedder.weight.any()
    mlp = gemma_libtorch.nn.as_module(lens.model.model.layers[0].mlp)
    seen = []
    mlp.register_forward_hook(lambda module, args, output: seen.append(output))
    x = torch.randn(1, 2, lens.cfg.d_model)
    assert torch.equal(mlp(x), seen[0])


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("quant", [False, True])
def test_models_are_copied_and_pickled(way: Any, quant: bool) -> None:
    for dtype in ("float32", "bfloat16"):
        model = tiny.make_model(gemma_libtorch, CONFIGS["gemma3"], dtype, quant)
        model.set_numerics("fast")
        model.model.norm.weight.requires_grad_()
        other = way(model)
        assert other.numerics == "fast"
        assert other.model.norm.weight.requires_grad
        assert not other.embedder.weight.requires_grad
        ids = LensModel(model).to_tokens(TEXT)
        assert torch.equal(other.logits(ids), model.logits(ids))
        with torch.no_grad():
            other.model.norm.weight.add_(1)
        assert not torch.equal(other.logits(ids), model.logits(ids))
        for path in ("embedder", "model", "model.norm", "model.layers.0.mlp.gate_proj", "sampler",
                     "model.layers.0.mlp"):  # fmt: skip
            part = model.get_submodule(path)
            for (key, got), want in zip(
                way(part).named_parameters(), part.parameters(), strict=True
            ):
                assert got is not want and torch.equal(got, want), key


def test_a_part_that_needs_its_model_is_not_copied(lens: LensModel) -> None:
    with pytest.raises(TypeError, match="GemmaAttention"):
        copy.deepcopy(lens.model.model.layers[0].self_attn)
