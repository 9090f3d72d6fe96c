"""What a Python user expects of modules beyond numbers: a container, tensors, errors, threads."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import gemma_libtorch
import pytest
import tiny
import torch
from gemma_libtorch import model as gemma_model
from gemma_libtorch.model import GemmaForCausalLM

GEMMA_3 = tiny.CONFIGS["gemma3"]
LAYERS = GEMMA_3["num_hidden_layers"]


def forward_arguments(model: Any, **changes: Any) -> dict[str, Any]:
    positions = torch.arange(3)
    mask, local_mask = tiny.make_masks(model.config, 3)
    return {
        "input_token_ids": torch.tensor([[2, 7, 9]]),
        "input_positions": positions,
        "kv_write_indices": None,
        "kv_caches": tiny.make_caches(model.config, 1, 3),
        "mask": mask,
        "output_positions": torch.tensor([2]),
        **tiny.greedy(1),
        "local_mask": local_mask,
        **changes,
    }


# --- modules as Python objects --------------------------------------------------------------------


def test_calling_a_module_is_calling_forward(model: GemmaForCausalLM) -> None:
    x = torch.randn(2, 60)
    mlp = model.model.layers[0].mlp
    tiny.assert_same(mlp(x), mlp.forward(x))
    tiny.assert_same(mlp(x=x), mlp(x))
    tiny.assert_same(model(**forward_arguments(model)), model.forward(**forward_arguments(model)))


def test_arguments_that_the_reference_swallows_are_swallowed(
    model: GemmaForCausalLM,
) -> None:
    tiny.assert_same(
        model(**forward_arguments(model), something_else=1), model(**forward_arguments(model))
    )


def test_a_wrong_number_of_arguments_is_a_type_error(model: GemmaForCausalLM) -> None:
    with pytest.raises(TypeError, match="x: torch.Tensor"):
        model.embedder()


def test_eval_train_and_to_return_the_module(model: GemmaForCausalLM) -> None:
    assert model.eval() is model and not model.training and not model.model.layers[0].training
    assert model.train() is model and model.training and model.model.norm.training
    for moved in (model.to("cpu"), model.to(torch.device("cpu")), model.cpu(), model.float()):
        assert moved is model


def test_attribute_paths_lead_to_the_same_objects(model: GemmaForCausalLM) -> None:
    weight = model.model.layers[0].self_attn.qkv_proj.weight
    assert weight is model.get_parameter("model.layers.0.self_attn.qkv_proj.weight")
    assert model.get_submodule("model.layers.0.mlp") is model.model.layers[0].mlp
    assert model.get_submodule("") is model
    assert model.get_buffer("local_freqs_cis") is model.local_freqs_cis
    assert dict(model.named_parameters())["model.norm.weight"] is model.model.norm.weight


def test_layers_are_a_sequence(model: GemmaForCausalLM) -> None:
    layers = model.model.layers
    everything = list(layers)
    assert len(layers) == len(everything) == LAYERS
    assert layers[-1] is layers[LAYERS - 1] is everything[-1]
    assert list(layers[1:3]) == everything[1:3]
    assert list(layers[::-2]) == everything[::-2]
    for index in (LAYERS, -LAYERS - 1):
        with pytest.raises(IndexError, match=f"index {index} is out of range of {LAYERS} modules"):
            layers[index]


@pytest.mark.parametrize(
    "look_up, message",
    [
        (lambda m: m.lm_head, "'GemmaForCausalLM' object has no attribute 'lm_head'"),
        (lambda m: m.get_submodule("model.layers.99.mlp"), "no submodule '99' on the way to"),
        (lambda m: m.get_parameter("model.norm.bias"), "no parameter 'model.norm.bias'"),
        (lambda m: m.get_parameter("local_freqs_cis"), "no parameter 'local_freqs_cis'"),
        (lambda m: m.get_buffer("model.norm.weight"), "no buffer 'model.norm.weight'"),
        (lambda m: m.get_parameter("nowhere.weight"), "no submodule 'nowhere'"),
        (lambda m: setattr(m, "lm_head", torch.zeros(1)), "has no attribute 'lm_head'"),
    ],
)
def test_a_name_that_is_not_there_is_an_attribute_error(
    model: GemmaForCausalLM, look_up: Any, message: str
) -> None:
    with pytest.raises(AttributeError, match=message):
        look_up(model)


def test_optional_norms_are_none_or_modules() -> None:
    layer = tiny.make_model(
        gemma_libtorch, tiny.CONFIGS["gemma2_all_global"], "float32"
    ).model.layers[0]
    assert layer.pre_feedforward_layernorm is None
    assert layer.self_attn.query_norm is None and layer.self_attn.key_norm is None
    assert isinstance(layer.post_feedforward_layernorm, gemma_model.RMSNorm)


def test_listings_agree_with_each_other(model: GemmaForCausalLM) -> None:
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    assert list(buffers) == ["local_freqs_cis", "global_freqs_cis"]
    assert list(model.state_dict()) == [*buffers, *parameters]
    assert [id(value) for value in model.parameters()] == [
        id(value) for value in parameters.values()
    ]
    assert [id(value) for value in model.buffers()] == [id(value) for value in buffers.values()]
    assert [name for name, _ in model.named_children()] == ["embedder", "model", "sampler"]
    modules = dict(model.named_modules())
    assert modules[""] is model and modules["model.layers.3.mlp"] is model.model.layers[3].mlp
    assert list(model.modules()) == list(modules.values())
    seen = []
    model.apply(seen.append)
    assert seen[-1] is model and set(map(id, seen)) == set(map(id, modules.values()))


def test_names_can_be_given_a_prefix(model: GemmaForCausalLM) -> None:
    norm = model.model.norm
    assert [name for name, _ in norm.named_parameters(prefix="a.b")] == ["a.b.weight"]
    assert list(norm.state_dict(prefix="a.b.")) == ["a.b.weight"]
    assert dict(model.named_parameters(recurse=False)) == {}


def test_a_model_prints_its_modules(model: GemmaForCausalLM) -> None:
    text = str(model)
    assert text.startswith(
        "GemmaForCausalLM(\n  (embedder): Embedding(451, 60)\n  (model): GemmaModel("
    )
    assert f"(0-{LAYERS - 1}): {LAYERS} x Gemma2DecoderLayer(" in text
    assert "(down_proj): Linear(in_features=52, out_features=60, bias=False)" in text


def test_numerics_are_exact_until_set(model: GemmaForCausalLM) -> None:
    assert model.numerics == model.model.layers[0].mlp.numerics == "exact"
    model.set_numerics("fast")
    assert model.numerics == model.model.layers[0].mlp.numerics == "fast"
    with pytest.raises(ValueError, match="'sloppy' is unknown; valid numerics: exact, fast"):
        model.set_numerics("sloppy")
    assert model.numerics == "fast"


# --- tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", tiny.DTYPES)
def test_weights_take_the_default_dtype(dtype: str) -> None:
    want = tiny.DTYPES[dtype]
    model = tiny.make_model(gemma_libtorch, GEMMA_3, dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {want}
    assert {buffer.dtype for buffer in model.buffers()} == {torch.complex64}
    with tiny.default_dtype(want):
        quantized = gemma_model.Linear(3, 4, quant=True)
    assert (quantized.weight.dtype, quantized.weight_scaler.dtype) == (torch.int8, want)


def test_casting_spares_int8_weights_and_rope_tables() -> None:
    model = tiny.make_model(gemma_libtorch, GEMMA_3, "float32", quant=True)
    assert model.bfloat16() is model
    assert model.embedder.weight.dtype == torch.int8
    assert model.embedder.weight_scaler.dtype == model.model.norm.weight.dtype == torch.bfloat16
    assert model.local_freqs_cis.dtype == torch.complex64
    assert model.to(torch.float16).model.norm.weight.dtype == torch.float16
    with pytest.raises(TypeError, match="weights cannot be cast to int8"):
        model.to(torch.int8)


def test_the_meta_device_is_a_value_error(model: GemmaForCausalLM) -> None:
    before = tiny.logits_of(model)
    for module in (model, model.model.layers):
        with pytest.raises(ValueError, match="device is meta, which would discard the weights"):
            module.to("meta")
    tiny.assert_same(tiny.logits_of(model), before)


def test_weights_need_no_gradient(model: GemmaForCausalLM) -> None:
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_writing_to_the_state_dict_changes_the_model(model: GemmaForCausalLM) -> None:
    before = tiny.logits_of(model)
    state = model.state_dict()
    assert isinstance(state, OrderedDict)
    state["model.layers.3.mlp.up_proj.weight"].zero_()
    assert not torch.equal(tiny.logits_of(model), before)


@pytest.mark.parametrize("way", ["copy_", "data", "attribute"])
def test_a_weight_can_be_replaced(model: GemmaForCausalLM, way: str) -> None:
    before, norm = tiny.logits_of(model), model.model.norm
    seen, value = norm.weight, torch.linspace(0, 1, 60)
    if way == "copy_":
        norm.weight.copy_(value)
    elif way == "data":
        norm.weight.data = value
    else:
        norm.weight = value
    assert not torch.equal(tiny.logits_of(model), before)
    assert norm.weight is seen
    tiny.assert_same(model.state_dict()["model.norm.weight"], value)


def test_a_weight_of_another_shape_is_refused(model: GemmaForCausalLM) -> None:
    before = tiny.logits_of(model)
    with pytest.raises(ValueError, match=r"'weight' is \[60\], but a tensor of \[3\] was given"):
        model.model.norm.weight = torch.zeros(3)
    tiny.assert_same(tiny.logits_of(model), before)


def test_load_state_dict_copies_or_takes_the_tensors(model: GemmaForCausalLM) -> None:
    state = tiny.make_model(gemma_libtorch, GEMMA_3, "float32").state_dict()
    name = "model.norm.weight"
    model.load_state_dict(state)
    assert model.get_parameter(name).data_ptr() != state[name].data_ptr()
    model.load_state_dict(state, assign=True)
    assert model.get_parameter(name).data_ptr() == state[name].data_ptr()


def test_load_state_dict_reports_or_refuses_names_that_do_not_fit(
    model: GemmaForCausalLM,
) -> None:
    before = tiny.logits_of(model)
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    state["lm_head.weight"] = state.pop("embedder.weight")
    with pytest.raises(
        RuntimeError, match="missing 'embedder.weight', unexpected 'lm_head.weight'"
    ):
        model.load_state_dict(state)
    tiny.assert_same(tiny.logits_of(model), before)
    keys = model.load_state_dict(state, strict=False)
    assert keys.missing_keys == ["embedder.weight"] and keys.unexpected_keys == ["lm_head.weight"]
    assert model.model.norm.weight.abs().max() == 0


def test_load_state_dict_refuses_a_shape_that_does_not_fit(
    model: GemmaForCausalLM,
) -> None:
    before = tiny.logits_of(model)
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    state["model.norm.weight"] = torch.zeros(59)
    with pytest.raises(
        RuntimeError, match=r"'model.norm.weight' is \[59\], but the model's is \[60\]"
    ):
        model.load_state_dict(state, strict=False)
    tiny.assert_same(tiny.logits_of(model), before)


# --- wrong input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: gemma_model.Linear(-3, 4, False), "Linear: in_features is -3, but a size is 0 or"),
        (lambda: gemma_model.Linear(3, -4, True), "Linear: out_features is -4"),
        (lambda: gemma_model.Embedding(-1, 4, False), "Embedding: num_embeddings is -1"),
        (lambda: gemma_model.Embedding(1, -4, True), "Embedding: embedding_dim is -4"),
        (lambda: gemma_model.RMSNorm(-60), "RMSNorm: dim is -60"),
    ],
)
def test_a_negative_size_is_a_value_error(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("id", [-1, GEMMA_3["vocab_size"], 2**40])
@pytest.mark.parametrize("quant", [False, True])
def test_a_token_id_outside_the_vocabulary_is_an_index_error(id: int, quant: bool) -> None:
    model = tiny.make_model(gemma_libtorch, GEMMA_3, "float32", quant)
    with pytest.raises(IndexError):
        model(**forward_arguments(model, input_token_ids=torch.tensor([[2, id, 9]])))


@pytest.mark.parametrize("position", [-1, 2 * GEMMA_3["max_position_embeddings"]])
def test_a_position_outside_the_rope_table_is_an_index_error(
    model: GemmaForCausalLM, position: int
) -> None:
    with pytest.raises(IndexError):
        model(**forward_arguments(model, input_positions=torch.tensor([0, 1, position])))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"top_k": 0}, "top_k is 0, but must keep at least 1 token"),
        ({"top_p": -0.5}, "top_p is -0.5, but must be a probability"),
        ({"top_p": float("nan")}, "top_p is nan"),
        ({"temperature": -1.0}, "temperature is -1, but must be 0"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"output_len": -1}, "output_len is -1"),
        ({"output_len": 1000}, "exceed max_position_embeddings, 128"),
        ({"prompts": []}, "prompts is empty"),
        ({"device": "meta"}, "device is meta"),
    ],
    ids=str,
)
def test_generate_refuses_what_cannot_be_meant(
    model: GemmaForCausalLM, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model.generate(**{"prompts": "The ferry", "device": "cpu", **arguments})


@pytest.mark.parametrize(
    "arguments",
    [{"prompts": 3}, {"prompts": [3]}, {"output_len": 2.5}, {"temperature": "hot"}],
    ids=str,
)
def test_generate_takes_no_other_types(model: GemmaForCausalLM, arguments: dict[str, Any]) -> None:
    message = "incompatible function arguments|not iterable|a text must be str, got int"
    with pytest.raises(TypeError, match=message):
        model.generate(**{"prompts": "The ferry", "device": "cpu", **arguments})


def test_generate_needs_a_tokenizer() -> None:
    model = tiny.make_model(gemma_libtorch, {**GEMMA_3, "tokenizer": None}, "float32")
    with pytest.raises(RuntimeError, match="no tokenizer; set config.tokenizer"):
        model.generate("The ferry", "cpu")


def test_a_missing_tokenizer_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.model: no such file"):
        path = str(tmp_path / "nowhere.model")
        tiny.make_model(gemma_libtorch, {**GEMMA_3, "tokenizer": path}, "float32")


# --- threads and signals --------------------------------------------------------------------------


def test_other_threads_run_while_text_is_generated(model: GemmaForCausalLM) -> None:
    running, turns = True, 0

    def count() -> None:
        nonlocal turns
        while running:
            turns += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    before = turns
    model.generate("The ferry", "cpu", output_len=100)
    during = turns - before
    running = False
    thread.join()
    assert during > 10


def test_threads_can_generate_at_the_same_time(model: GemmaForCausalLM) -> None:
    prompts = ["The ferry", "Nobody in the village", "The old clock", "We counted"]
    want = [model.generate(prompt, "cpu", output_len=10, temperature=None) for prompt in prompts]
    got = {}

    def run(prompt: str) -> None:
        got[prompt] = model.generate(prompt, "cpu", output_len=10, temperature=None)

    threads = [threading.Thread(target=run, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[prompt] for prompt in prompts] == want


LONG_GENERATION = """
import sys
sys.path.append(sys.argv[1])
import gemma_libtorch, tiny, torch

torch.set_num_threads(1)
fields = {**tiny.CONFIGS["gemma3"], "max_position_embeddings": 20_000}
model = tiny.make_model(gemma_libtorch, fields, "float32")
print("generating", flush=True)
model.generate("The ferry", "cpu", output_len=19_000)
"""


def test_ctrl_c_ends_a_generation() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_GENERATION, str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "generating\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)  # To the end of the text it is longer.
    finally:
        process.kill()
    assert errors.strip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("text", "got 'text' for a list"),
        (["text"], "got 'text' for a list"),
        (3, "got 3 for a list"),
        ([[3]], "a prompt is a list of str and PIL images, but has 3"),
        ([["text", None]], "but has None"),
    ],
)
def test_prompts_of_another_kind_are_refused(prompts: Any, message: str, tmp_path: Path) -> None:
    tokenizer = str(tiny.large_tokenizer(tmp_path / "large.model"))
    model = tiny.make_multimodal(gemma_libtorch, tokenizer=tokenizer)
    with pytest.raises(TypeError, match=message):
        model.generate(prompts, "cpu")
