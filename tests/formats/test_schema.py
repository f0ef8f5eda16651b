"""Typing of raw values by JSON schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rillm.formats.schema import coerce, dump, is_text, json_or_text, property_schema, types

TYPE_NAMES = st.sampled_from(
    ["string", "integer", "number", "boolean", "null", "object", "array", "str", "int32", "dict"]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def _with_inner(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPE_NAMES | st.lists(TYPE_NAMES, max_size=3),
            "enum": st.lists(JSON, max_size=3),
            "const": JSON,
            "anyOf": st.lists(inner, max_size=3),
            "oneOf": st.lists(inner, max_size=2),
            "allOf": st.lists(inner, max_size=2),
            "items": inner,
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "additionalProperties": inner | st.booleans(),
            "$ref": st.sampled_from(["#/$defs/a", "#/$defs/b", "#/nowhere", "other", 3]),
        },
    )


SCHEMAS = st.recursive(st.just({}), _with_inner, max_leaves=6)
RAW = st.text() | JSON.map(lambda value: json.dumps(value, ensure_ascii=False)) | JSON.map(repr)


def _read(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@given(text=RAW, schema=SCHEMAS, definitions=st.dictionaries(st.sampled_from("ab"), SCHEMAS))
@example(text="1e999", schema={"type": "number"}, definitions={})
@example(
    text='["\\ud800", "1"]', schema={"type": "array", "items": {"type": "integer"}}, definitions={}
)
@example(text="[" * 100_000, schema={"type": "array"}, definitions={})
@example(text="9" * 5_000, schema={"type": "integer"}, definitions={})
@example(text="{1: {2}}", schema={"type": "object"}, definitions={})
def test_the_result_is_json_that_can_be_sent(
    text: str, schema: dict[str, Any], definitions: dict[str, Any]
) -> None:
    result = coerce(text, {**schema, "$defs": definitions})
    _read(result)
    result.encode()


@given(text=RAW, enum=st.none() | st.lists(st.text()))
def test_a_string_comes_back_as_it_is(text: str, enum: list[str] | None) -> None:
    schema: dict[str, Any] = {"type": "string"} | ({} if enum is None else {"enum": enum})
    assert is_text(schema)
    assert _read(coerce(text, schema)) == text
    assert _read(coerce(text, None)) == text
    assert _read(coerce(text, {})) == text


@given(JSON)
def test_json_passes_through_character_for_character(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    assert json_or_text(f"\n{text} ") == text


@pytest.mark.parametrize(
    ("text", "schema", "expected"),
    [
        ("5", {"type": "integer"}, "5"),
        (" +5\n", {"type": "integer"}, "5"),
        ("5.0", {"type": "integer"}, "5"),
        ("12345678901234567890", {"type": "integer"}, "12345678901234567890"),
        ("5.5", {"type": "integer"}, "5.5"),
        ("1_000", {"type": "integer"}, '"1_000"'),
        ("five", {"type": "integer"}, '"five"'),
        ("5.0", {"type": "number"}, "5"),
        ("1.5e3", {"type": "number"}, "1500"),
        ("-.5", {"type": "number"}, "-0.5"),
        ("inf", {"type": "number"}, '"inf"'),
        ("NaN", {"type": "number"}, '"NaN"'),
        ("True", {"type": "boolean"}, "true"),
        ("0", {"type": "boolean"}, "false"),
        ("yes", {"type": "boolean"}, '"yes"'),
        ("null", {"type": "string"}, '"null"'),
        ("null", {"type": ["string", "null"]}, "null"),
        ("None", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "null"),
        ("5", {"type": ["string", "integer"]}, "5"),
        ("1", {"type": ["boolean", "integer"]}, "1"),
        ("true", {"type": ["boolean", "string"]}, "true"),
        ("5", {"type": "int64"}, "5"),
        ("5", {"type": "varchar"}, '"5"'),
        ('{"a":  1}', {"type": "object"}, '{"a":  1}'),
        ("{'a': True}", {"type": "dict"}, '{"a": true}'),
        ("[1, 2", {"type": "array"}, '"[1, 2"'),
        ("(1, 2)", {"type": "array"}, '"(1, 2)"'),
        ("[]", {"type": "object"}, "[]"),
        ("b", {"enum": ["a", "b"]}, '"b"'),
        ("2", {"enum": [1, 2]}, "2"),
        ("1", {"type": "string", "enum": ["1"]}, '"1"'),
        ("true", {"const": True}, "true"),
        ("x", {"description": "anything"}, '"x"'),
    ],
)
def test_text_gets_the_type_of_its_schema(text: str, schema: dict[str, Any], expected: str) -> None:
    assert coerce(text, schema) == expected


def test_strings_inside_get_their_types_too() -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "s": {"type": "string"},
            "items": {"type": "array", "items": {"$ref": "#/$defs/flag"}},
            "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        },
        "$defs": {"flag": {"type": "boolean"}},
        "additionalProperties": {"type": "number"},
    }
    text = '{"n": "5", "s": "5", "items": ["true", false], "either": "5", "other": "1.5"}'
    assert json.loads(coerce(text, schema)) == {
        "n": 5,
        "s": "5",
        "items": [True, False],
        "either": "5",
        "other": 1.5,
    }


def test_references_are_followed_from_the_root() -> None:
    schema = {
        "properties": {"a": {"$ref": "#/$defs/one"}},
        "$defs": {"one": {"$ref": "#/$defs/two"}, "two": {"type": "integer"}},
    }
    assert types(property_schema(schema, "a")) == {"integer"}
    assert property_schema(schema, "b") is None


def test_references_in_circles_end() -> None:
    loop = {"$ref": "#/$defs/a"}
    schema = {
        "anyOf": [loop, loop],
        "$defs": {"a": {"anyOf": [loop, {"type": "integer"}, {"oneOf": [loop, loop]}]}},
    }
    assert types(schema) == {"integer"}
    assert coerce("5", schema) == "5"


def test_half_a_surrogate_pair_is_escaped() -> None:
    assert dump("\ud83c \U0001f30a") == '"\\ud83c \U0001f30a"'
