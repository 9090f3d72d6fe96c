"""gemma serve: /openapi.json says what is served, no less and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Server, save_tiny, serving

ROOT = Path(__file__).resolve().parents[2]

# The least that a body needs, by path.
LEAST: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/v1/responses": {"input": "a", "max_output_tokens": 1},
    "/infill": {"input_prefix": "a", "input_suffix": "b", "n_predict": 1},
    "/v1/embeddings": {"input": "a"},
    "/tokenize": {},
    "/detokenize": {"tokens": [5]},
}
# Fields that need others, or exclude them.
BESIDE: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True, "include": ["message.output_text.logprobs"]},
    "add_special": {"content": "a"},
    "add_special_tokens": {"prompt": "a"},
}
# A value of each type.
VALUES: dict[str, list[Any]] = {
    "null": [None],
    "boolean": [True, False],
    "integer": [1],
    "number": [0.5],
    "string": ["a"],
    "array": [[]],
    "object": [{}],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(save_tiny(tmp_path_factory.mktemp("tiny"), 200)) as running:
        yield running


@pytest.fixture(scope="module")
def spec(server: Server) -> Any:
    return server.get("/openapi.json").json


def resolved(spec: Any, schema: Any) -> Any:
    """The schema without references at its top, and with the properties of what it is made of."""
    while "$ref" in schema:
        *_, kind, name = schema["$ref"].split("/")
        schema = spec["components"][kind][name]
    parts = [resolved(spec, part) for part in schema.get("allOf", [])]
    properties = {k: v for part in parts for k, v in part.get("properties", {}).items()}
    return {**schema, "properties": {**properties, **schema.get("properties", {})}}


def bodies(spec: Any) -> dict[str, Any]:
    """-> the schemas of bodies, by path."""
    found = {}
    for path, methods in spec["paths"].items():
        if "post" in methods:
            body = resolved(spec, methods["post"]["requestBody"])
            found[path] = resolved(spec, body["content"]["application/json"]["schema"])
    return found


def types_of(spec: Any, schema: Any) -> set[str]:
    schema = resolved(spec, schema)
    kinds = schema.get("type", [])
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    for part in schema.get("anyOf", []):
        kinds |= types_of(spec, part)
    for value in schema.get("enum", []):
        kinds.add({bool: "boolean", str: "string", type(None): "null"}[type(value)])
    return kinds | ({"integer"} if "number" in kinds else set())


def test_paths_are_those_that_are_served(server: Server, spec: Any) -> None:
    source = (ROOT / "gemma" / "server" / "api.cc").read_text()
    served = set(re.findall(r'\{"(GET|POST)", "(\S+)", &Api', source))
    told = {(m.upper(), path) for path, methods in spec["paths"].items() for m in methods}
    assert told == served
    assert set(bodies(spec)) == set(LEAST)
    for method, path in told:
        answer = server.request(method, path, b"{}", content_type="application/json")
        assert answer.status in (200, 400), path
        assert server.request("PUT", path).headers["Allow"] == method


def test_fields_are_those_that_are_read(spec: Any) -> None:
    told = {name for schema in bodies(spec).values() for name in schema["properties"]}
    read = set()
    for file in (ROOT / "gemma" / "server").glob("*.cc"):
        pattern = r'\bfields\.(?:number|integer|boolean|text|texts|find)\(\s*"(\w+)"'
        read |= set(re.findall(pattern, file.read_text()))
    # Of messages and of their parts; and those that are refused.
    read -= {"role", "content", "tool_calls", "image_url", "tools", "url", "type"}
    assert read - told == set()


def test_types_and_limits_are_those_of_the_schema(server: Server, spec: Any) -> None:
    """A field that is no field of the server's would take any value."""

    def status(path: str, name: str, value: Any) -> int:
        body = {**LEAST[path], **BESIDE.get(name, {}), name: value}
        answer = server.post(path, body)
        assert answer.status in (200, 400), answer.body
        if answer.status == 200:
            return 200
        # What is missing in this model, or beside the field, is no fault of its value.
        error = answer.json["error"]
        own = error["param"] is not None and error["param"].startswith(name)
        return 400 if own else 200

    checked = 0
    for path, schema in bodies(spec).items():
        if path == "/v1/embeddings":  # Of another model: test_server_embeddings.py.
            continue
        for name, field in schema["properties"].items():
            if name == "model":
                continue
            types = types_of(spec, field)
            for kind, values in VALUES.items():
                if kind in types:
                    continue
                for value in values:
                    if kind == "null":  # That is no field at all.
                        continue
                    assert status(path, name, value) == 400, (path, name, value)
                    checked += 1
            for key, step in (("minimum", -1), ("maximum", 1)):
                if key not in field or abs(field[key]) > 2**60:
                    continue
                assert status(path, name, field[key] + step) == 400, (path, name, key)
                if (path, name, field[key]) in NEEDS_MORE:
                    continue
                assert status(path, name, field[key]) == 200, (path, name, key)
                checked += 1
    assert checked > 200


# Limits that hold only beside other fields.
NEEDS_MORE = {("/v1/completions", "max_tokens", 0), ("/v1/completions", "best_of", 128)}
