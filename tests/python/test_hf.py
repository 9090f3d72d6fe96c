"""Hugging Face directories: what transformers saves is read, and what is written transformers reads."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import test_transformers as oracle
import tiny
import torch
from test_convert import PROGRAM, convert

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="no safetensors")
load_file, save_file = safetensors.load_file, safetensors.save_file

NAMES = pytest.mark.parametrize("name", oracle.CONFIGS)


def gemma(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=True
    )


def saved(name: str, directory: Path, **how: Any) -> Any:
    """A random model of transformers, saved by it."""
    ours = tiny.make_model(gemma_libtorch, oracle.CONFIGS[name], "float32")
    theirs = oracle.hf_model(ours, oracle.CONFIGS[name])
    theirs.save_pretrained(directory, **how)
    return theirs


def loaded(path: Path) -> Any:
    config = gemma_libtorch.config.GemmaConfig.from_pretrained(path)
    model = gemma_libtorch.model.GemmaForCausalLM(config)
    report = model.load_weights(path)
    assert report.missing == report.unexpected == []
    return model


def assert_same_logits(ours: Any, theirs: Any) -> None:
    ids = tiny.random_ids((2, oracle.PROMPT_LEN), ours.config.vocab_size)
    oracle.assert_close(oracle.our_logits(ours, ids), theirs(ids).logits)


# --- reading --------------------------------------------------------------------------------------


@NAMES
def test_what_transformers_saves_gives_its_logits(name: str, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert_same_logits(loaded(tmp_path), theirs)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "base_model.model."])
@pytest.mark.parametrize("name", ["gemma3", "gemma2"])
def test_a_prefix_before_all_names_does_not_matter(name: str, prefix: str, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({prefix + key: tensor for key, tensor in load_file(path).items()}, path)
    assert_same_logits(loaded(tmp_path), theirs)


def test_float64_is_a_model_in_float32(tmp_path: Path) -> None:
    theirs = saved("gemma3", tmp_path / "in")
    path = tmp_path / "in" / "model.safetensors"
    save_file({key: tensor.double() for key, tensor in load_file(path).items()}, path)
    gemma("convert", tmp_path / "in", tmp_path / "out", "--to", "hf")
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {
        torch.float32
    }
    for directory in (tmp_path / "in", tmp_path / "out"):
        assert gemma_libtorch.config.GemmaConfig.from_pretrained(path.parent).dtype == "float32"
        assert_same_logits(loaded(directory), theirs)


def test_several_shards_are_one_model(tmp_path: Path) -> None:
    theirs = saved("gemma3", tmp_path, max_shard_size="100KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert_same_logits(loaded(tmp_path), theirs)


def test_pytorch_model_bin_is_read_with_its_second_embedding(tmp_path: Path) -> None:
    theirs = saved("gemma2", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    assert "lm_head.weight" in theirs.state_dict()
    assert_same_logits(loaded(tmp_path), theirs)


def multimodal() -> Any:
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"intermediate_size": 20, "image_size": 28, "patch_size": 14}
    text = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8}
    text |= {"num_key_value_heads": 1, "intermediate_size": 24, "vocab_size": 40}
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4
    )
    return transformers.Gemma3ForConditionalGeneration(config)


OLD_PREFIXES = {
    "model.language_model.": "language_model.model.",
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}


@pytest.mark.parametrize("layout", ["saved", "new", "old"])
def test_multimodal_tensors_get_the_references_names(layout: str, tmp_path: Path) -> None:
    theirs = multimodal()
    state = theirs.state_dict()
    if layout == "saved":
        theirs.save_pretrained(tmp_path)
    else:
        named = state
        for new, old in OLD_PREFIXES.items() if layout == "old" else ():
            named = {name.replace(new, old): value for name, value in named.items()}
        torch.save(named, tmp_path / "pytorch_model.bin")
    out = tmp_path / "model.ckpt"
    convert(tmp_path, out)
    got = torch.load(out, weights_only=True)["model_state_dict"]
    text, vision = "model.language_model.", "model.vision_tower."
    layer, block = "layers.1.", "encoder.layers.0."
    qkv = [state[f"{text}{layer}self_attn.{x}_proj.weight"] for x in "qkv"]
    projector = "model.multi_modal_projector."
    want = {
        "text_token_embedder.weight": state[f"{text}embed_tokens.weight"],
        "model.layers.1.self_attn.qkv_proj.weight": torch.cat(qkv),
        "model.layers.1.self_attn.query_norm.weight": state[
            f"{text}{layer}self_attn.q_norm.weight"
        ],
        "model.norm.weight": state[f"{text}norm.weight"],
        "siglip_vision_model.patch_embedding.bias": state[
            f"{vision}embeddings.patch_embedding.bias"
        ],
        "siglip_vision_model.position_embedding.weight": state[
            f"{vision}embeddings.position_embedding.weight"
        ],
        "siglip_vision_model.encoder_blocks.0.self_attn.o_proj.weight": state[
            f"{vision}{block}self_attn.out_proj.weight"
        ],
        "siglip_vision_model.encoder_blocks.0.mlp.fc1.bias": state[f"{vision}{block}mlp.fc1.bias"],
        "siglip_vision_model.final_norm.weight": state[f"{vision}post_layernorm.weight"],
        "mm_soft_embedding_norm.weight": state[f"{projector}mm_soft_emb_norm.weight"],
        "mm_input_projection.weight": state[f"{projector}mm_input_projection_weight"].t(),
    }
    tiny.assert_same({name: got[name] for name in want}, want)
    assert not [name for name in got if "head" in name or "tower" in name]


# --- writing --------------------------------------------------------------------------------------


def ckpt_of(name: str, directory: Path, dtype: str = "float32") -> tuple[Any, Path]:
    directory.mkdir(exist_ok=True)
    model = tiny.make_model(gemma_libtorch, oracle.CONFIGS[name], dtype)
    state = {key: value.detach() for key, value in model.named_parameters()}
    torch.save({"model_state_dict": state}, directory / "model.ckpt")
    return model, directory / "model.ckpt"


def hf_directory(name: str, tmp_path: Path, dtype: str = "float32") -> tuple[Any, Path]:
    """A model and a directory that `gemma convert` wrote of it.

    Its variant is in no table, so it takes config.json beside the .bin to say what it is.
    """
    model, _ = ckpt_of(name, tmp_path / "in", dtype)
    state = {key: value.clone() for key, value in model.to_transformers_state_dict().items()}
    torch.save(state, tmp_path / "in" / "pytorch_model.bin")
    (tmp_path / "in" / "config.json").write_text(model.config.to_hf())
    (tmp_path / "in" / "tokenizer.model").write_bytes(tiny.TOKENIZER.read_bytes())
    convert(tmp_path / "in", tmp_path / "hf", "--to", "hf")
    return model, tmp_path / "hf"


@NAMES
def test_transformers_reads_what_is_written(name: str, tmp_path: Path) -> None:
    ours, path = hf_directory(name, tmp_path)
    assert sorted(os.listdir(path)) == ["config.json", "model.safetensors", "tokenizer.model"]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    assert type(theirs) is oracle.HF_CLASSES[oracle.CONFIGS[name]["architecture"]][1]
    assert_same_logits(ours, theirs.eval())


@pytest.mark.parametrize("shard", ["50GB", "100KB"], ids=["whole", "sharded"])
def test_a_multimodal_directory_there_and_back(shard: str, tmp_path: Path) -> None:
    fields = oracle.MULTIMODAL
    source = tiny.make_multimodal(gemma_libtorch, **fields)
    theirs = oracle.hf_multimodal_model(source, fields)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=shard)
    config = gemma_libtorch.config.GemmaConfig.from_pretrained(tmp_path / "theirs")
    config.tokenizer = str(tiny.TOKENIZER)
    ours = gemma_libtorch.gemma3_model.Gemma3ForMultimodalLM(config)
    report = ours.load_weights(tmp_path / "theirs")
    assert report.missing == report.unexpected == []
    tiny.assert_same(dict(ours.named_parameters()), dict(source.named_parameters()))
    oracle.assert_same_logits_after_images(ours, theirs, fields)

    convert(tmp_path / "theirs", tmp_path / "ours", "--to", "hf")
    back = transformers.AutoModelForImageTextToText.from_pretrained(
        tmp_path / "ours", attn_implementation="eager"
    )
    back.config.image_token_id = 0  # Written is that of the published models.
    oracle.assert_same_logits_after_images(ours, back.eval(), fields)


@pytest.mark.parametrize("dtype", tiny.DTYPES)
def test_there_and_back_every_bit_is_the_same(dtype: str, tmp_path: Path) -> None:
    model, path = hf_directory("gemma3", tmp_path, dtype)
    convert(path, tmp_path / "back.ckpt")
    back = torch.load(tmp_path / "back.ckpt", weights_only=True)["model_state_dict"]
    tiny.assert_same(back, dict(model.named_parameters()))


@NAMES
def test_a_config_there_and_back_is_the_same(name: str, tmp_path: Path) -> None:
    fields = oracle.CONFIGS[name]
    config = tiny.make_config(gemma_libtorch, fields, dtype="float32", tokenizer=None)
    (tmp_path / "config.json").write_text(config.to_hf())
    back = gemma_libtorch.config.GemmaConfig.from_pretrained(tmp_path)
    layers = range(config.num_hidden_layers)

    def types(of: Any) -> list[Any]:
        listed = of.attn_types or [gemma_libtorch.config.AttentionType.GLOBAL]
        return [listed[i % len(listed)] for i in layers]

    assert types(back) == types(config)
    back.attn_types = config.attn_types
    config.query_pre_attn_scalar = back.query_pre_attn_scalar  # head_dim is written out.
    assert back == config


@pytest.mark.parametrize("variant", gemma_libtorch.config.model_variants())
def test_configs_of_the_published_variants_survive(variant: str, tmp_path: Path) -> None:
    config = gemma_libtorch.config.get_model_config(variant)
    config.tokenizer = None
    (tmp_path / "config.json").write_text(config.to_hf())
    assert gemma_libtorch.config.GemmaConfig.from_pretrained(tmp_path) == config


def test_a_directory_is_replaced_only_by_force_and_only_a_model(tmp_path: Path) -> None:
    _, path = hf_directory("gemma3", tmp_path)
    before = {name: (path / name).read_bytes() for name in os.listdir(path)}
    source = tmp_path / "in"
    refused = convert(source, path, "--to", "hf", check=False)
    assert refused.returncode == 1 and "is there already" in refused.stderr
    (path / "old").write_text("")
    convert(source, path, "--to", "hf", "--force")
    assert {name: (path / name).read_bytes() for name in os.listdir(path)} == before
    home = tmp_path / "home"
    home.mkdir()
    (home / "precious").write_text("letters")
    refused = convert(source, home, "--to", "hf", "--force", check=False)
    assert refused.returncode == 1 and "is a folder without config.json" in refused.stderr
    assert os.listdir(home) == ["precious"]
    assert not list(tmp_path.glob("*.part-*"))


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path) -> None:
    hf_directory("gemma3", tmp_path)
    for arguments in (["--quant", "int8"], ["--variant", "2b"]):
        convert(tmp_path / "in", tmp_path / "out", "--to", "hf", *arguments, check=False)
    (tmp_path / "in" / "tokenizer.model").unlink()
    (tmp_path / "in" / "tokenizer.model").mkdir()
    failed = convert(tmp_path / "in", tmp_path / "out", "--to", "hf", check=False)
    assert failed.returncode == 1
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("*.part-*"))


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "disk full"])
@pytest.mark.parametrize("to", ["hf", "ckpt"])
def test_a_conversion_that_stops_midway_leaves_nothing_under_the_name(
    tmp_path: Path, to: str, killed: bool
) -> None:
    _, path = hf_directory("gemma3", tmp_path)
    out = tmp_path / "new" / "model.ckpt"
    out.parent.mkdir()
    stopped = subprocess.run(
        [PROGRAM, "convert", path, out, "--to", to],
        capture_output=True,
        text=True,
        check=False,
        # Past so many bytes the process gets a signal, or an error where that is ignored.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        restore_signals=killed,
    )
    assert stopped.returncode == (-signal.SIGXFSZ if killed else 1)
    assert not out.exists()
    if not killed:
        assert "cannot be written: File too large" in stopped.stderr
        assert os.listdir(out.parent) == []


def test_a_ckpt_says_what_model_it_is(tmp_path: Path) -> None:
    """A text part as llama.cpp has them, of a size that is no variant's, with scaled positions."""
    _, source = hf_directory("gemma3_scaled", tmp_path)
    path = tmp_path / "out" / "model.ckpt"
    path.parent.mkdir()
    for quant in ((), ("--quant", "int8"), ("--quant", "int8", "--dtype", "bfloat16")):
        convert(source, path, *quant, "--force")
        config = gemma_libtorch.config.GemmaConfig.from_pretrained(path)
        want = gemma_libtorch.config.GemmaConfig.from_pretrained(source)
        want.tokenizer = str(path.with_name("tokenizer.model"))
        want.quant = bool(quant)
        want.dtype = "bfloat16" if "bfloat16" in quant else "float32"
        assert config == want
        assert f"rope_scaling_factor        {want.rope_scaling_factor}" in gemma("info", path).stdout
        gemma("run", "--ckpt", path, "--prompt", "Hi", "--output_len", "3", "--temperature", "0")
    again = tmp_path / "again.ckpt"  # From a .ckpt, which has no config.json beside it.
    convert(path, again)
    assert torch.load(again, weights_only=True)["config.json"] == torch.load(
        path, weights_only=True
    )["config.json"]


# --- without files --------------------------------------------------------------------------------


@NAMES
def test_a_model_of_transformers_becomes_ours_and_back(name: str) -> None:
    source = tiny.make_model(gemma_libtorch, oracle.CONFIGS[name], "float32")
    theirs = oracle.hf_model(source, oracle.CONFIGS[name])
    ours = gemma_libtorch.model.GemmaForCausalLM.from_transformers(theirs)
    tiny.assert_same(dict(ours.named_parameters()), dict(source.named_parameters()))
    assert_same_logits(ours, theirs)
    assert ours.embedder.weight.data_ptr() == theirs.model.embed_tokens.weight.data_ptr()
    state = ours.to_transformers_state_dict()
    tiny.assert_same(state, {key: theirs.state_dict()[key] for key in state})
    assert theirs.load_state_dict(state).missing_keys == []


def test_a_multimodal_model_of_transformers_becomes_ours_and_back() -> None:
    fields = oracle.MULTIMODAL
    source = tiny.make_multimodal(gemma_libtorch, **fields)
    theirs = oracle.hf_multimodal_model(source, fields)
    multimodal_lm = gemma_libtorch.gemma3_model.Gemma3ForMultimodalLM
    ours = multimodal_lm.from_transformers(theirs, str(tiny.TOKENIZER))
    tiny.assert_same(dict(ours.named_parameters()), dict(source.named_parameters()))
    oracle.assert_same_logits_after_images(ours, theirs, fields)
    shared = theirs.model.language_model.embed_tokens.weight
    assert ours.text_token_embedder.weight.data_ptr() == shared.data_ptr()
    state = ours.to_transformers_state_dict(theirs)
    tiny.assert_same(state, {key: theirs.state_dict()[key] for key in state})
    assert theirs.load_state_dict(state).missing_keys == []


def test_from_transformers_names_the_class_for_the_other_kind_of_model() -> None:
    text_lm = gemma_libtorch.model.GemmaForCausalLM
    multimodal_lm = gemma_libtorch.gemma3_model.Gemma3ForMultimodalLM
    with pytest.raises(ValueError, match=r"use Gemma3ForMultimodalLM\.from_transformers"):
        text_lm.from_transformers(multimodal())
    source = tiny.make_model(gemma_libtorch, oracle.CONFIGS["gemma3"], "float32")
    theirs = oracle.hf_model(source, oracle.CONFIGS["gemma3"])
    with pytest.raises(ValueError, match=r"use GemmaForCausalLM\.from_transformers"):
        multimodal_lm.from_transformers(theirs)


def test_a_head_that_is_not_the_embedding_is_refused(tmp_path: Path) -> None:
    theirs = saved("gemma3", tmp_path)
    state = dict(theirs.state_dict())
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(RuntimeError, match=r"pytorch_model.bin: tensor 'lm_head.weight' is not"):
        loaded(tmp_path)
    theirs.lm_head.weight = torch.nn.Parameter(state["lm_head.weight"])
    with pytest.raises(ValueError, match=r"'lm_head.weight' is not the embedding"):
        gemma_libtorch.model.GemmaForCausalLM.from_transformers(theirs)


# --- TransformerLens ------------------------------------------------------------------------------


def test_transformer_lens_gets_its_names_and_shapes(tmp_path: Path) -> None:
    model, path = hf_directory("gemma3", tmp_path)
    convert(path, tmp_path / "lens.safetensors", "--to", "transformer_lens")
    got = load_file(tmp_path / "lens.safetensors")
    config = model.config
    heads, keys, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    hidden, inner, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    ours = dict(model.named_parameters())
    qkv = ours["model.layers.3.self_attn.qkv_proj.weight"]
    output = ours["model.layers.3.self_attn.o_proj.weight"]
    shapes = {
        "attn.W_Q": (heads, hidden, dim), "attn._W_K": (keys, hidden, dim),
        "attn._W_V": (keys, hidden, dim), "attn.W_O": (heads, dim, hidden),
        "attn.b_Q": (heads, dim), "attn._b_K": (keys, dim), "attn._b_V": (keys, dim),
        "attn.b_O": (hidden,), "mlp.W_gate": (hidden, inner), "mlp.W_in": (hidden, inner),
        "mlp.W_out": (inner, hidden), "mlp.b_in": (inner,), "mlp.b_out": (hidden,),
        "ln1.w": (hidden,), "ln1_post.w": (hidden,), "ln2.w": (hidden,), "ln2_post.w": (hidden,),
        "attn.q_norm.w": (dim,), "attn.k_norm.w": (dim,),
    }  # fmt: skip
    block = "blocks.3."
    assert {
        k.removeprefix(block): tuple(v.shape) for k, v in got.items() if k.startswith(block)
    } == shapes
    assert tuple(got["unembed.W_U"].shape) == (hidden, vocab)
    tiny.assert_same(got["embed.W_E"], ours["embedder.weight"] * hidden**0.5)
    for i in range(heads):  # Head by head: rows of the queries, columns of the output.
        rows = slice(i * dim, (i + 1) * dim)
        tiny.assert_same(got[f"{block}attn.W_Q"][i], qkv[rows].T)
        tiny.assert_same(got[f"{block}attn.W_O"][i], output[:, rows].T)
    tiny.assert_same(got[f"{block}attn._W_V"][0], qkv[-dim:].T)
    tiny.assert_same(got[f"{block}ln1.w"], 1 + ours["model.layers.3.input_layernorm.weight"])


# --- the program ----------------------------------------------------------------------------------


def test_the_program_runs_a_directory(tmp_path: Path) -> None:
    _, path = hf_directory("gemma3", tmp_path)
    shown = gemma("info", path).stdout
    assert "(Hugging Face's names)" in shown and "num_hidden_layers          7" in shown
    arguments = ("run", "--ckpt", path, "--prompt", "Hi", "--output_len", "3", "--temperature", "0")
    assert gemma(*arguments).returncode == 0
