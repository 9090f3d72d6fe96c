"""VaultGemma: the layers of Gemma 1 under the names and with the fields of Gemma 2, against
transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import test_transformers as oracle
import tiny
import torch

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIZES = {
    "vocab_size": 451,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 10,
    "max_position_embeddings": 64,
}
# The published model has no caps; the class's defaults, which a config.json leaves out, are some.
KINDS = {
    "published": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    "defaults": {},
    "others": {
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 2.0,
        "query_pre_attn_scalar": 77,
        "num_key_value_heads": 2,
    },
}
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)


def vaultgemma(kind: str, **changes: Any) -> Any:
    fields = SIZES | {"layer_types": ["full_attention"] * 3} | KINDS[kind] | changes
    torch.manual_seed(1)
    model = transformers.VaultGemmaForCausalLM(
        transformers.VaultGemmaConfig(**fields, attn_implementation="eager")
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # Norms are 0 in a new model.
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def loaded(path: Path) -> Any:
    config = gemma_libtorch.config.GemmaConfig.from_pretrained(path)
    config.tokenizer = str(tiny.TOKENIZER)
    model = gemma_libtorch.model.GemmaForCausalLM(config)
    report = model.load_weights(path)
    assert report.missing == report.unexpected == []
    return model


def assert_same_logits(ours: Any, theirs: Any) -> None:
    ids = tiny.random_ids((2, oracle.PROMPT_LEN), SIZES["vocab_size"])
    with torch.no_grad():
        oracle.assert_close(oracle.our_logits(ours, ids), theirs(ids).logits)


@ALL_KINDS
def test_a_directory_gives_the_logits_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs = vaultgemma(kind)
    theirs.save_pretrained(tmp_path)
    ours = loaded(tmp_path)
    assert ours.config.architecture.name == "GEMMA_1"
    assert ours.config.attn_logit_softcapping == theirs.config.attn_logit_softcapping
    assert_same_logits(ours, theirs)


@ALL_KINDS
def test_a_model_of_transformers_gives_its_logits(kind: str) -> None:
    theirs = vaultgemma(kind)
    assert_same_logits(gemma_libtorch.model.GemmaForCausalLM.from_transformers(theirs), theirs)


def test_fast_numerics_continue_a_prompt_as_transformers_does(tmp_path: Path) -> None:
    theirs = vaultgemma("others")
    theirs.save_pretrained(tmp_path)
    ours = loaded(tmp_path)
    ours.set_numerics("fast")
    ids = tiny.random_ids((1, 5), SIZES["vocab_size"])
    want = theirs.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)
    request = gemma_libtorch.engine.Request(ids[0].tolist(), max_tokens=8, temperature=0.0)
    (answer,) = gemma_libtorch.engine.Engine(ours).generate([request])
    got = [token.id for token in answer.tokens]
    assert len(got) == 8 and got == want[0, 5:].tolist()


def test_a_window_is_refused(tmp_path: Path) -> None:
    vaultgemma("published", layer_types=None).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="config.json.*layer_types.*is not full_attention"):
        gemma_libtorch.config.GemmaConfig.from_pretrained(tmp_path)
