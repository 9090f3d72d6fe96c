"""Every module gives what its twin in gemma_pytorch gives, to the last bit."""

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
THREADS = pytest.mark.parametrize("threads", [1, 2], ids=["1thread", "2threads"])

LENGTH = 12  # Of the caches.


def make(cls: str, dtype: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """The reference's module and ours, with the same random weights.

    Among the arguments a dict is a config and a str an attention type.
    """

    def convert(package: Any, arg: Any) -> Any:
        if isinstance(arg, dict):
            return tiny.make_config(package, arg, dtype=dtype)
        return package.config.AttentionType[arg] if isinstance(arg, str) else arg

    with tiny.default_dtype(tiny.DTYPES[dtype]):
        return tuple(
            tiny.randomize(
                getattr(package.model, cls)(*(convert(package, arg) for arg in args), **kwargs)
            )
            for package in (gemma_pytorch, gemma_libtorch)
        )


def normal(shape: tuple[int, ...], dtype: str, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(tiny.DTYPES[dtype])


def rope(head_dim: int, positions: torch.Tensor, theta: float = 10_000) -> torch.Tensor:
    table = gemma_pytorch.model.precompute_freqs_cis(head_dim, LENGTH, theta)
    return table.index_select(0, positions)


# --- rotary embedding -----------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 6, 10, 24, 72, 128, 256])
@pytest.mark.parametrize("theta", [10_000, 10_000.0, 1_000_000, 500.5, 1.0])
@pytest.mark.parametrize("factor", [1, 3, 8])
@pytest.mark.parametrize("end", [1, 7, 300])
def test_rope_tables_are_equal(dim: int, theta: float, factor: int, end: int) -> None:
    args = {"dim": dim, "end": end, "theta": theta, "rope_scaling_factor": factor}
    tiny.assert_same(
        gemma_libtorch.model.precompute_freqs_cis(**args),
        gemma_pytorch.model.precompute_freqs_cis(**args),
    )


@pytest.mark.parametrize("dim, end", [(256, 65_536), (128, 16_384)])
@THREADS
def test_rope_tables_of_real_models_are_equal(dim: int, end: int, threads: int) -> None:
    with tiny.threads(threads):
        tiny.assert_same(
            gemma_libtorch.model.precompute_freqs_cis(dim, end, 1_000_000),
            gemma_pytorch.model.precompute_freqs_cis(dim, end, 1_000_000),
        )


@DTYPES
def test_rope_tables_do_not_depend_on_the_default_dtype(dtype: str) -> None:
    want = gemma_pytorch.model.precompute_freqs_cis(24, 50)
    with tiny.default_dtype(tiny.DTYPES[dtype]):
        tiny.assert_same(gemma_libtorch.model.precompute_freqs_cis(24, 50), want)


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 5, 3, 24), (3, 12, 1, 10), (1, 7, 4, 256)])
def test_rotated_tensors_are_equal(dtype: str, shape: tuple[int, ...]) -> None:
    x, freqs_cis = normal(shape, dtype), rope(shape[-1], torch.arange(shape[1]))
    tiny.assert_same(
        gemma_libtorch.model.apply_rotary_emb(x, freqs_cis),
        gemma_pytorch.model.apply_rotary_emb(x, freqs_cis),
    )


# --- layers without a cache -----------------------------------------------------------------------


@DTYPES
@WEIGHTS
@pytest.mark.parametrize("shape", [(17,), (3, 17), (2, 5, 17)])
def test_linear_is_equal(dtype: str, quant: bool, shape: tuple[int, ...]) -> None:
    want, got = make("Linear", dtype, in_features=17, out_features=23, quant=quant)
    x = normal(shape, dtype)
    tiny.assert_same(got(x), want(x))


@DTYPES
@WEIGHTS
def test_linear_is_equal_for_an_input_with_gaps(dtype: str, quant: bool) -> None:
    want, got = make("Linear", dtype, in_features=17, out_features=23, quant=quant)
    x = normal((17, 5, 2), dtype).transpose(0, 2)
    tiny.assert_same(got(x), want(x))


@DTYPES
@WEIGHTS
@pytest.mark.parametrize("shape", [(), (4,), (2, 5)])
def test_embedding_is_equal(dtype: str, quant: bool, shape: tuple[int, ...]) -> None:
    want, got = make("Embedding", dtype, num_embeddings=31, embedding_dim=12, quant=quant)
    ids = tiny.random_ids(shape, 31)
    tiny.assert_same(got(ids), want(ids))


@DTYPES
@pytest.mark.parametrize("add_unit_offset", [True, False])
@pytest.mark.parametrize("eps", [1e-6, 1e-2, 0.0])
def test_rms_norm_is_equal(dtype: str, add_unit_offset: bool, eps: float) -> None:
    want, got = make("RMSNorm", dtype, 35, eps=eps, add_unit_offset=add_unit_offset)
    for x in (normal((35,), dtype), normal((2, 5, 35), dtype) * 30, normal((4, 35), dtype) * 1e-3):
        tiny.assert_same(got(x), want(x))


@DTYPES
def test_rms_norm_is_equal_for_an_input_of_another_dtype(dtype: str) -> None:
    want, got = make("RMSNorm", "bfloat16", 24)
    x = normal((3, 24), dtype)
    tiny.assert_same(got(x), want(x))


@DTYPES
@WEIGHTS
def test_mlp_is_equal(dtype: str, quant: bool) -> None:
    want, got = make("GemmaMLP", dtype, hidden_size=18, intermediate_size=50, quant=quant)
    for shape in ((18,), (3, 1, 18), (2, 7, 18)):
        x = normal(shape, dtype)
        tiny.assert_same(got(x), want(x))


@DTYPES
@WEIGHTS
@THREADS
def test_mlp_is_equal_where_threads_share_the_work(dtype: str, quant: bool, threads: int) -> None:
    want, got = make("GemmaMLP", dtype, hidden_size=256, intermediate_size=640, quant=quant)
    x = normal((1, 40, 256), dtype)
    with tiny.threads(threads):
        tiny.assert_same(got(x), want(x))


# --- layers with a cache --------------------------------------------------------------------------

# A prompt of 5 tokens, a chunk of 3, and single tokens.
CHUNKS = [torch.arange(5), torch.arange(5, 8), torch.tensor([8]), torch.tensor([9])]


def assert_same_through_a_cache(
    modules: tuple[Any, Any], fields: dict[str, Any], dtype: str
) -> None:
    """Both modules get CHUNKS in turn; every output and, at the end, the caches are equal."""
    config = tiny.make_config(gemma_libtorch, fields, dtype=dtype)
    batch = 3
    caches = [tiny.make_caches(config, batch, LENGTH)[0] for _ in modules]
    masks = tiny.make_masks(config, LENGTH)
    for seed, positions in enumerate(CHUNKS):
        hidden = normal((batch, len(positions), config.hidden_size), dtype, seed)
        mask, local_mask = (None if m is None else m.index_select(2, positions) for m in masks)
        outputs = [
            module(
                hidden_states=hidden,
                freqs_cis=rope(config.head_dim, positions),
                kv_write_indices=positions,
                kv_cache=cache,
                mask=mask,
                local_mask=local_mask,
            )
            for module, cache in zip(modules, caches, strict=True)
        ]
        tiny.assert_same(outputs[1], outputs[0])
    tiny.assert_same(caches[1], caches[0])


@DTYPES
@WEIGHTS
@pytest.mark.parametrize("attn_type", [tiny.LOCAL, tiny.GLOBAL])
@CONFIGS
def test_attention_is_equal(dtype: str, quant: bool, attn_type: str, name: str) -> None:
    fields = {**tiny.CONFIGS[name], "quant": quant}
    assert_same_through_a_cache(make("GemmaAttention", dtype, fields, attn_type), fields, dtype)


@DTYPES
@pytest.mark.parametrize("scalar", [1, 7, 168, 256])
@pytest.mark.parametrize("softcap", [None, 0.3, 50.0])
def test_attention_is_equal_whatever_scales_its_scores(
    dtype: str, scalar: int, softcap: float | None
) -> None:
    fields = {
        **tiny.CONFIGS["gemma2"],
        "query_pre_attn_scalar": scalar,
        "attn_logit_softcapping": softcap,
    }
    assert_same_through_a_cache(make("GemmaAttention", dtype, fields, tiny.LOCAL), fields, dtype)


@DTYPES
def test_attention_without_a_local_mask_is_equal(dtype: str) -> None:
    fields = tiny.CONFIGS["gemma3"]
    want, got = make("GemmaAttention", dtype, fields, tiny.LOCAL)
    config = tiny.make_config(gemma_libtorch, fields, dtype=dtype)
    positions = torch.arange(7)
    outputs = [
        module(
            normal((2, 7, config.hidden_size), dtype),
            rope(config.head_dim, positions),
            positions,
            tiny.make_caches(config, 2, LENGTH)[0],
            tiny.make_masks(config, LENGTH)[0].index_select(2, positions),
        )
        for module in (want, got)
    ]
    tiny.assert_same(outputs[1], outputs[0])


@DTYPES
@WEIGHTS
@pytest.mark.parametrize("name", ["gemma1_mqa", "gemma1_mha"])
def test_gemma_1_decoder_layer_is_equal(dtype: str, quant: bool, name: str) -> None:
    fields = {**tiny.CONFIGS[name], "quant": quant, "sliding_window_size": 2}
    assert_same_through_a_cache(make("GemmaDecoderLayer", dtype, fields), fields, dtype)


@DTYPES
@WEIGHTS
@pytest.mark.parametrize("attn_type", [tiny.LOCAL, tiny.GLOBAL])
@pytest.mark.parametrize("use_pre_ffw_norm", [True, False], ids=["pre", "nopre"])
@pytest.mark.parametrize("use_post_ffw_norm", [True, False], ids=["post", "nopost"])
@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_gemma_2_decoder_layer_is_equal(
    dtype: str,
    quant: bool,
    attn_type: str,
    use_pre_ffw_norm: bool,
    use_post_ffw_norm: bool,
    name: str,
) -> None:
    fields = {
        **tiny.CONFIGS[name],
        "quant": quant,
        "use_pre_ffw_norm": use_pre_ffw_norm,
        "use_post_ffw_norm": use_post_ffw_norm,
    }
    assert_same_through_a_cache(make("Gemma2DecoderLayer", dtype, fields, attn_type), fields, dtype)


@DTYPES
@WEIGHTS
@CONFIGS
def test_the_stack_of_layers_is_equal(dtype: str, quant: bool, name: str) -> None:
    fields = {**tiny.CONFIGS[name], "quant": quant}
    positions = torch.arange(9)
    outputs, caches = [], []
    for package, module in zip(
        (gemma_pytorch, gemma_libtorch), make("GemmaModel", dtype, fields), strict=True
    ):
        types = package.config.AttentionType
        config = module.config
        caches.append(tiny.make_caches(config, 2, LENGTH))
        masks = tiny.make_masks(config, LENGTH)
        outputs.append(
            module(
                hidden_states=normal((2, 9, config.hidden_size), dtype),
                freqs_cis={
                    types.LOCAL_SLIDING: rope(config.head_dim, positions),
                    types.GLOBAL: rope(config.head_dim, positions, 1_000_000),
                },
                kv_write_indices=positions,
                kv_caches=caches[-1],
                mask=masks[0].index_select(2, positions),
                local_mask=None if masks[1] is None else masks[1].index_select(2, positions),
            )
        )
    tiny.assert_same(outputs[1], outputs[0])
    tiny.assert_same(caches[1], caches[0])


# --- sampler --------------------------------------------------------------------------------------


def assert_same_choice(
    softcap: float | None,
    embedding: torch.Tensor,
    hidden: torch.Tensor,
    choice: dict[str, torch.Tensor | None],
    bias: torch.Tensor | None = None,
) -> None:
    """Tokens, logits and the random numbers used up are equal, over several draws."""
    fields = {**tiny.CONFIGS["gemma2"], "final_logit_softcapping": softcap}
    results = []
    for package in (gemma_pytorch, gemma_libtorch):
        sampler = package.model.Sampler(len(embedding), tiny.make_config(package, fields))
        torch.manual_seed(7)
        draws = [
            sampler(
                embedding=embedding,
                hidden_states=hidden,
                output_positions=torch.tensor([hidden.shape[1] - 1]),
                embedding_bias=bias,
                **choice,
            )
            for _ in range(5)
        ]
        results.append((draws, torch.get_rng_state()))
    tiny.assert_same(results[1], results[0])


@DTYPES
@pytest.mark.parametrize("softcap", [None, 0.7, 30.0])
@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("choice", [tiny.greedy, tiny.sampling])
def test_sampler_is_equal(dtype: str, softcap: float | None, batch: int, choice: Any) -> None:
    embedding, hidden = normal((61, 8), dtype), normal((batch, 3, 8), dtype, 6)
    assert_same_choice(softcap, embedding, hidden, choice(batch))


@DTYPES
@pytest.mark.parametrize("choice", [tiny.greedy, tiny.sampling])
def test_sampler_with_a_bias_is_equal(dtype: str, choice: Any) -> None:
    embedding, hidden = normal((61, 8), dtype), normal((3, 2, 8), dtype, 6)
    assert_same_choice(0.7, embedding, hidden, choice(3), bias=normal((61,), dtype, 8))


@DTYPES
@pytest.mark.parametrize(
    "choice",
    [
        {"top_ps": [0.0]},
        {"top_ps": [1.0], "top_ks": [61]},
        {"top_ks": [1000]},
        {"top_ks": [1]},
        {"temperatures": [0.01]},
        {"temperatures": [100.0], "top_ps": [1.0], "top_ks": [61]},
    ],
    ids=str,
)
def test_sampler_is_equal_at_the_ends_of_its_ranges(dtype: str, choice: dict[str, Any]) -> None:
    embedding, hidden = normal((61, 8), dtype), normal((3, 1, 8), dtype, 6)
    assert_same_choice(None, embedding, hidden, tiny.sampling(3, **choice))


@DTYPES
@pytest.mark.parametrize("choice", [tiny.greedy, tiny.sampling])
def test_sampler_is_equal_among_tokens_of_the_same_probability(dtype: str, choice: Any) -> None:
    embedding = normal((5, 8), dtype).repeat(60, 1)
    assert_same_choice(None, embedding, normal((4, 1, 8), dtype, 6), choice(4))


@DTYPES
@THREADS
def test_sampler_is_equal_over_a_large_vocabulary(dtype: str, threads: int) -> None:
    embedding, hidden = normal((70_001, 16), dtype), normal((3, 1, 16), dtype, 6)
    with tiny.threads(threads):
        assert_same_choice(30.0, embedding, hidden, tiny.sampling(3, top_ks=[64, 70_001, 500]))


def test_greedy_choice_on_one_row_is_a_tensor_without_dimensions() -> None:
    model = tiny.make_model(gemma_libtorch, tiny.CONFIGS["gemma3"], "float32")
    prompt = tiny.random_ids((1, 4), tiny.VOCAB_SIZE)
    assert tiny.decode(model, prompt, 0, tiny.greedy(1))["tokens.0"].shape == ()


# --- the whole model ------------------------------------------------------------------------------


CHOICES = [(1, tiny.greedy), (3, tiny.greedy), (1, tiny.sampling), (3, tiny.sampling)]


def assert_same_decoding(name: str, dtype: str, quant: bool) -> None:
    """Tokens, logits, caches and the random numbers used up are equal over a prompt and 5 steps."""
    fields = tiny.CONFIGS[name]
    want, got = (
        tiny.make_model(package, fields, dtype, quant)
        for package in (gemma_pytorch, gemma_libtorch)
    )
    for batch, choice in CHOICES:
        prompt = tiny.random_ids((batch, 7), fields["vocab_size"])
        results = []
        for model in (want, got):
            torch.manual_seed(3)
            out = tiny.decode(model, prompt, 5, choice(batch))
            results.append({**out, "rng": torch.get_rng_state()})
        tiny.assert_same(results[1], results[0])


@DTYPES
@WEIGHTS
@CONFIGS
def test_prefill_and_decoding_are_equal(dtype: str, quant: bool, name: str) -> None:
    assert_same_decoding(name, dtype, quant)


@DTYPES
@WEIGHTS
def test_prefill_and_decoding_on_two_threads_are_equal(dtype: str, quant: bool) -> None:
    with tiny.threads(2):
        assert_same_decoding("gemma2", dtype, quant)
