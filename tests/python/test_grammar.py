"""Answers that are held to a JSON Schema, a regular expression or a grammar.

What a mask allows, tests/text compares with brute force; that neither neighbours nor guesses change a
text, tests/engine.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

import gemma_libtorch
import pytest
import tiny
from gemma_libtorch.engine import Answer, Engine, Request
from gemma_libtorch.tokenizer import Tokenizer

Schema = dict[str, Any]


@pytest.fixture(scope="module")
def engine() -> Engine:
    fields = {**tiny.CONFIGS["gemma3"], "max_position_embeddings": 500}
    engine = Engine(tiny.make_model(gemma_libtorch, fields, "float32"), kv_dtype="float32")
    try:
        engine.generate([Request("a", regex="a")])
    except ValueError as error:
        if "this build has no xgrammar" not in str(error):
            raise
        pytest.skip(str(error))
    return engine


def scalar(rng: random.Random) -> Schema:
    low, high = sorted(rng.sample(range(-50, 200), 2))
    return rng.choice(
        [
            {"type": "string"},
            {"type": "string", "minLength": 2, "maxLength": 5},
            {"type": "string", "pattern": "^[a-f]{2}-[0-9]+$"},
            {"type": "string", "format": "date"},
            {"enum": ["the", "é \"\\\n", 3, None, [1, {"a": True}]]},
            {"const": rng.choice(["fox", 12, False, None])},
            {"type": "integer"},
            {"type": "integer", "minimum": low, "maximum": high},
            {"type": "number", "minimum": low},
            {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": high},
            {"type": "boolean"},
            {"type": "null"},
            {"type": ["integer", "null"]},
        ]
    )


def schema(rng: random.Random, depth: int) -> Schema:
    kind = rng.randrange(8) if depth > 0 else 0
    if kind < 3:
        return scalar(rng)
    if kind == 3:
        few = rng.choice([{}, {"minItems": 1}, {"minItems": 1, "maxItems": 3}])
        return {"type": "array", "items": schema(rng, depth - 1), **few}
    if kind == 4:
        return {"anyOf": [schema(rng, depth - 1) for _ in range(rng.randrange(1, 4))]}
    if kind == 5:
        return {"$ref": rng.choice(["#/$defs/tree", "#/$defs/one/properties/x"])}
    names = rng.sample(["a", "b c", "é", "\"", "name", "$ref", "type"], rng.randrange(1, 4))
    needed = [name for name in names if rng.random() < 0.7]
    properties = {name: schema(rng, depth - 1) for name in names}
    others = rng.choice([{}, {"additionalProperties": False}, {"additionalProperties": {"type": "null"}}])
    return {"type": "object", "properties": properties, "required": needed, **others}


def root_schema(rng: random.Random) -> Schema:
    tree = {
        "type": "object",
        "properties": {"left": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}},
        "required": ["left"],
    }
    one = {"type": "object", "properties": {"x": scalar(rng)}}
    return {**schema(rng, depth=3), "$defs": {"tree": tree, "one": one}}


def is_of_type(value: Any, name: str) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        "string": isinstance(value, str),
        "integer": number and value == int(value),
        "number": number,
        "boolean": isinstance(value, bool),
        "null": value is None,
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }[name]


def same(a: Any, b: Any) -> bool:
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def fits(value: Any, schema: Schema, root: Schema) -> bool:
    """Of the keywords that schemas have here."""
    if "$ref" in schema:
        target: Any = root
        for name in schema["$ref"].split("/")[1:]:
            target = target[name]
        return fits(value, target, root)
    if "anyOf" in schema:
        return any(fits(value, one, root) for one in schema["anyOf"])
    if "const" in schema:
        return same(value, schema["const"])
    if "enum" in schema:
        return any(same(value, one) for one in schema["enum"])
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(is_of_type(value, name) for name in names):
        return False
    if isinstance(value, str):
        return (
            schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
            and bool(re.search(schema.get("pattern", ""), value))
            and ("format" not in schema or bool(re.fullmatch(r"\d{4}-\d\d-\d\d", value)))
        )
    if isinstance(value, list):
        return schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)) and all(
            fits(item, schema["items"], root) for item in value
        )
    if isinstance(value, dict):
        properties = schema["properties"]
        others = schema.get("additionalProperties", {"type": "null"})
        return set(schema.get("required", ())) <= set(value) and all(
            fits(item, properties[name], root)
            if name in properties
            else others is not False and fits(item, others, root)
            for name, item in value.items()
        )
    if value is None or isinstance(value, bool):
        return True
    return (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or schema["exclusiveMinimum"] < value)
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
    )


def test_the_check_of_these_tests_sees_what_does_not_fit() -> None:
    wrong = [
        ("abcdef", {"type": "string", "minLength": 2, "maxLength": 5}),
        ("gg-1", {"type": "string", "pattern": "^[a-f]{2}-[0-9]+$"}),
        (True, {"type": "integer"}),
        (1.5, {"type": "integer"}),
        (3, {"type": "number", "exclusiveMinimum": 3}),
        ([], {"type": "array", "items": {"type": "null"}, "minItems": 1}),
        ({"b": 1}, {"type": "object", "properties": {"a": {"type": "null"}}}),
        ({}, {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}),
        (1, {"const": True}),
    ]
    assert not any(fits(value, schema, schema) for value, schema in wrong)


def to_the_end() -> dict[int, float]:
    """A bias towards what ends texts, lists and objects, and against blanks between their parts."""
    tokenizer = Tokenizer(str(tiny.TOKENIZER))
    ends = {tokenizer.encode(text, bos=False)[-1]: 5.0 for text in ('"', "}", "]")}
    texts = ((token, tokenizer.decode([token])) for token in range(tokenizer.n_words))
    blanks = {token: -20.0 for token, text in texts if text.isspace()}
    return {**ends, **blanks}


def test_answers_fit_their_schemas(engine: Engine) -> None:
    rng = random.Random(3)
    schemas = [root_schema(rng) for _ in range(200)]
    bias = to_the_end()
    options = [
        {"temperature": rng.choice([0.0, 1.0, 1.5]), "seed": rng.randrange(2**32), "logit_bias": bias}
        for _ in schemas
    ]
    requests = [
        Request("The ferry", json_schema=one, max_tokens=300, prompt_lookup=rng.choice([0, 4]), **option)
        for one, option in zip(schemas, options, strict=True)
    ]
    answers = engine.generate(requests)
    finished = [
        (answer.text, one)
        for answer, one in zip(answers, schemas, strict=True)
        if answer.finish_reason == "stop"
    ]
    assert len(finished) > 150
    for text, one in finished:
        assert fits(json.loads(text), one, one), (text, one)
    alone = [engine.generate([request])[0].text for request in requests[:15]]
    assert alone == [answer.text for answer in answers[:15]]


def say(engine: Engine, **options: Any) -> Answer:
    bias = to_the_end()
    return engine.generate([Request("The ferry", max_tokens=60, seed=1, logit_bias=bias, **options)])[0]


def test_regular_expressions_and_grammars(engine: Engine) -> None:
    assert re.fullmatch("[a-c]{3,5}!", say(engine, regex="[a-c]{3,5}!").text)
    lists = 'root ::= item ("," item){2}\nitem ::= [0-9] | "(" item ")"'
    answer = say(engine, grammar=lists)
    assert re.fullmatch(r"[(]*\d[)]*(,[(]*\d[)]*){2}", answer.text)
    assert answer.text.count("(") == answer.text.count(")")
    session = engine.session()
    session.feed("The ferry")
    assert "".join(token.text for token in session.generate(regex="yes|no")) in ("yes", "no")


def test_a_grammar_that_takes_too_long_ends_its_text(engine: Engine) -> None:
    regex = "(((a{1,90}){1,90}){1,90}){1,90}"
    with pytest.raises(ValueError, match=r"engine: the grammar took \d+\.\d s for \d+ tokens"):
        engine.generate([Request("The ferry", max_tokens=200, temperature=0.0, regex=regex)])
    assert say(engine, regex="yes|no").text in ("yes", "no")


def test_properties_come_in_the_order_of_the_schema(engine: Engine) -> None:
    kinds = {"type": "boolean"}
    for names in (["b", "a"], ["a", "b"]):
        schema = {"type": "object", "properties": dict.fromkeys(names, kinds), "required": names}
        for form in (schema, json.dumps(schema)):
            answer = say(engine, json_schema=form)
            assert list(json.loads(answer.text)) == names


HOSTILE = {
    "not JSON": {"json_schema": "{"},
    "nested": {"json_schema": "[" * 30000},
    "nested schemas": {"json_schema": '{"items":' * 5000 + "true" + "}" * 5000},
    "a large schema": {"json_schema": {"enum": ["x" * 70000]}},
    "no schema": {"json_schema": "3"},
    "unsupported": {"json_schema": {"type": "object", "not": {}}},
    "unknown type": {"json_schema": {"type": "strange"}},
    "circular": {"json_schema": {"$ref": "#"}},
    "circular pair": {
        "json_schema": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    },
    "nowhere": {"json_schema": {"$ref": "#/$defs/none"}},
    "elsewhere": {"json_schema": {"$ref": "http://example.com/schema"}},
    "nothing fits": {"json_schema": {"type": "integer", "minimum": 3, "maximum": 2}},
    "open parenthesis": {"regex": "(a"},
    "lookahead": {"regex": "a(?=b)"},
    "backreference": {"regex": r"(a)\1"},
    "nul": {"regex": "a\0b"},
    "no rule": {"grammar": "root ::= missing"},
    "no root": {"grammar": 'start ::= "a"'},
    "nonsense": {"grammar": "]]"},
    "two of them": {"regex": "a", "grammar": 'root ::= "a"'},
}  # fmt: skip


@pytest.mark.parametrize("options", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_cannot_be_promised_is_refused_in_a_line(engine: Engine, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as error:
        say(engine, **options)
    assert "\n" not in str(error.value) and 10 < len(str(error.value)) < 400


LARGE = {
    "repetitions": {"regex": "(a{1,200}){1,200}"},
    "ambiguous": {"regex": "(a|a|aa)*(a*)*b"},
    "many states": {"regex": "(a|b)*a(a|b){14}"},
    "a large enum": {"json_schema": {"enum": [f"value {i}" for i in range(3000)]}},
    "long strings": {"json_schema": {"type": "string", "minLength": 2000, "maxLength": 100000}},
    "many items": {"json_schema": {"type": "array", "items": {"type": "integer"}, "minItems": 10000}},
    "ambiguous grammar": {"grammar": 'root ::= root root | "a" | ""'},
}


@pytest.mark.parametrize("options", LARGE.values(), ids=LARGE.keys())
def test_what_is_large_is_bounded(engine: Engine, options: dict[str, Any]) -> None:
    try:
        say(engine, **options)
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
