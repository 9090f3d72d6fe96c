"""PaliGemma against transformers: the same logits from the same weights, and the same answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gemma_libtorch
import numpy as np
import pytest
import tiny
import tiny_paligemma
import torch
from gemma_libtorch import paligemma
from gemma_libtorch.tokenizer import Tokenizer
from PIL import Image
from pictures import picture
from test_program import output_of, run

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

NAMES = list(tiny_paligemma.CONFIGS)
TOLERANCE = 1e-5  # Relative to the largest logit: in float32 the two only sum in another order.


def assert_close(got: torch.Tensor, want: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance * want.abs().max().item())


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def theirs(name: str) -> Any:
    return tiny_paligemma.make_theirs(transformers, tiny_paligemma.CONFIGS[name])


@pytest.fixture
def ours(theirs: Any) -> Any:
    return paligemma.PaliGemmaForConditionalGeneration.from_transformers(
        theirs, str(tiny.TOKENIZER)
    )


@pytest.fixture
def folder(theirs: Any, tmp_path: Path) -> Path:
    return tiny_paligemma.save(theirs, tmp_path / "hf")


# --- logits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("numerics", ["exact", "fast"])
@pytest.mark.parametrize(("prefix", "suffix"), [(1, 0), (9, 0), (1, 1), (9, 12)])
def test_logits_are_those_of_transformers(
    name: str, theirs: Any, ours: Any, prefix: int, suffix: int, numerics: str
) -> None:
    inputs = tiny_paligemma.prompt(name, prefix, suffix)
    ours.set_numerics(numerics)
    assert_close(ours(**inputs), theirs(**inputs).logits)


def test_images_are_encoded_as_by_transformers(name: str, theirs: Any, ours: Any) -> None:
    pixels = torch.cat([tiny_paligemma.prompt(name, 1, seed=s)["pixel_values"] for s in (1, 2, 3)])
    want = theirs.model.get_image_features(pixels).pooler_output
    assert_close(ours.encode_images(pixels), want)


def test_rows_of_a_batch_have_their_own_images(name: str, theirs: Any, ours: Any) -> None:
    rows = [tiny_paligemma.prompt(name, 6, 3, seed=seed) for seed in (1, 2, 3)]
    batch = {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
    got = ours(**batch)
    assert_close(got, theirs(**batch).logits)
    for row, inputs in zip(got, rows, strict=True):
        assert_close(row[None], ours(**inputs))


def test_without_an_image_the_prefix_is_text(name: str, theirs: Any, ours: Any) -> None:
    ids = tiny.random_ids((2, 11), 70)
    types = torch.zeros_like(ids)
    assert_close(ours(ids), theirs(input_ids=ids, token_type_ids=types).logits)


def test_what_follows_the_prefix_is_not_seen_by_it(name: str, ours: Any) -> None:
    one, other = (tiny_paligemma.prompt(name, 5, 4) for _ in range(2))
    other["input_ids"][:, -1] += 1
    one, other = ours(**one), ours(**other)
    tiny.assert_same(one[:, :-1], other[:, :-1])
    assert not torch.equal(one[:, -1], other[:, -1])


def test_the_prefix_sees_its_end_farther_than_a_window(name: str, ours: Any) -> None:
    one, other = (tiny_paligemma.prompt(name, 9) for _ in range(2))
    other["input_ids"][:, -1] += 1
    assert not torch.equal(ours(**one)[:, 0], ours(**other)[:, 0])


def test_bfloat16_weights_are_near_float32_ones(name: str, theirs: Any) -> None:
    half = paligemma.PaliGemmaForConditionalGeneration.from_transformers(
        theirs.to(torch.bfloat16), str(tiny.TOKENIZER)
    )
    inputs = tiny_paligemma.prompt(name, 7, 5)
    want = theirs.float()(**inputs).logits
    half.set_numerics("fast")
    assert_close(half(**inputs).float(), want, tolerance=0.02)  # Between layers is bfloat16.
    half.set_numerics("exact")
    assert_close(half(**inputs).float(), want, tolerance=0.1)


def test_wrong_inputs_are_errors(name: str, ours: Any) -> None:
    inputs = tiny_paligemma.prompt(name, 3, 1)
    with pytest.raises(ValueError, match="the images are 0 tokens, but input_ids has 16 places"):
        ours(inputs["input_ids"])
    with pytest.raises(ValueError, match="a 0 behind a 1"):
        ours(**{**inputs, "token_type_ids": 1 - inputs["token_type_ids"]})
    with pytest.raises(ValueError, match=r"pixel_values must be \[N, 3, 16, 16\]"):
        ours(**{**inputs, "pixel_values": inputs["pixel_values"][..., :-1]})


# --- generate -------------------------------------------------------------------------------------


def their_answer(theirs: Any, ours: Any, text: str, image: Image.Image | None, steps: int) -> str:
    """Greedily, with the whole text through transformers for each token."""
    tokenizer, config = ours.tokenizer, theirs.config
    count = tiny_paligemma.IMAGE_TOKENS if image is not None else 0
    ids = [config.image_token_index] * count + tokenizer.encode(text + "\n")
    prefix = len(ids)
    inputs: dict[str, torch.Tensor] = {}
    if image is not None:
        size = tiny_paligemma.IMAGE_SIZE
        inputs["pixel_values"] = paligemma.paligemma_pixel_values(image, size)[None]
    while len(ids) < prefix + steps:
        types = [0] * prefix + [1] * (len(ids) - prefix)
        inputs |= {"input_ids": torch.tensor([ids]), "token_type_ids": torch.tensor([types])}
        ids.append(int(theirs(**inputs).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_id:
            ids.pop()
            break
    return tokenizer.decode(ids[prefix:])


TEXTS = ["detect cat", "What is in this picture, and who took it?", "a"]


@pytest.fixture
def images() -> list[Image.Image]:
    return [picture(40, 30), picture(9, 61), picture(200, 100)]


@pytest.mark.parametrize("numerics", ["exact", "fast"])
def test_answers_are_those_of_transformers(
    theirs: Any, ours: Any, images: list[Image.Image], numerics: str
) -> None:
    ours.set_numerics(numerics)
    want = [their_answer(theirs, ours, t, i, 12) for t, i in zip(TEXTS, images, strict=True)]
    assert len(set(want)) == len(want), "too much alike to tell anything"
    assert ours.generate(TEXTS, images, 12) == want
    assert [ours.generate(t, i, 12) for t, i in zip(TEXTS, images, strict=True)] == want


def test_a_prompt_may_have_no_image_or_several(theirs: Any, ours: Any) -> None:
    ours.set_numerics("fast")
    want = their_answer(theirs, ours, "Hello there", None, 8)
    assert ours.generate("Hello there", None, 8) == want
    one, two = picture(20, 20), picture(30, 10).rotate(90)
    answers = {ours.generate("and now?", [a, b], 12) for a, b in [(one, two), (two, one)]}
    assert len(answers) == 2


def test_tokens_are_told_with_their_row(ours: Any, images: list[Image.Image]) -> None:
    for numerics in ("exact", "fast"):
        ours.set_numerics(numerics)
        told: dict[int, list[int]] = {0: [], 1: [], 2: []}
        answers = ours.generate(
            TEXTS, images, 5, on_token=lambda row, token, told=told: told[row].append(token)
        )
        assert [ours.tokenizer.decode(told[row]) for row in range(3)] == answers


def test_wrong_prompts_are_errors(ours: Any, images: list[Image.Image]) -> None:
    with pytest.raises(ValueError, match="2 prompts, but images for 3"):
        ours.generate(TEXTS[:2], images, 1)
    with pytest.raises(TypeError, match="images is a PIL image"):
        ours.generate("x", "y", 1)
    with pytest.raises(ValueError, match="exceed max_position_embeddings, 128"):
        ours.generate("x", images[0], 120)


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 30), (9, 61), (300, 200), (224, 224), (1, 7), (1000, 11)])
@pytest.mark.parametrize("side", [16, 56])
def test_images_are_resized_as_pillow_does(size: tuple[int, int], side: int) -> None:
    image = picture(*size)
    resized = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    want = torch.from_numpy(resized / np.float32(127.5) - np.float32(1)).permute(2, 0, 1)
    tiny.assert_same(paligemma.paligemma_pixel_values(image, side), want)


# --- files ----------------------------------------------------------------------------------------


def loaded(path: Path) -> Any:
    config = paligemma.PaliGemmaConfig.from_pretrained(path)
    ours = paligemma.PaliGemmaForConditionalGeneration(config)
    assert ours.load_weights(path).unexpected == []
    return ours.eval()


def test_a_directory_of_hugging_face_is_loaded(name: str, ours: Any, folder: Path) -> None:
    inputs = tiny_paligemma.prompt(name, 6, 3)
    other = loaded(folder)
    tiny.assert_same(other(**inputs), ours(**inputs))
    assert other.config.text_config.tokenizer == str(folder / "tokenizer.model")
    assert other.config.image_seq_length == tiny_paligemma.IMAGE_TOKENS


def test_the_names_of_published_files_are_read(name: str, ours: Any, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    new, old = "vision_tower.", "vision_tower.vision_model."  # Of an old release.
    state = load_file(file)
    assert any(key.startswith(new) for key in state) and not any(old in key for key in state)
    state = {key.replace(new, old, 1): value for key, value in state.items()}
    save_file(state, file, metadata={"format": "pt"})
    inputs = tiny_paligemma.prompt(name, 6, 3)
    tiny.assert_same(loaded(folder)(**inputs), ours(**inputs))


def test_other_families_refuse_it_by_name(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="holds PaliGemma, which is for .*paligemma"):
        tiny.make_model(gemma_libtorch, tiny.CONFIGS["gemma3"], "float32").load_weights(folder)


def test_a_config_without_a_part_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for change, words in [
        ({"text_config": None}, "'text_config' is not there"),
        ({"projection_dim": 61}, r"projection_dim \(61\) must be the text model's hidden_size \(60\)"),
        ({"text_config": {**config["text_config"], "model_type": "gemma3_text"}}, "valid: gemma, gemma2"),
        ({"vision_config": {**config["vision_config"], "patch_size": 5}}, "must be a multiple of"),
    ]:
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(RuntimeError, match=words) as error:
            paligemma.PaliGemmaConfig.from_pretrained(folder)
        assert "config.json" in str(error.value) and "\n" not in str(error.value)


# --- answers --------------------------------------------------------------------------------------


def test_places_in_answers_are_found() -> None:
    answer = "<loc0000><loc0256><loc0512><loc1023> cat ; <loc0001><loc0002><loc0003><loc0004> a dog"
    cat, dog = paligemma.parse_locations(answer)
    assert (cat.label, cat.place, cat.mask) == ("cat", [0, 256, 512, 1023], [])
    assert cat.box(height=100, width=1024) == (256, 0, 1023, 50)
    assert (dog.label, dog.place) == ("a dog", [1, 2, 3, 4])
    masked = "".join(f"<seg{i:03}>" for i in range(112, 128))
    (thing,) = paligemma.parse_locations("<loc0000><loc0000><loc1023><loc1023>" + masked + " cat")
    assert thing.mask == list(range(112, 128)) and thing.label == "cat"
    (word,) = paligemma.parse_locations("no cat\n")
    assert (word.label, word.place, word.box(10, 10)) == ("no cat", None, None)


# --- the program ----------------------------------------------------------------------------------


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "x.png"
    picture(40, 30).save(path)
    return path


@pytest.mark.parametrize("numerics", ["exact", "fast"])
def test_run_answers_as_generate_does(ours: Any, folder: Path, png: Path, numerics: str) -> None:
    ours.set_numerics(numerics)
    want = ours.generate("detect cat", Image.open(png), 9)
    got = output_of(
        "run", "--ckpt", folder, "--image", png, "--prompt", "detect cat", "--output_len", "9",
        "--numerics", numerics,
    )  # fmt: skip
    assert got == want + "\n"


def test_info_shows_its_parts(name: str, folder: Path) -> None:
    text = output_of("info", folder)
    assert "  family PaliGemma\n" in text and "(multi_modal_projector): PaliGemmaMulti" in text
    assert "SigLIP, 2 layers of 28, 16 x 16 pixels to 16 tokens" in text
    assert f"image_token_id             {tiny_paligemma.CONFIGS[name]['image_token_index']:,}\n" in text


def refusal(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.returncode != 0 and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_commands_that_do_not_take_it_say_so(folder: Path, png: Path, tmp_path: Path) -> None:
    assert "holds PaliGemma, which is for `gemma run`" in refusal("next", "x", "--ckpt", folder)
    boxes = ["--ckpt", folder, "--image", png, "--boxes"]
    assert "must end in .png" in refusal("run", *boxes, "boxes.txt")
    assert "2 images; give one" in refusal("run", *boxes, "boxes.png", "--image", png)
    assert "not for a PaliGemma" in refusal("run", "--ckpt", folder, "--prefix", "x")
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"prompt": "x"}\n')
    out = tmp_path / "out.jsonl"
    batch = ["--ckpt", folder, "--prompts", texts, "--out", out]
    assert "holds PaliGemma" in refusal("run", *batch)


PLACES = ["<loc0256>", "<loc0512>", "<loc0768>", "<loc1000>"]


@pytest.fixture
def place_namer(tmp_path: Path) -> Path:
    """A model that answers with four places and a word, whatever it is asked.

    Its layers add nothing, so that each token follows from the one before it: the embeddings of
    neighbours share a coordinate, and grow so fast that the next one's product is the largest.
    """
    folder = tmp_path / "places"
    folder.mkdir()
    config = tiny_paligemma.CONFIGS["paligemma"]
    text = {**config["text_config"], "vocab_size": tiny.VOCAB_SIZE + len(PLACES)}
    theirs = tiny_paligemma.make_theirs(transformers, {**config, "text_config": text})
    for layer in theirs.model.language_model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    tokenizer = Tokenizer(str(tiny.tokenizer_with(folder / "tokenizer.model", *PLACES)))
    chain = [tokenizer.encode("\n", bos=False)[-1], *map(tokenizer.piece_to_id, PLACES)]
    chain += [*tokenizer.encode(" cat", bos=False), tokenizer.eos_id]
    assert len(set(chain)) == len(chain)
    embeddings = theirs.model.language_model.embed_tokens.weight
    embeddings.zero_()
    for i, token in enumerate(chain):
        embeddings[token, i] = embeddings[token, i + 1] = 4.0**i
    theirs.model.language_model.norm.weight.zero_()
    theirs.save_pretrained(folder)
    return folder


def test_run_lists_and_draws_the_places_of_an_answer(place_namer: Path, tmp_path: Path) -> None:
    image, out = tmp_path / "x.png", tmp_path / "boxes"
    Image.new("RGB", (200, 100)).save(image)
    run_it = ["run", "--ckpt", place_namer, "--image", image, "--prompt", "detect cat"]
    run_it += ["--output_len", "30", "--boxes"]
    answer = "".join(PLACES) + " cat\n"
    assert output_of(*run_it, out.with_suffix(".json")) == answer
    box = [100.0, 25.0, 1000 / 1024 * 200, 75.0]
    assert json.loads(out.with_suffix(".json").read_text()) == [{"label": "cat", "box": box}]
    assert output_of(*run_it, out.with_suffix(".png")) == answer
    drawn = np.asarray(Image.open(out.with_suffix(".png"))).any(-1)
    want = np.zeros((100, 200), dtype=bool)
    want[25:75, 100:195] = True
    want[27:73, 102:193] = False
    assert np.array_equal(drawn, want)
