"""Formats that a checkpoint declares: the `response_template` of its tokenizer_config.json.

Version 1 of the declaration has an anchor, where the assistant's message starts, and a field for
each of `thinking`, `content` and `tool_calls`: what opens and closes it, and how to parse what is
inside. Delimiters are literals, or regular expressions; of those, the ones that are literals with
named groups between them are understood, and the others are refused.

Source: Transformers 5, `transformers.utils.chat_parsing`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from rillm.formats.description import Calls, Format, Header, Reasoning
from rillm.formats.syntax.base import CallSyntax
from rillm.formats.syntax.braces import BraceCall
from rillm.formats.syntax.header import HeaderJson
from rillm.formats.syntax.json_calls import JsonArray, JsonCall
from rillm.formats.syntax.tagged import Tagged
from rillm.formats.values import Trim

_FIELDS: Final = frozenset({"thinking", "content", "tool_calls"})
_GROUP: Final = re.compile(r"\(\?P<(\w+)>((?:[^()\\\[\]|]|\\.|\[(?:[^\]\\]|\\.)*\])*)\)")
_LITERAL: Final = re.compile(r"[^\\.^$*+?{}\[\]|()]|\\([^\w]|[nrt])")
_CONTROLS: Final = {"n": "\n", "r": "\r", "t": "\t"}
_FREE_SPACE: Final = re.compile(r"^(?:\\s[*+]|\\n[*+?])+|(?:\\s[*+]|\\n[*+?])+$")
_PLACEHOLDER: Final = re.compile(r"\{([\w.]+)\}")
_SPACE: Final = " \t\r\n"


class ResponseTemplateError(ValueError):
    """A declaration that is malformed, or more than the formats can express.

    Attributes:
        field: the path of the entry that is at fault, such as `tool_calls.open_pattern`.
    """

    def __init__(self, field: str, reason: str) -> None:
        """Say which entry it is, and why."""
        super().__init__(f"response_template: {field} {reason}")
        self.field = field


def resolve_template(template: Mapping[str, Any]) -> Format:
    """Turn a declaration into a format.

    Args:
        template: the value of `response_template`.

    Raises:
        ResponseTemplateError: it is malformed, or needs what the formats cannot express.
    """
    if template.get("version", 1) != 1:
        raise ResponseTemplateError("version", f"must be 1, is {template['version']!r}")
    fields = template.get("fields")
    if not isinstance(fields, Mapping) or not fields:
        raise ResponseTemplateError("fields", "must be an object with at least one field")
    for name, value in fields.items():
        if name not in _FIELDS:
            known = ", ".join(sorted(_FIELDS))
            raise ResponseTemplateError(f"fields.{name}", f"is unknown, must be one of {known}")
        if not isinstance(value, Mapping):
            raise ResponseTemplateError(name, "must be an object")
    anchors = _delimiters(template, "", "start_anchor")
    if not anchors:
        raise ResponseTemplateError("start_anchor", "is missing")
    content = fields.get("content", {})
    content_open = _delimiters(content, "content", "open")
    _check_text(content, "content")
    reasoning, calls = _reasoning(fields), _calls(fields)
    ends = _delimiters(content, "content", "close")
    header = None
    if content_open or "content" not in fields:
        header = Header(
            open=anchors,
            end=content_open,
            message_end=(*ends, *(reasoning.close if reasoning is not None else ())),
            holds_calls=True,
        )
    return Format(
        names=("hf", "beam"),
        reasoning_names=("hf", "beam"),
        family="declared by the checkpoint",
        reasoning=reasoning,
        calls=calls,
        header=header,
        absorbed=ends if header is None else (),
        turn=anchors,
        mixes=False,
    )


def _delimiters(field: Mapping[str, Any], name: str, key: str) -> tuple[str, ...]:
    """The literals of one delimiter; empty where the field has none."""
    path, pattern_key = f"{name}.{key}".lstrip("."), f"{key}_pattern"
    if pattern_key in field:
        if key in field:
            raise ResponseTemplateError(path, f"excludes {pattern_key}")
        parts, _ = _parts(field[pattern_key], f"{path}_pattern")
        if len(parts) > 1 or not parts[0]:
            raise ResponseTemplateError(f"{path}_pattern", "must be a literal without groups")
        return tuple(parts)
    value = field.get(key, [])
    literals = [value] if isinstance(value, str) else value
    if not isinstance(literals, list) or not all(
        isinstance(each, str) and each for each in literals
    ):
        raise ResponseTemplateError(path, "must be a string or a list of strings, not empty")
    return tuple(literals)


def _parts(pattern: Any, path: str) -> tuple[list[str], list[str]]:
    """Take a regular expression apart that is made of literals and named groups.

    Returns:
        The literals, one more than there are groups; and the names of the groups.
    """
    if not isinstance(pattern, str):
        raise ResponseTemplateError(path, "must be a string")
    pieces = _GROUP.split(pattern)
    literals = []
    for piece in pieces[::3]:
        bare = _FREE_SPACE.sub("", piece)
        if "".join(match[0] for match in _LITERAL.finditer(bare)) != bare:
            raise ResponseTemplateError(
                path,
                f"{pattern!r} is more than literals with named groups between them; "
                "choose a format by its name instead",
            )
        literals.append(
            _LITERAL.sub(
                lambda match: _CONTROLS.get(match[1], match[1]) if match[1] else match[0], bare
            )
        )
    return literals, pieces[1::3]


def _check_text(field: Mapping[str, Any], name: str) -> None:
    if field.get("content", "text") != "text":
        raise ResponseTemplateError(f"{name}.content", "must be 'text'")
    if "transform" in field:
        raise ResponseTemplateError(f"{name}.transform", "has no meaning in a stream of text")


def _arguments(field: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    arguments = field.get("content_args", {})
    if not isinstance(arguments, Mapping):
        raise ResponseTemplateError(f"{name}.content_args", "must be an object")
    return arguments


def _reasoning(fields: Mapping[str, Any]) -> Reasoning | None:
    field = fields.get("thinking")
    if field is None:
        return None
    _check_text(field, "thinking")
    opens = _delimiters(field, "thinking", "open")
    if not opens:
        raise ResponseTemplateError("thinking.open", "is missing: the answer is what has no fence")
    strips = _arguments(field, "thinking").get("strip", True)
    return Reasoning(
        open=opens,
        close=_delimiters(field, "thinking", "close"),
        starts_open=False,
        space=_SPACE if strips else "",
    )


def _calls(fields: Mapping[str, Any]) -> Calls | None:
    field = fields.get("tool_calls")
    if field is None:
        return None
    strips = _arguments(fields.get("content", {}), "content").get("strip", True)
    closes = _delimiters(field, "tool_calls", "close")
    name_end: str | None = None
    opens: tuple[str, ...]
    if "open_pattern" in field:
        literals, groups = _parts(field["open_pattern"], "tool_calls.open_pattern")
        if len(groups) > 1 or not literals[0]:
            raise ResponseTemplateError(
                "tool_calls.open_pattern", "must begin with a literal and have one group at most"
            )
        opens = (literals[0],)
        if groups:
            name_end = literals[1]
            _check_transform(field, groups[0])
    else:
        opens = _delimiters(field, "tool_calls", "open")
        if not opens:
            raise ResponseTemplateError("tool_calls.open", "is missing")
    syntax = _syntax(field, name_end, closes)
    return Calls(
        syntax=syntax,
        item_open=opens,
        item_close=() if isinstance(syntax, Tagged) else closes,
        space="trim" if strips else "keep",
    )


def _syntax(field: Mapping[str, Any], name_end: str | None, closes: tuple[str, ...]) -> CallSyntax:
    """How a call is written between its delimiters."""
    arguments = _arguments(field, "tool_calls")
    match field.get("content", "text"):
        case "json" if arguments.get("string_delims"):
            return _brace_call(arguments, name_end)
        case "json" if arguments.get("unquoted_keys"):
            raise ResponseTemplateError(
                "tool_calls.content_args.unquoted_keys", "needs string_delims of its own"
            )
        case "json" if name_end is not None:
            return HeaderJson(name_end=(name_end or "{",))
        case "json":
            return _json_call(field)
        case "xml-inline" if name_end:
            return _tagged(arguments, name_end, closes)
        case "xml-inline":
            raise ResponseTemplateError(
                "tool_calls.open_pattern", "must capture the function's name, up to a literal"
            )
        case other:
            raise ResponseTemplateError(
                "tool_calls.content", f"must be 'json' or 'xml-inline', is {other!r}"
            )


def _check_transform(field: Mapping[str, Any], group: str) -> None:
    """Check that the call's name is what the opener captures, its arguments the content."""
    call = _function(field)
    if call.get("name") != f"{{{group}}}" or call.get("arguments") != "{content}":
        raise ResponseTemplateError(
            "tool_calls.transform",
            f"must have the name {{{group}}}, which the opener captures, and the arguments "
            "{content}",
        )


def _function(field: Mapping[str, Any]) -> Mapping[str, Any]:
    transform = field.get("transform", {})
    call = transform.get("function", transform) if isinstance(transform, Mapping) else None
    if not isinstance(call, Mapping):
        raise ResponseTemplateError("tool_calls.transform", "must be an object")
    return call


def _json_call(field: Mapping[str, Any]) -> CallSyntax:
    """An object or, where the transform is for each, an array of them."""
    is_each = bool(field.get("transform_each"))
    call = (
        {"id": field.get("transform", {}).get("id"), **_function(field)}
        if ("transform" in field)
        else {}
    )
    keys: dict[str, tuple[str, ...]] = {}
    for name in ("name", "arguments", "id"):
        if call.get(name) is None:
            continue
        match = _PLACEHOLDER.fullmatch(str(call[name]))
        path = match[1] if match is not None else ""
        key = path if is_each else path.removeprefix("content.")
        if not key or "." in key or (not is_each and key == path):
            raise ResponseTemplateError(
                "tool_calls.transform", f"has the {name} {call[name]!r}, must be a key of the call"
            )
        keys[name] = (key,)
    item = JsonCall(
        name=keys.get("name", ("name",)),
        arguments=keys.get("arguments", ("arguments",)),
        id=keys.get("id", ()),
    )
    return JsonArray(item=item) if is_each else item


def _brace_call(arguments: Mapping[str, Any], name_end: str | None) -> BraceCall:
    delimiters = arguments["string_delims"]
    if name_end != "":
        raise ResponseTemplateError(
            "tool_calls.open_pattern", "must end with the function's name before an unquoted object"
        )
    pairs = [tuple(each) for each in delimiters]
    if any(len(pair) != 2 or pair[0] != pair[1] for pair in pairs):
        raise ResponseTemplateError(
            "tool_calls.content_args.string_delims", "must open and close with the same literal"
        )
    return BraceCall(quote=tuple(pair[0] for pair in pairs))


def _tagged(arguments: Mapping[str, Any], name_end: str, closes: tuple[str, ...]) -> Tagged:
    path = "tool_calls.content_args"
    pattern = arguments.get("tag_pattern")
    literals, groups = _parts(pattern, f"{path}.tag_pattern")
    if groups != ["key", "value"] or not all(literals):
        raise ResponseTemplateError(
            f"{path}.tag_pattern", "must have the groups key and value, between literals"
        )
    if arguments.get("merge_duplicates"):
        raise ResponseTemplateError(f"{path}.merge_duplicates", "would change what was streamed")
    parser = arguments.get("value_parser") or {}
    name = parser.get("name", "text") if isinstance(parser, Mapping) else None
    if name not in ("text", "json"):
        raise ResponseTemplateError(f"{path}.value_parser", "must be 'text' or 'json'")
    opening, key_end, closing = (literal.strip("\n") for literal in literals)
    trim: Trim = "none"
    if parser and name == "text" or re.search(r"\\s[*+]\(\?P<value>", str(pattern)):
        trim = "strip"
    elif (key_end, closing) != tuple(literals[1:]) or r"\n?" in str(pattern):
        trim = "newline"
    return Tagged(
        name_end=(name_end,),
        close=closes,
        key_open=(opening,),
        key_end=(key_end,),
        value_close=(closing,),
        trim=trim,
        typing="json" if name == "json" else "schema",
    )
