"""Every module gives what its twin in Google's recurrentgemma.torch gives, to the last bit."""

from __future__ import annotations

import enum
from typing import Any

import pytest
import recurrentgemma_reference
import sentencepiece
import tiny
import tiny_griffin
import torch
from gemma_libtorch import recurrentgemma as ours
from gemma_libtorch import tokenizer
from tiny_griffin import CONFIGS, A, R

theirs = recurrentgemma_reference.required()

DTYPES = pytest.mark.parametrize("dtype", tiny.DTYPES)
THREADS = pytest.mark.parametrize("threads", [1, 2], ids=["1thread", "2threads"])
LENGTHS = pytest.mark.parametrize("length", [1, 2, 3, 5, 12, 20])


def normal(shape: tuple[int, ...], dtype: str, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(tiny.DTYPES[dtype])


def make(name: str, dtype: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """The reference's module and ours, with the same random weights; R and A are block types.

    Without gradients, for which LibTorch multiplies inputs with gaps in another way.
    """

    def convert(package: Any, arg: Any) -> Any:
        return package.TemporalBlockType[arg] if arg in (R, A) else arg

    kwargs["dtype"] = tiny.DTYPES[dtype]
    want, got = (
        getattr(package, name)(*(convert(package, arg) for arg in args), **kwargs)
        for package in (theirs, ours)
    )
    want.requires_grad_(False)
    return tiny_griffin.randomize(want), tiny_griffin.randomize(got)


def plain(value: Any) -> Any:
    """Without the classes of one package or the other, and in memory of its own."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return tuple(map(plain, value)) if isinstance(value, tuple) else value


# Left pads (-1), documents that begin within a row, positions that begin late.
def documents(length: int) -> torch.Tensor:
    rows = [
        torch.arange(length),
        torch.arange(length) - 3,
        torch.arange(length) % 5,
        torch.arange(length) % 4 + (torch.arange(length) > 9),
        torch.arange(length) + 2,
        -torch.ones(length),
    ]
    return torch.stack(rows).clamp(min=-1).int()


# --- layers ---------------------------------------------------------------------------------------


@DTYPES
def test_rms_norm_is_equal(dtype: str) -> None:
    for eps in (1e-6, 1e-2):
        want, got = make("RMSNorm", dtype, 35, eps=eps)
        for x in (normal((3, 35), dtype) * 30, normal((2, 5, 35), dtype) * 1e-3):
            tiny.assert_same(got(x), want(x))


@DTYPES
@pytest.mark.parametrize("shape", [(24,), (1, 1, 24), (2, 7, 24)])
def test_block_diagonal_linear_is_equal(dtype: str, shape: tuple[int, ...]) -> None:
    for num_blocks in (1, 3):
        want, got = make("BlockDiagonalLinear", dtype, 24, num_blocks)
        tiny.assert_same(got(normal(shape, dtype)), want(normal(shape, dtype)))


@DTYPES
def test_einsum_is_equal(dtype: str) -> None:
    want, got = make("Einsum", dtype, (2, 18, 10), (2, 1, 1, 10), "...td,cdD->c...tD")
    x = normal((3, 5, 18), dtype)
    tiny.assert_same(got(x), want(x))


@DTYPES
@THREADS
def test_mlp_is_equal(dtype: str, threads: int) -> None:
    with tiny.threads(threads):
        for width, expanded, shape in ((18, 50, (2, 7, 18)), (256, 640, (1, 40, 256))):
            want, got = make("MLPBlock", dtype, width, expanded)
            x = normal(shape, dtype)
            tiny.assert_same(got(x), want(x))


@DTYPES
@pytest.mark.parametrize("scaled", [True, False])
def test_embedder_is_equal(dtype: str, scaled: bool) -> None:
    want, got = make("Embedder", dtype, 31, 20, scaled)
    ids = tiny.random_ids((2, 5), 31)
    for tokens in (ids, ids.int()):
        tiny.assert_same(got.encode(tokens), want.encode(tokens))
    x = normal((2, 5, 20), dtype)
    tiny.assert_same(got.decode(x), want.decode(x))


@DTYPES
@LENGTHS
def test_scan_is_equal(dtype: str, length: int) -> None:
    x, a = normal((6, length, 10), dtype), normal((6, length, 10), dtype, 6).sigmoid()
    reset = documents(length) == 0
    for acc_dtype in (torch.float32, torch.float64):
        for h0 in (None, normal((6, 10), "float32", 7).to(acc_dtype)):
            want, got = (p.rnn_scan(x, a, reset, h0, acc_dtype) for p in (theirs, ours))
            tiny.assert_same(got, want)


def steps_of(module: Any, x: torch.Tensor, positions: torch.Tensor, prompt: int) -> list[Any]:
    """What comes of a prompt, and then token by token; all the caches and what is left of x."""
    x = x.clone()
    y, cache = module(x[:, :prompt], positions[:, :prompt])
    out = [plain((y, cache, x))]
    for t in range(prompt, x.shape[1]):
        y, cache = module(x[:, t : t + 1], positions[:, t : t + 1], cache)
        out.append(plain((y, cache)))
    return out


def assert_same_steps(
    modules: tuple[Any, Any], width: int, dtype: str, length: int, steps: int = 9
) -> None:
    positions = documents(length + steps)
    x = normal((len(positions), length + steps, width), dtype)
    want, got = (steps_of(module, x, positions, length) for module in modules)
    tiny.assert_same(got, want)


@DTYPES
@LENGTHS
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("RGLRU", (24, 3)),
        ("Conv1D", (24, 4)),
        ("Conv1D", (24, 2)),
        ("RecurrentBlock", (24, 3)),
        ("RecurrentBlock", (24, 2, 30, 3)),
        ("LocalAttentionBlock", (24, 2, 4)),
        ("LocalAttentionBlock", (24, 1, 100)),
        ("LocalAttentionBlock", (24, 3, 1)),
        ("ResidualBlock", (24, 20, 2, 4, R)),
        ("ResidualBlock", (24, 20, 2, 4, A)),
        ("ResidualBlock", (24, 20, 2, 4, R, 30, 5)),
    ],
    ids=str,
)
def test_a_layer_is_equal_in_a_prompt_and_token_by_token(
    name: str, args: tuple[Any, ...], dtype: str, length: int
) -> None:
    assert_same_steps(make(name, dtype, *args), 24, dtype, length)


@DTYPES
@pytest.mark.parametrize("name", ["RGLRU", "Conv1D", "RecurrentBlock", "LocalAttentionBlock"])
def test_a_layer_begins_with_an_empty_cache_as_the_references(dtype: str, name: str) -> None:
    sizes = {
        "RGLRU": (24, 3),
        "Conv1D": (24, 4),
        "RecurrentBlock": (24, 3),
        "LocalAttentionBlock": (24, 2, 4),
    }
    kwargs: dict[str, Any] = {"batch_size": 2}
    if name == "LocalAttentionBlock":
        kwargs |= {"window_size": 4, "heads_dim": 12}
    else:
        kwargs["lru_width" if name == "RecurrentBlock" else "width"] = 24
    if name != "RGLRU":
        kwargs["dtype"] = tiny.DTYPES[dtype]
    results = []
    for module in make(name, dtype, *sizes[name]):
        cache = module.init_cache(**kwargs)
        before = plain(cache)
        y, after = module(normal((2, 1, 24), dtype), torch.tensor([[0], [3]]), cache)
        results.append((before, plain(y), plain(after)))
    tiny.assert_same(results[1], results[0])


# --- the whole model ------------------------------------------------------------------------------


def decode(model: Any, tokens: torch.Tensor, positions: torch.Tensor, prompt: int) -> list[Any]:
    logits, cache = model(tokens[:, :prompt], positions[:, :prompt])
    out = [plain((logits, cache))]
    for t in range(prompt, tokens.shape[1]):
        logits, cache = model(tokens[:, t : t + 1], positions[:, t : t + 1], cache)
        out.append(plain((logits, cache)))
    return out


@DTYPES
@LENGTHS
@THREADS
@pytest.mark.parametrize("name", CONFIGS)
def test_prefill_and_decoding_are_equal(name: str, dtype: str, length: int, threads: int) -> None:
    fields = CONFIGS[name]
    want, got = (tiny_griffin.make(package, fields, dtype) for package in (theirs, ours))
    positions = documents(length + 9)
    tokens = tiny.random_ids(tuple(positions.shape), fields["vocab_size"])
    with tiny.threads(threads):
        tiny.assert_same(
            decode(got, tokens, positions, length), decode(want, tokens, positions, length)
        )


@DTYPES
@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_from_an_empty_cache_is_equal(name: str, dtype: str) -> None:
    results = []
    for package in (theirs, ours):
        model = tiny_griffin.make(package, CONFIGS[name], dtype)
        tokens = tiny.random_ids((3, 12), 37)
        cache = model.init_cache(3, tiny.DTYPES[dtype])
        out = [plain(cache)]
        for t in range(12):
            position = torch.full((3, 1), t)
            logits, cache = model(tokens[:, t : t + 1], position, cache)
            out.append(plain((logits, cache)))
        results.append(out)
    tiny.assert_same(results[1], results[0])


def test_what_is_not_asked_for_is_none_as_in_the_reference() -> None:
    for return_logits in (False, True):
        for return_cache in (False, True):
            results = []
            for package in (theirs, ours):
                model = tiny_griffin.make(package, CONFIGS["griffin"], "float32")
                tokens = tiny.random_ids((2, 5), 37)
                flags = {"return_logits": return_logits, "return_cache": return_cache}
                results.append(plain(model(tokens, tiny_griffin.positions(2, 5), **flags)))
            tiny.assert_same(results[1], results[0])


def test_names_of_weights_and_their_order_are_the_references() -> None:
    for fields in CONFIGS.values():
        want, got = (tiny_griffin.make(package, fields, "float32") for package in (theirs, ours))
        assert list(got.state_dict()) == list(want.state_dict())
        tiny.assert_same(dict(got.state_dict()), dict(want.state_dict()))
        got.load_state_dict(want.state_dict())


def test_a_cache_of_the_reference_is_taken() -> None:
    want, got = (
        tiny_griffin.make(package, CONFIGS["griffin"], "float32") for package in (theirs, ours)
    )
    tokens, positions = tiny.random_ids((2, 7), 37), tiny_griffin.positions(2, 7)
    _, cache = want(tokens[:, :6], positions[:, :6])
    mine = {name: plain(block) for name, block in cache.items()}
    tiny.assert_same(
        plain(got(tokens[:, 6:], positions[:, 6:], mine)),
        plain(want(tokens[:, 6:], positions[:, 6:], cache)),
    )


# --- sampler --------------------------------------------------------------------------------------

PROMPTS = ["The capital of France is", "It is", "a truth universally acknowledged, that a man"]


def samplers(fields: dict[str, Any], dtype: str, **flags: bool) -> tuple[Any, Any]:
    want, got = (tiny_griffin.make(package, fields, dtype) for package in (theirs, ours))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tiny.TOKENIZER))
    vocabulary = tokenizer.Tokenizer(str(tiny.TOKENIZER))
    return theirs.Sampler(want, processor, **flags), ours.Sampler(got, vocabulary, **flags)


def assert_same_samples(
    both: tuple[Any, Any], prompts: list[str], steps: int, **flags: bool
) -> None:
    """Texts, tokens, logits and the random numbers used up are equal."""
    results = []
    for sampler in both:
        torch.manual_seed(11)
        output = sampler(prompts, steps, **flags)
        results.append((output.text, output.tokens, output.logits, torch.get_rng_state()))
    assert results[1][0] == results[0][0]
    tiny.assert_same(results[1][1:], results[0][1:])


@DTYPES
@pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "drawn"])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("return_logits", [False, True])
def test_samples_are_equal(dtype: str, greedy: bool, echo: bool, return_logits: bool) -> None:
    both = samplers(CONFIGS["griffin"], dtype, greedy_sampling=greedy)
    for prompts in ([PROMPTS[0]], PROMPTS, PROMPTS[1:2] * 2):
        for steps in (0, 1, 2, 11):
            assert_same_samples(both, prompts, steps, echo=echo, return_logits=return_logits)


@pytest.mark.parametrize("ends", [True, False])
def test_a_text_ends_where_the_references_does(ends: bool) -> None:
    both = samplers(CONFIGS["griffin"], "float32")
    for sampler in both:  # Makes eos the likeliest token from some step on.
        embedding = sampler.model.embedder.input_embedding
        embedding[1] = embedding[int(sampler(PROMPTS[:1], 5).tokens[0][-1])] * 3
    for prompts in (PROMPTS[:1], PROMPTS):
        assert_same_samples(both, prompts, 20, end_sampling_at_eos_token=ends)
    tokens = both[1](PROMPTS[:1], 20).tokens[0].tolist()
    assert tokens.index(1) < 18 and set(tokens[tokens.index(1) + 1 :]) == {0}


def test_a_prompt_for_an_instruction_tuned_model_is_equal() -> None:
    both = samplers(CONFIGS["griffin"], "float32", is_it_model=True)
    assert_same_samples(both, PROMPTS[:1], 4, echo=True)


def test_a_prompt_of_bos_alone_is_equal_where_the_reference_takes_one() -> None:
    both = samplers(CONFIGS["griffin"], "float32")
    assert_same_samples(both, [""], 5, return_logits=True)
    assert_same_samples(both, [""], 5, return_logits=True, echo=True)
    with pytest.raises(TypeError, match="NoneType"):
        both[0]([""], 5)
    with_logits, without = both[1]([""], 5, return_logits=True), both[1]([""], 5)
    assert without.text == with_logits.text and without.logits == []


# --- configs --------------------------------------------------------------------------------------


def values_of(config: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(plain, value))
        return value.name if isinstance(value, enum.Enum) else value

    return {name: plain(value) for name, value in config._asdict().items()}


def test_presets_are_equal() -> None:
    assert [p.name for p in ours.Preset] == [p.name for p in theirs.Preset]
    for name in (preset.name for preset in theirs.Preset):
        for arguments in ({}, {"vocab_size": 7}, {"max_sequence_length": 100}):
            want, got = (
                package.GriffinConfig.from_preset(package.Preset[name], **arguments)
                for package in (theirs, ours)
            )
            assert values_of(got) == values_of(want)
            assert got.num_layers == want.num_layers
            assert got.max_cache_length == want.max_cache_length


def test_a_config_from_weights_is_equal() -> None:
    given = {
        "embeddings_scale_by_sqrt_dim": True,
        "attention_window_size": 6,
        "logits_soft_cap": 3.3,
    }
    for name in ("griffin", "hawk"):
        state = tiny_griffin.make(theirs, CONFIGS[name], "float32").state_dict()
        for more in ({}, {"max_sequence_length": 2}):
            want, got = (
                package.GriffinConfig.from_torch_params(
                    state, **given, **more, scan_type=package.ScanType.AUTO
                )
                for package in (theirs, ours)
            )
            assert values_of(got) == values_of(want)


def test_heads_are_counted_right_where_the_last_block_attends() -> None:
    fields = {**CONFIGS["griffin"], "block_types": (R, A)}
    state = tiny_griffin.make(theirs, fields, "float32").state_dict()
    given = {
        "embeddings_scale_by_sqrt_dim": True,
        "attention_window_size": 6,
        "logits_soft_cap": 0.0,
    }
    want, got = (p.GriffinConfig.from_torch_params(state, **given) for p in (theirs, ours))
    assert (want.num_heads, got.num_heads) == (1, fields["num_heads"])
