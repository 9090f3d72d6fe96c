"""gemma serve, spoken to by OpenAI's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import NO_STOP, Server, save_tiny, serving

openai = pytest.importorskip("openai", reason="openai is not installed: pip install openai")

MESSAGES: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "When does the ferry leave?"},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("tiny")
    save_tiny(place, 2000)
    with serving(
        place, "--api_key", "secret", "--served_name", "tiny", "--max_queue", "300"
    ) as running:
        yield running


def options(server: Server, key: str = "secret") -> dict[str, Any]:
    return {"base_url": f"http://127.0.0.1:{server.port}/v1", "api_key": key, "max_retries": 0}


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with openai.OpenAI(**options(server)) as made:
        yield made


def test_chat(client: Any) -> None:
    rules: Any = {"model": "tiny", "messages": MESSAGES, "max_completion_tokens": 20, "seed": 1}
    answer = client.chat.completions.create(**rules, logprobs=True, top_logprobs=2, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.completion_tokens <= 40
    first = answer.choices[0].logprobs.content[0]
    assert len(first.top_logprobs) == 2
    assert first.logprob <= 0
    text, usage = "", None
    include: Any = {"include_usage": True}
    for chunk in client.chat.completions.create(**rules, stream=True, stream_options=include):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == answer.choices[0].message.content
    assert usage.prompt_tokens == answer.usage.prompt_tokens
    # The client takes an answer that is cut for a mistake.
    with client.chat.completions.stream(**rules, stop=text[5]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == text[: text.index(text[5])]


def test_completions(client: Any) -> None:
    rules: Any = {"model": "tiny", "prompt": "The ferry", "max_tokens": 20, "temperature": 0}
    answer = client.completions.create(**rules, logprobs=1)
    assert len(answer.choices[0].logprobs.tokens) == answer.usage.completion_tokens
    parts = [part.choices[0].text for part in client.completions.create(**rules, stream=True)]
    assert "".join(parts) == answer.choices[0].text
    more = client.completions.create(**rules, extra_body={"top_k": 1, "min_p": 0.5})
    assert more.choices[0].text == answer.choices[0].text


def test_responses(client: Any) -> None:
    rules: Any = {"model": "tiny", "instructions": "Be brief.", "input": "When?", "temperature": 0}
    answer = client.responses.create(**rules, max_output_tokens=20)
    chat = client.chat.completions.create(
        model="tiny", temperature=0, max_completion_tokens=20,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "When?"}],
    )  # fmt: skip
    assert answer.output_text == chat.choices[0].message.content
    assert answer.usage.total_tokens == chat.usage.total_tokens
    events = client.responses.create(**rules, max_output_tokens=20, stream=True)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == answer.output_text
    # The client takes an answer that is cut for a mistake.
    stop = answer.output_text[5]
    with client.responses.stream(**rules, extra_body={"stop": stop}) as stream:
        final = stream.get_final_response().output_text
    assert final == answer.output_text[: answer.output_text.index(stop)]
    with pytest.raises(openai.BadRequestError, match="nothing is kept") as caught:
        client.responses.create(**rules, previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"


def test_scores(client: Any) -> None:
    rules: Any = {"model": "tiny", "prompt": "The ferry leaves", "max_tokens": 0}
    logprobs = client.completions.create(**rules, echo=True, logprobs=1).choices[0].logprobs
    assert logprobs.token_logprobs[0] is None
    assert all(value < 0 for value in logprobs.token_logprobs[1:])


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_mistakes_have_their_classes(server: Server, client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature") as caught:
        client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=9)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="context length is 2000 tokens") as caught:
        client.completions.create(model="tiny", prompt=[4] * 3000)
    assert caught.value.code == "context_length_exceeded"
    with (
        openai.OpenAI(**options(server, "wrong")) as other,
        pytest.raises(openai.AuthenticationError),
    ):
        other.models.list()
    with pytest.raises(openai.NotFoundError):
        client.get("/nothing", cast_to=object)


def test_a_stream_may_be_left(server: Server, client: Any) -> None:
    rules: Any = {"model": "tiny", "messages": MESSAGES, "logit_bias": NO_STOP, "stream": True}
    with client.chat.completions.create(**rules) as stream:
        next(iter(stream))
    for _ in range(500):
        text = server.get("/metrics", authorization="Bearer secret").body.decode()
        if "num_requests_running 0" in text:
            return
    pytest.fail("the text goes on")


def test_two_hundred_at_once_are_answered_alike(server: Server) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(**options(server)) as many:

            async def text(index: int) -> str:
                rules: Any = {"model": "tiny", "max_tokens": 12, "seed": index % 7}
                if index % 3 == 0:
                    answer = await many.completions.create(prompt=f"Number {index % 7}", **rules)
                    return answer.choices[0].text
                parts = await many.completions.create(
                    prompt=f"Number {index % 7}", stream=True, **rules
                )
                return "".join([part.choices[0].text async for part in parts])

            return await asyncio.gather(*(text(index) for index in range(200)))

    texts = asyncio.run(ask())
    assert len(set(texts[:7])) > 1
    assert [texts[index % 7] for index in range(200)] == texts


def test_a_full_queue_is_tried_again(tmp_path: Path) -> None:
    save_tiny(tmp_path, 2000)
    long: Any = {"model": "tiny", "prompt": "The", "max_tokens": 400, "logit_bias": NO_STOP}
    with serving(tmp_path, "--max_batch", "1", "--max_queue", "0") as full:
        with (
            openai.OpenAI(**options(full)) as once,
            once.completions.create(**long, stream=True) as stream,
        ):
            next(iter(stream))
            with pytest.raises(openai.RateLimitError) as caught:
                once.completions.create(model="tiny", prompt="The", max_tokens=1)
            assert caught.value.code == "queue_full"
            assert int(caught.value.response.headers["retry-after"]) == 1
        with openai.OpenAI(**{**options(full), "max_retries": 5}) as again:
            stream = again.completions.create(**long, stream=True)
            next(iter(stream))
            # The first is answered meanwhile: nobody reads it, but it fits what may wait.
            answer = again.completions.create(model="tiny", prompt="The", max_tokens=1)
            assert answer.choices[0].finish_reason in ("length", "stop")
            stream.close()
        assert full.metrics()['http_answers_total{status="429"}'] >= 2
