"""Markers with a checkpoint's suffix."""

from __future__ import annotations

from formats.folding import events_of, fold

from rillm.formats.registry import combine
from rillm.model_formats.suffix import resolve

FORMAT = combine("hy_v4", "hy_v4")
NAMES = ("think", "tool_calls", "tool_call", "arg_key", "arg_value")
TOKENS = [f"<{slash}{name}:6124c78e>" for name in NAMES for slash in ("", "/")]


def test_markers_are_spelled_as_the_vocabulary_has_them() -> None:
    format = resolve(FORMAT, [*TOKENS, "<eos:6124c78e>"])
    text = (
        "look</think:6124c78e>High.<tool_calls:6124c78e><tool_call:6124c78e>moon"
        "<arg_key:6124c78e>d</arg_key:6124c78e><arg_value:6124c78e>3</arg_value:6124c78e>"
        "</tool_call:6124c78e></tool_calls:6124c78e>"
    )
    answer = fold(events_of(format, [text]))
    assert (answer.reasoning, answer.content) == ("look", "High.")
    assert [(call.name, call.arguments) for call in answer.calls] == [("moon", '{"d": "3"}')]


def test_the_bare_spelling_is_text_then() -> None:
    answer = fold(events_of(resolve(FORMAT, TOKENS), ["a<tool_call>b"], start="content"))
    assert answer.content == "a<tool_call>b"


def test_a_vocabulary_without_suffixes_keeps_the_bare_spelling() -> None:
    bare = [token.replace(":6124c78e", "") for token in TOKENS]
    assert resolve(FORMAT, bare).calls == FORMAT.calls
    assert resolve(FORMAT, []).reasoning == FORMAT.reasoning


def test_a_format_without_suffixes_stays_as_it_is() -> None:
    format = combine("qwen3_coder", "qwen3")
    assert resolve(format, TOKENS) is format
