"""SAELens' measure of an autoencoder, on a LensModel."""

from __future__ import annotations

import gemma_libtorch
import pytest
import tiny
import torch
from gemma_libtorch.lens import LensModel

evals = pytest.importorskip("sae_lens.evals", reason="sae_lens is not installed")
from sae_lens import SAE, StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.activation_scaler import ActivationScaler

POINTS = ("blocks.1.hook_resid_post", "blocks.1.attn.hook_z", "blocks.1.hook_mlp_out")


def make_sae(lens: LensModel, point: str) -> SAE:
    width = lens.cfg.n_heads * lens.cfg.d_head if point.endswith("hook_z") else lens.cfg.d_model
    sae = StandardSAE(
        StandardSAEConfig(d_in=width, d_sae=3 * width, metadata=SAEMetadata(hook_name=point))
    )
    return tiny.randomize(sae).eval()


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", ["gemma1_mqa", "gemma2", "gemma3"])
@torch.no_grad
def test_reconstruction_loss_is_that_of_the_decoded_value(name: str, point: str) -> None:
    lens = LensModel(tiny.make_model(gemma_libtorch, tiny.CONFIGS[name], "float32"))
    sae = make_sae(lens, point)
    tokens = tiny.random_ids((2, 9), lens.cfg.d_vocab)
    got = evals.get_recons_loss(
        sae, lens, ActivationScaler(), tokens, compute_kl=True, compute_ce_loss=True
    )
    assert torch.equal(
        got["ce_loss_without_sae"], lens(tokens, return_type="loss", loss_per_token=True)
    )
    # By hand: the value as SAELens keeps it, through the autoencoder, in the value's place.
    layer = int(point.split(".")[1])
    _, cache = lens.run_with_cache(tokens, names_filter=[point], stop_at_layer=layer + 1)
    value = cache[point]
    flat = value.flatten(2)
    hidden = torch.relu((flat - sae.b_dec) @ sae.W_enc + sae.b_enc)
    decoded = (hidden @ sae.W_dec + sae.b_dec).reshape(value.shape)
    by_hand = lens.run_with_hooks(
        tokens,
        return_type="loss",
        loss_per_token=True,
        fwd_hooks=[(point, lambda _, hook: decoded)],
    )
    torch.testing.assert_close(got["ce_loss_with_sae"], by_hand, rtol=1e-4, atol=1e-4)
    assert (got["kl_div_with_sae"] > 0).all()
