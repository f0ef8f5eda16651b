"""StructuredOutputsParams: which shapes of a constraint are accepted, how others are refused."""

from __future__ import annotations

from typing import Any

import pytest

from rillm import SamplingParams, StructuredOutputsParams
from rillm.constraints.source import grammar_source
from rillm.errors import InvalidRequestError


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    "fields",
    [
        {"json": {}},
        {"json": "{}"},
        {"json": nested(60)},
        {"regex": "a"},
        {"regex": " "},
        {"choice": ["a"]},
        {"grammar": "start: /a/"},
        {"json_object": True},
        {"json_object": True, "regex": None, "choice": None},
        {"regex": "a", "json_object": False},
        {"json_object": True, "disable_any_whitespace": True},
        {"json": {}, "whitespace_pattern": " ?", "disable_additional_properties": True},
    ],
)
def test_one_constraint_is_accepted(fields: dict[str, Any]) -> None:
    params = StructuredOutputsParams(**fields)

    assert SamplingParams(structured_outputs=params).structured_outputs is params


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, ""),
        ({"json_object": False}, ""),
        ({"json": {}, "regex": "a"}, ""),
        ({"choice": ["a"], "json_object": True}, ""),
        ({"json": 5}, ".json"),
        ({"json": ["a"]}, ".json"),
        ({"json": " "}, ".json"),
        ({"json": {"a": object()}}, ".json"),
        ({"json": nested(70)}, ".json"),
        ({"json": {"description": "x" * 600_000}}, ".json"),
        ({"regex": ""}, ".regex"),
        ({"regex": 5}, ".regex"),
        ({"regex": "a\0b"}, ".regex"),
        ({"regex": "a" * 20_000}, ".regex"),
        ({"regex": "\ud800"}, ".regex"),
        ({"choice": []}, ".choice"),
        ({"choice": "a"}, ".choice"),
        ({"choice": ["a", 5]}, ".choice"),
        ({"choice": ["a", ""]}, ".choice"),
        ({"choice": ["é" * 300_000]}, ".choice"),
        ({"grammar": ""}, ".grammar"),
        ({"grammar": " \n"}, ".grammar"),
        ({"json_object": 1}, ".json_object"),
        ({"structural_tag": "{}"}, ".structural_tag"),
        ({"regex": "a", "disable_any_whitespace": True}, ".disable_any_whitespace"),
        ({"regex": "a", "whitespace_pattern": " "}, ".whitespace_pattern"),
        ({"json": {}, "whitespace_pattern": ""}, ".whitespace_pattern"),
        (
            {"json": {}, "whitespace_pattern": " ", "disable_any_whitespace": True},
            ".whitespace_pattern",
        ),
        ({"json": {}, "disable_additional_properties": 1}, ".disable_additional_properties"),
    ],
)
def test_anything_else_is_refused_by_name(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        StructuredOutputsParams(**fields)

    assert caught.value.param == "structured_outputs" + name
    assert str(caught.value).startswith(caught.value.param)


def test_errors_name_the_field_that_a_constraint_was_made_of() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        StructuredOutputsParams(json=nested(70), origin="response_format.json_schema.schema")

    assert caught.value.param == "response_format.json_schema.schema"


def test_a_constraint_that_was_changed_is_checked_with_its_request() -> None:
    params = StructuredOutputsParams(regex="a")
    params.regex = None

    with pytest.raises(InvalidRequestError):
        SamplingParams(structured_outputs=params)


def test_objects_are_closed_where_the_schema_leaves_them_open() -> None:
    schema = {
        "properties": {
            "a": {"properties": {}},
            "b": {"properties": {}, "additionalProperties": {}},
        },
        "enum": [{"properties": 1}],
        "items": [{"properties": {}}],
    }

    closed = grammar_source(
        StructuredOutputsParams(json=schema, disable_additional_properties=True)
    )

    assert closed.count('"additionalProperties":false') == 3
    assert '"enum":[{"properties":1}]' in closed
