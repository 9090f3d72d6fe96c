"""gemma serve with images: what it answers, and what it refuses."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gemma_libtorch
import numpy as np
import pytest
import tiny
import tiny_paligemma
import torch
from gemma_libtorch.engine import Engine, Request
from PIL import Image
from serving import NO_STOP, Server, save_tiny, serving
from test_program import PROGRAM


def picture(seed: int, size: tuple[int, int] = (40, 50)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))


def data_url(file: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def image_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("multimodal")
    tokenizer = tiny.large_tokenizer(place / "large.model")
    vision = {**tiny.SIGLIP, "num_attention_heads": 2}  # As a checkpoint can say it.
    model = tiny.make_multimodal(
        gemma_libtorch, tokenizer=str(tokenizer), vision_config=vision, max_position_embeddings=500
    )
    tiny.save_checkpoint(model, place)
    tokenizer.rename(place / "tokenizer.model")
    for name, seed, kind in (("one.png", 1, "PNG"), ("two.jpg", 2, "JPEG")):
        picture(seed).save(place / name, kind)
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "--kv_dtype", "float32") as running:
        yield running


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    config = gemma_libtorch.config.GemmaConfig.from_pretrained(folder / "model.ckpt")
    made = gemma_libtorch.gemma3_model.Gemma3ForMultimodalLM(config)
    made.load_weights(folder / "model.ckpt")
    made.set_numerics("fast")
    return made


@pytest.fixture(scope="module")
def urls(folder: Path) -> list[str]:
    files = [(folder / "one.png", "png"), (folder / "two.jpg", "jpeg")]
    return [data_url(path.read_bytes(), kind) for path, kind in files]


RULES: dict[str, Any] = {"max_tokens": 12, "temperature": 0, "logit_bias": NO_STOP}


def ask(server: Server, *parts: Any, **fields: Any) -> Any:
    messages = [{"role": "user", "content": list(parts)}]
    answer = server.post("/v1/chat/completions", {"messages": messages, **RULES, **fields})
    assert answer.status == 200, answer.body
    return answer.json


def test_the_models_list_says_that_it_sees(server: Server) -> None:
    (listed,) = server.get("/v1/models").json["data"]
    assert listed["capabilities"] == ["completion", "vision"]


def test_an_answer_is_that_of_generate_and_of_gemma_run(
    server: Server, model: Any, folder: Path, urls: list[str]
) -> None:
    begin, end = "<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"
    got = ask(server, text_part(" What is "), image_part(urls[0]), text_part(" and "),
              {"type": "image_url", "image_url": urls[1]}, text_part("?"))  # fmt: skip
    text = got["choices"][0]["message"]["content"]
    images = [Image.open(folder / "one.png"), Image.open(folder / "two.jpg")]
    prompt = [f"{begin}What is", images[0], "and", images[1], f"?{end}"]
    (whole,) = model.generate(
        [prompt], "cpu", output_len=12, temperature=None, kv_dtype=torch.float32
    )
    (want,) = Engine(model, kv_dtype="float32").generate(
        [Request(prompt, max_tokens=12, temperature=0.0, logit_bias={1: -100.0, 5: -100.0})]
    )
    assert text == want.text and text != ""
    assert whole.endswith(text)
    assert got["usage"]["prompt_tokens"] == want.prompt_tokens
    command = [str(PROGRAM), "run", "--ckpt", str(folder / "model.ckpt"), "--greedy",
               "--output_len", "12", "--image", str(folder / "one.png"),
               "--image", str(folder / "two.jpg"),
               "--prompt", f"{begin}What is<image>and<image>?{end}"]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == text + "\n"


def test_turns_and_the_systems_text_stand_around_images(
    server: Server, model: Any, urls: list[str]
) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image_part(urls[0]), text_part("What is it? ")]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [text_part("And this?"), image_part(urls[1])]},
        {"role": "user", "content": "Quick!"},
    ]
    answer = server.post("/v1/chat/completions", {"messages": messages, **RULES}).json
    next_turn = "<end_of_turn>\n<start_of_turn>"
    middle = f"What is it?{next_turn}model\nA cat.{next_turn}user\nAnd this?"
    end = f"\n\nQuick!{next_turn}model\n"
    begin = "<start_of_turn>user\nBe brief.\n\n"
    prompt = [begin, picture(1), middle, picture_of(urls[1]), end]
    (want,) = Engine(model, kv_dtype="float32").generate(
        [Request(prompt, max_tokens=12, temperature=0.0, logit_bias={1: -100.0, 5: -100.0})]
    )
    assert answer["choices"][0]["message"]["content"] == want.text
    assert answer["usage"]["prompt_tokens"] == want.prompt_tokens


def picture_of(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


def test_a_prefix_is_known_by_its_image(server: Server) -> None:
    def cached(seed: int) -> int:
        file = io.BytesIO()
        picture(seed).save(file, "PNG")
        parts = [image_part(data_url(file.getvalue())), text_part("and " * 100)]
        answer = ask(server, *parts)
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached(11) == 0
    assert cached(11) >= 64
    assert cached(12) == 0
    assert cached(11) >= 64


def test_those_at_once_say_what_each_says_alone(server: Server, urls: list[str]) -> None:
    bodies = [
        [image_part(urls[index % 2]), text_part("word " * index)] if index % 3 else ["plain"]
        for index in range(12)
    ]

    def text(parts: list[Any]) -> str:
        parts = [text_part(part) if isinstance(part, str) else part for part in parts]
        answer = ask(server, *parts, n=2, seed=3, temperature=0.8)
        return "|".join(choice["message"]["content"] for choice in answer["choices"])

    want = [text(body) for body in bodies]
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(text, bodies)) == want


def bomb() -> bytes:
    """A PNG of 100,000 x 100,000 pixels, in some bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_what_is_no_image_is_refused(server: Server, folder: Path, urls: list[str]) -> None:
    png = (folder / "one.png").read_bytes()
    encoded = urls[0].split(",")[1]
    for url, code, message in [
        ("http://127.0.0.1:1/x.png", "unsupported_value", "nothing is fetched"),
        ("https://example.com/x.png", "unsupported_value", "nothing is fetched"),
        (f"file://{folder}/one.png", "unsupported_value", "nothing is fetched"),
        (str(folder / "one.png"), "unsupported_value", "nothing is fetched"),
        ("", "unsupported_value", "nothing is fetched"),
        (f"data:text/html;base64,{encoded}", "unsupported_value", "data:image/png"),
        (f"data:image/png,{encoded}", "unsupported_value", "data:image/png"),
        (urls[0] + "\n", "invalid_image", "Base64 is damaged"),
        (urls[0][:-1], "invalid_image", "Base64 is damaged"),
        (data_url(b""), "invalid_image", "is empty"),
        (data_url(b"GIF89a" + bytes(90)), "invalid_image", "neither a JPEG nor a PNG"),
        (data_url(png[:-60]), "invalid_image", "messages[0].content[0]"),
        (data_url(bomb()), "invalid_image", "100000"),
        (data_url(bytes(16 << 20)), "invalid_image", "20971520 at most"),
    ]:
        body = {"messages": [{"role": "user", "content": [image_part(url)]}]}
        answer = server.post("/v1/chat/completions", body)
        error = answer.json["error"]
        assert (answer.status, error["param"], error["code"]) == (400, "messages", code), url[:60]
        assert message in error["message"], error
        assert len(error["message"]) < 300
    upper = "DATA:Image/PNG;base64," + encoded
    assert ask(server, image_part(upper)) is not None


def test_parts_that_are_wrong_are_named(server: Server, urls: list[str]) -> None:
    many = [image_part(urls[0])] * 9
    for role, parts, message in [
        ("user", many, "messages[0].content[8] is one image too many"),
        ("assistant", [image_part(urls[0])], "only the user's"),
        ("system", [image_part(urls[0])], "only the user's"),
        ("user", [{"type": "image_url"}], "has no image_url"),
        ("user", [{"type": "image_url", "image_url": {}}], "has no url"),
        ("user", [{"type": "image_url", "image_url": 4}], "is 4, but must be a text"),
        ("user", [{"type": "input_audio"}], "only text and image_url"),
    ]:
        body = {"messages": [{"role": role, "content": parts}]}
        answer = server.post("/v1/chat/completions", body)
        assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")
        assert message in answer.json["error"]["message"]


def test_a_text_model_refuses_images(tmp_path: Path, urls: list[str]) -> None:
    with serving(save_tiny(tmp_path, 200)) as server:
        (listed,) = server.get("/v1/models").json["data"]
        assert listed["capabilities"] == ["completion"]
        body = {"messages": [{"role": "user", "content": [image_part(urls[0])]}]}
        answer = server.post("/v1/chat/completions", body)
        assert (answer.status, answer.json["error"]["param"]) == (400, "messages")
        assert "reads text only" in answer.json["error"]["message"]
        large = data_url(bytes(12 << 20))  # Of a text model a request is not that large.
        body = {"messages": [{"role": "user", "content": [image_part(large)]}]}
        assert server.post("/v1/chat/completions", body).status == 413


def test_paligemma_answers_one_message(tmp_path: Path, urls: list[str]) -> None:
    reason = "transformers is not installed"
    transformers = pytest.importorskip("transformers", reason=reason)
    config = tiny_paligemma.CONFIGS["paligemma"]
    text = {**config["text_config"], "vocab_size": tiny.VOCAB_SIZE}
    theirs = tiny_paligemma.make_theirs(transformers, {**config, "text_config": text})
    tiny_paligemma.save(theirs, tmp_path)
    (tmp_path / "one.png").write_bytes(base64.b64decode(urls[0].split(",")[1]))
    command = [str(PROGRAM), "run", "--ckpt", str(tmp_path), "--output_len", "9",
               "--image", str(tmp_path / "one.png"), "--prompt", "detect cat"]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rules = {"max_tokens": 9, "temperature": 0}
    with serving(tmp_path, "--kv_dtype", "float32") as server:
        parts = [image_part(urls[0]), text_part("detect cat")]
        body = {"messages": [{"role": "user", "content": parts}], **rules}
        answer = server.post("/v1/chat/completions", body)
        assert answer.json["choices"][0]["message"]["content"] + "\n" == run.stdout
        (listed,) = server.get("/v1/models").json["data"]
        assert listed["capabilities"] == ["completion", "vision"]
        for messages in (
            [{"role": "user", "content": parts[::-1]}],
            [{"role": "user", "content": parts}] * 2,
            [{"role": "assistant", "content": "a"}],
        ):
            error = server.post("/v1/chat/completions", {"messages": messages})
            assert (error.status, error.json["error"]["param"]) == (400, "messages")
        error = server.post("/v1/completions", {"prompt": "a"})
        assert (error.status, error.json["error"]["param"]) == (400, "prompt")
