"""gemma serve, spoken to by Instructor: answers of a given form."""

from __future__ import annotations

import pytest
from client_server import KEY

pytest_plugins = ("client_server",)
instructor = pytest.importorskip(
    "instructor", reason="instructor is missing: scripts/server_clients.sh"
)
openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")


class Departure(pydantic.BaseModel):  # type: ignore[name-defined,misc]
    hour: int


@pytest.mark.skip(reason="tools and response_format are not served yet")
@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA"])
def test_an_answer_of_a_form(base_url: str, mode: str) -> None:
    plain = openai.OpenAI(base_url=base_url, api_key=KEY)
    client = instructor.from_openai(plain, mode=instructor.Mode[mode])
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "When does the ferry leave?"}],
        response_model=Departure,
        max_tokens=200,
        temperature=0,
    )
    assert isinstance(answer, Departure)
