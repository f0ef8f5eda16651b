"""Calls written as nested elements become JSON that means the same, however they arrive."""

from __future__ import annotations

import json
from typing import Any

from formats.folding import cut_at, events_of, fold
from hypothesis import given, settings
from hypothesis import strategies as st

from rillm.formats.registry import combine

TAG = "]<]minimax[>["
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True).filter(lambda key: key != "invoke")
LEAVES = st.one_of(
    st.tuples(
        st.just({"type": "string"}),
        (st.text() | st.text(alphabet="]<minax[>/ \n")).filter(lambda text: TAG not in text),
    ),
    st.tuples(st.just({"type": "integer"}), st.integers()),
    st.tuples(st.just({"type": "boolean"}), st.booleans()),
)


def _arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda pair, size: ({"type": "array", "items": pair[0]}, [pair[1]] * size),
        inner,
        st.integers(min_value=0, max_value=3),
    )


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(KEYS, inner, max_size=4).map(
        lambda members: (
            {"type": "object", "properties": {key: pair[0] for key, pair in members.items()}},
            {key: pair[1] for key, pair in members.items()},
        )
    )


TYPED = _objects(st.recursive(LEAVES, lambda inner: _arrays(inner) | _objects(inner), max_leaves=8))
POINTS = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


def written(value: Any) -> str:
    """What stands inside the element of a value."""
    match value:
        case dict():
            return "".join(element(key, item) for key, item in value.items())
        case list():
            return "".join(element("item", item) for item in value)
        case str():
            return value
        case _:
            return json.dumps(value)


def element(key: str, value: Any) -> str:
    """A whole element."""
    return f"{TAG}<{key}>{written(value)}{TAG}</{key}>"


@settings(max_examples=300)
@given(typed=TYPED, points=POINTS)
def test_arguments_survive(typed: tuple[dict[str, Any], dict[str, Any]], points: list[int]) -> None:
    schema, arguments = typed
    tools = [{"name": "tide", "parameters": schema}]
    call = f'{TAG}<invoke name="tide">{written(arguments)}{TAG}</invoke>'
    text = f"{TAG}<tool_call>\n{call}\n{TAG}</tool_call>"
    answer = fold(events_of(combine("minimax_m3", None), cut_at(text, points), tools))
    assert answer.content == ""
    assert answer.calls[0].is_complete
    assert json.loads(answer.calls[0].arguments) == arguments


def test_deep_nesting_is_no_fault() -> None:
    text = f'{TAG}<tool_call>{TAG}<invoke name="tide">' + f"{TAG}<a>" * 5_000
    answer = fold(events_of(combine("minimax_m3", None), [text + f"{TAG}</invoke>"]))
    assert [(call.arguments, call.is_complete) for call in answer.calls] == [("{}", True)]
