"""Fast numerics: the same model, the same texts, and the operations one by one."""

from __future__ import annotations

from pathlib import Path

import gemma_libtorch
import pytest
import tiny
import torch
from gemma_libtorch.model import GemmaForCausalLM

ROOT = Path(__file__).resolve().parents[2]
CKPT = ROOT / "checkpoints" / "gemma-3-270m" / "model.ckpt"
PROMPTS = ["The capital of France is", "Once upon a time", "1, 1, 2, 3, 5, 8,"]


def real_model(dtype: str) -> GemmaForCausalLM:
    config = gemma_libtorch.config.get_model_config("270m", dtype)
    config.tokenizer = str(CKPT.with_name("tokenizer.model"))
    with tiny.default_dtype(tiny.DTYPES[dtype]):
        model = GemmaForCausalLM(config).eval()
    model.load_weights(CKPT)
    return model


needs_270m = pytest.mark.skipif(
    not CKPT.exists(), reason="no checkpoints/gemma-3-270m: scripts/fetch_gemma_3_270m.py makes it"
)


@needs_270m
def test_the_270m_says_the_same_with_fast_numerics() -> None:
    """bfloat16 weights and fast numerics against the reference's float32 run."""
    exact, fast = real_model("float32"), real_model("bfloat16")
    fast.set_numerics("fast")
    for prompt in PROMPTS:
        want = exact.generate(prompt, "cpu", output_len=24, temperature=None)
        assert fast.generate(prompt, "cpu", output_len=24, temperature=None) == want
    for choice in ({"temperature": None}, {"temperature": 1.0}):
        torch.manual_seed(5)
        want = exact.generate(PROMPTS, "cpu", output_len=12, **choice)
        torch.manual_seed(5)
        assert fast.generate(PROMPTS, "cpu", output_len=12, **choice) == want


@needs_270m
def test_tokens_are_told_and_stop_ids_end_a_text() -> None:
    model = real_model("bfloat16")
    for numerics in ("fast", "exact"):
        model.set_numerics(numerics)
        told: list[tuple[int, int]] = []
        text = model.generate(
            PROMPTS[0],
            "cpu",
            output_len=8,
            temperature=None,
            on_token=lambda row, token: told.append((row, token)),
        )
        assert {row for row, _ in told} == {0}
        tokens = [token for _, token in told]
        assert model.tokenizer.decode(tokens) == text
        ended = model.generate(
            PROMPTS[0], "cpu", output_len=8, temperature=None, stop_ids=[tokens[3]]
        )
        assert ended == model.tokenizer.decode(tokens[: tokens.index(tokens[3])])


def test_what_a_callback_raises_ends_the_generation() -> None:
    if not CKPT.exists():
        pytest.skip("no checkpoints/gemma-3-270m: scripts/fetch_gemma_3_270m.py makes it")
    model = real_model("bfloat16")
    model.set_numerics("fast")

    def stop(row: int, token: int) -> None:
        raise LookupError(f"enough of {row}")

    with pytest.raises(LookupError, match="enough of 0"):
        model.generate("a", "cpu", output_len=5, on_token=stop)


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_operations_are_registered_and_agree_with_torch(dtype: torch.dtype, rows: int) -> None:
    generator = torch.Generator().manual_seed(1)

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator)

    x, weight, norm = random(rows, 96), random(50, 96).to(dtype), random(96).to(dtype)
    up, down = random(50, 96).to(dtype), random(96, 50).to(dtype)

    def wide(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x.double() @ weight.double().T

    def assert_near(got: torch.Tensor, want: torch.Tensor) -> None:
        """Within float32's rounding of the largest number; want is float64."""
        assert got.dtype == torch.float32
        assert (got - want).abs().max() <= 2e-6 * want.abs().max()

    ops = torch.ops.gemma
    assert_near(ops.linear(x, weight), wide(x, weight))
    gated = torch.nn.functional.gelu(wide(x, weight), approximate="tanh") * wide(x, up)
    assert_near(ops.gated_mlp(x, weight, None, up, None, down, None), wide(gated, down))
    rms = x.double().square().mean(-1, keepdim=True).add(1e-6).sqrt()
    normed = x.double() / rms * (1 + norm.double())
    assert_near(ops.rms_norm(x, norm), normed)
    assert_near(ops.add_rms_norm(x, x, norm), x + normed)
    ids = torch.randint(50, (rows,), generator=generator)
    assert torch.equal(ops.embedding(ids, weight), weight[ids].float())
    token, logits = ops.sample(
        x, weight, None, None, 30.0, None, torch.ones(rows), torch.ones(rows, dtype=torch.long)
    )
    assert_near(logits, torch.tanh(wide(x, weight) / 30) * 30)
    assert torch.equal(token.reshape(-1), logits.argmax(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vision_operators_are_near_float64(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator).to(dtype)

    def wide(*tensors: torch.Tensor) -> list[torch.Tensor]:
        return [tensor.double() for tensor in tensors]

    def assert_near(got: torch.Tensor, want: torch.Tensor) -> None:
        """Within float32's rounding of the largest number; want is float64."""
        assert got.dtype == torch.float32
        assert (got - want).abs().max() <= 4e-6 * want.abs().max()

    ops, torch_ops = torch.ops.gemma, torch.nn.functional
    x = torch.randn((2, 16, 24), generator=generator)
    up, up_bias, down, down_bias = random(50, 24), random(50), random(24, 50), random(24)
    assert_near(ops.biased_linear(x, up, up_bias), torch_ops.linear(*wide(x, up, up_bias)))
    norm, bias = random(24), random(24)
    normed = torch_ops.layer_norm(x.double(), [24], *wide(norm, bias), eps=1e-6)
    assert_near(ops.layer_norm(x, norm, bias), normed)
    hidden = torch_ops.gelu(torch_ops.linear(*wide(x, up, up_bias)), approximate="tanh")
    want = torch_ops.linear(hidden, *wide(down, down_bias))
    assert_near(ops.gelu_mlp(x, up, up_bias, down, down_bias), want)
    heads = [value.unflatten(2, (3, 8)).transpose(1, 2) for value in wide(x, x + 1, x - 1)]
    attended = torch_ops.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    assert_near(ops.attend_all(x, x + 1, x - 1, 3), attended)
    pixels = torch.randn((2, 3, 17, 12), generator=generator)
    weight, bias = random(24, 3, 4, 4), random(24)
    patches = torch_ops.conv2d(*wide(pixels, weight, bias), stride=4).flatten(2).transpose(1, 2)
    assert_near(ops.embed_patches(pixels, weight, bias), patches)
    square = x.double().transpose(1, 2).unflatten(2, (4, 4))
    assert_near(ops.pool_patches(x), square.mean((2, 3)).unsqueeze(1))


def test_fast_numerics_refuse_another_device() -> None:
    linear = gemma_libtorch.model.Linear(2, 3, False)
    linear.set_numerics("fast")
    with pytest.raises(RuntimeError, match="a tensor is on meta, but they compute on the CPU only"):
        linear(torch.empty(1, 2, device="meta"))
