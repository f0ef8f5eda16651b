"""How calls are written, for each kind of syntax."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rillm.format_grammars.branches import Branches, members
from rillm.format_grammars.elements import ElementValues
from rillm.format_grammars.lark import (
    GrammarError,
    Lark,
    any_of,
    json_value,
    literal,
    optional,
    regex,
    repeated,
    sequence,
)
from rillm.format_grammars.layout import Layout
from rillm.format_grammars.literals import Literals, PythonLiterals
from rillm.format_grammars.raw_values import RawValues
from rillm.format_grammars.spelling import Spelling
from rillm.formats.schema import types
from rillm.formats.syntax.base import CallSyntax, Schema
from rillm.formats.syntax.braces import BraceCall
from rillm.formats.syntax.either import Either
from rillm.formats.syntax.elements import Elements
from rillm.formats.syntax.header import HeaderJson
from rillm.formats.syntax.json_calls import JsonArray, JsonCall
from rillm.formats.syntax.python_calls import PythonCalls
from rillm.formats.syntax.tagged import Tagged

_NAME: Final = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_KEY: Final = re.compile(r"[^\s<>\"'=&{}\[\](),:]+")
_INDEX: Final = "/[0-9]{1,3}/"
_SPACE: Final = r"/\n{1,2} {0,8}| {1,8}/"
"""Whitespace that means nothing; never without end."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that may be called."""

    name: str
    schema: Schema
    is_strict: bool
    """Whether a schema that cannot be enforced is an error."""


@dataclass(frozen=True, slots=True)
class CallWriter:
    """What the parts of a grammar share."""

    lark: Lark
    spelling: Spelling
    layout: Layout
    before: tuple[str, ...] = ()
    """The marker before each call, as far as it is the frame's."""

    def calls(
        self,
        syntax: CallSyntax,
        tools: Sequence[Tool],
        *,
        is_parallel: bool,
        is_opened: bool = False,
    ) -> str:
        """What stands in one frame: a call, or several where the syntax has room for them.

        Args:
            syntax: how they are written.
            tools: the functions of which one is called each time.
            is_parallel: whether there may be several calls.
            is_opened: whether the first call's own marker has been written.
        """
        ways = self._ways(syntax)
        if len(ways) > 1 and not is_opened:
            return any_of(self.calls(each, tools, is_parallel=is_parallel) for each in ways)
        syntax = ways[-1]
        first = self.lark.rule("call", any_of(self._call(syntax, each) for each in tools))
        lead = self.lead(syntax)
        call = sequence(self.spelling.mark(lead), first) if lead else first
        separator = self.space
        if isinstance(syntax, JsonArray):
            separator = sequence(literal(","), self.space)
        elif isinstance(syntax, JsonCall) and syntax.separator:
            separator = sequence(literal(syntax.separator), self.space)
        elif isinstance(syntax, PythonCalls):
            separator = "/, ?/" if syntax.needs_brackets else literal("\n")
        elif not syntax.leads():
            is_parallel = False
        first = first if is_opened else call
        rest = repeated(sequence(separator, call))
        several = sequence(first, rest) if is_parallel else first
        if isinstance(syntax, JsonArray):
            return sequence(literal("["), self.space, several, self.space, literal("]"))
        if isinstance(syntax, PythonCalls) and syntax.needs_brackets:
            return sequence(literal("["), several, literal("]"))
        return several

    def _call(self, syntax: CallSyntax, tool: Tool) -> str:
        try:
            return _WRITERS[type(syntax)](self, syntax, tool)
        except GrammarError as error:
            raise GrammarError(f"function {tool.name!r}: {error}") from error
        except RecursionError:
            raise GrammarError(f"function {tool.name!r}: is nested too deeply") from None

    @property
    def space(self) -> str:
        """Whitespace between markers, or none."""
        return optional(self.lark.terminal("SPACE", _SPACE))

    def lead(self, syntax: CallSyntax) -> str:
        """The marker with which a call itself begins; empty for none."""
        syntax = syntax.tags if isinstance(syntax, Either) else syntax
        return self.layout.shown(syntax.leads())[0] if syntax.leads() else ""

    def _ways(self, syntax: CallSyntax) -> list[CallSyntax]:
        """The syntaxes that one of several ways is made of."""
        if isinstance(syntax, Either):
            return [syntax.json, syntax.tags]
        if not isinstance(syntax, HeaderJson) or syntax.json is None:
            return [syntax]
        # A checkpoint that has no token for the end of a header writes JSON in place of headers.
        if not self.spelling.tokens.stand_ins:
            return [syntax.json, replace(syntax, json=None)]
        is_older = self.spelling.is_text(syntax.name_end[0])
        return [syntax.json if is_older else replace(syntax, json=None)]

    def json_arguments(self, tool: Tool) -> str:
        """The arguments as JSON."""
        return self.lark.rule("arguments", json_value(_object(tool), is_lenient=not tool.is_strict))

    def _objects(self, tool: Tool) -> list[dict[str, Any]]:
        """The alternatives of the schema of all arguments."""
        branches = Branches(self.lark, tool.schema, is_strict=tool.is_strict).of(_object(tool))
        return [each for each in branches if each.get("type") == "object"]

    def _json_call(self, syntax: JsonCall, tool: Tool) -> str:
        key, name = self.layout.key, json.dumps(tool.name, ensure_ascii=False)
        arguments = self.json_arguments(tool)
        if syntax.unnamed:
            return sequence(literal(f"{{{name}:"), "/ ?/", arguments, self.space, literal("}"))
        call_id = f'"{key(syntax.id)}": ?"[0-9]{{1,3}}", ?' if syntax.id else ""
        # As one terminal, it is told from text that begins with a brace.
        head = rf'[ \n]{{0,2}}\{{[ \n]{{0,8}}{call_id}"{key(syntax.name)}":'
        return sequence(
            regex(head),
            "/ ?/",
            literal(f"{name},"),
            self.space,
            literal(f'"{key(syntax.arguments)}":'),
            "/ ?/",
            arguments,
            self.space,
            literal("}"),
        )

    def _array_item(self, syntax: JsonArray, tool: Tool) -> str:
        return self._json_call(syntax.item, tool)

    def _header(self, syntax: HeaderJson, tool: Tool) -> str:
        mark, layout = self.spelling.mark, self.layout
        shown = [each for each in syntax.prefix if layout.shows(f"{each}{_SAMPLE}")]
        prefix = [each for each in shown if each not in self.before]
        name = _checked_name(tool)
        header = literal(name)
        if re.fullmatch(syntax.header, name) is None:
            header = sequence(literal(f"functions.{name}:"), _INDEX)
        return sequence(
            *map(mark, prefix[:1]),
            header,
            self.space,
            mark(layout.shown(syntax.name_end)[0]),
            self.space,
            *map(mark, syntax.arguments_open[:1]),
            self.json_arguments(tool),
            self.space,
            *map(mark, syntax.arguments_close[:1]),
        )

    def _tags(self, syntax: Tagged, tool: Tool) -> str:
        mark, layout, space = self.spelling.mark, self.layout, self.space
        name = _checked_name(tool)
        names = [f"{name}.{name}", name] if syntax.has_namespace and "." not in name else [name]
        opener, end = self.lead(syntax), "".join(syntax.name_end[:1])
        if syntax.name_attribute:
            # What counts calls and says nothing may stand there, too.
            count = optional(sequence(literal(' index="'), _INDEX, literal('"')))
            has_count = layout.shows(f'{syntax.name_attribute}="{_SAMPLE}" index="')
            attribute = f' {syntax.name_attribute}="{name}"'
            head = sequence(literal(attribute), count if has_count else "", mark(end))
        elif opener:
            quoted = [layout.quoted(opener, each).removeprefix(opener) for each in names]
            head = any_of(mark(each + end) for each in quoted)
        else:
            head = sequence(literal(name), space, mark(end) if end else "")
        alternatives = []
        for declared in self._objects(tool):
            arguments = []
            for key, schema, is_required in members(declared):
                argument = sequence(self._argument(syntax, tool, key, schema), space)
                arguments.append(argument if is_required else optional(argument))
            alternatives.append(sequence(*arguments))
        return sequence(head, space, any_of(alternatives), *map(mark, syntax.close[:1]))

    def _argument(self, syntax: Tagged, tool: Tool, key: str, schema: Any) -> str:
        if not _KEY.fullmatch(key):
            raise GrammarError(f"{key!r} cannot be a parameter's name in this model's format")
        mark, layout = self.spelling.mark, self.layout
        values = RawValues(
            lark=self.lark,
            spelling=self.spelling,
            root=tool.schema,
            is_strict=tool.is_strict,
            end=syntax.value_close[:1],
            excluded=(*syntax.key_open, *syntax.close, *syntax.open, *syntax.value_close[1:]),
            trim=syntax.trim,
            is_xml=syntax.is_xml,
        )
        opener = layout.shown(syntax.key_open)[0]
        end = "".join(syntax.key_end[:1])
        if syntax.key_attribute:
            head = f'{opener} {syntax.key_attribute}="{key}"'
        else:
            head = layout.quoted(opener, key)
        if syntax.type_attribute:
            return self._labelled(syntax, f"{head} {syntax.type_attribute}=", end, values, schema)
        before = sequence(self.space, mark(syntax.value_open[0])) if syntax.value_open else ""
        return sequence(mark(head + end), before, values.value(schema))

    def _labelled(self, syntax: Tagged, head: str, end: str, values: RawValues, schema: Any) -> str:
        """An argument whose markup says its type."""
        mark = self.spelling.mark
        labels = ("string", '"number" | "boolean" | "null" | "object" | "array"')
        if syntax.type_attribute == "string":
            labels = ("true", '"false"')
        as_text, as_json = values.labelled(schema)
        found = []
        if as_text is not None:
            found.append(sequence(mark(f'{head}"{labels[0]}"{end}'), as_text))
        if as_json is not None:
            label = sequence(mark(f'{head}"'), f"({labels[1]})", mark(f'"{end}'))
            found.append(sequence(label, as_json))
        return any_of(found)

    def _elements(self, syntax: Elements, tool: Tool) -> str:
        opener = syntax.open[0]
        values = ElementValues(
            self.lark, self.spelling, syntax, tool.schema, is_strict=tool.is_strict
        )
        name = _checked_name(tool)
        head = self.layout.quoted(opener, name).removeprefix(opener) + ">"
        inner = any_of(map(values.members, self._objects(tool)))
        mark = self.spelling.mark
        return sequence(mark(head), self.space, inner, self.space, mark(syntax.close[0]))

    def _python(self, syntax: PythonCalls, tool: Tool) -> str:
        style = PythonLiterals(self.lark, tool.schema, is_strict=tool.is_strict)
        inner = any_of(style.properties(each, style.argument) for each in self._objects(tool))
        return sequence(literal(f"{_checked_name(tool)}("), inner, literal(")"))

    def _braces(self, syntax: BraceCall, tool: Tool) -> str:
        prefix = "".join(self.layout.shown(syntax.prefix)[:1])
        style = BraceLiterals(self, syntax, tool)
        inner = any_of(style.properties(each, style.key) for each in self._objects(tool))
        return sequence(literal(f"{prefix}{_checked_name(tool)}{{"), inner, literal("}"))


class BraceLiterals(Literals):
    """Gemma's literals."""

    comma = literal(",")

    def __init__(self, writer: CallWriter, syntax: BraceCall, tool: Tool) -> None:
        super().__init__(writer.lark, tool.schema, is_strict=tool.is_strict)
        self._mark = writer.spelling.mark(syntax.quote[0])
        self._is_quoted = syntax.strings == "json"
        self._raw = RawValues(
            lark=writer.lark,
            spelling=writer.spelling,
            root=tool.schema,
            is_strict=tool.is_strict,
            end=syntax.quote[:1],
        )

    def value(self, schema: Any) -> str:
        """See `Literals`; where everything is quoted, the schema types it."""
        if self._is_quoted:
            return sequence(self._mark, self._raw.value(schema))
        return super().value(schema)

    def text(self, value: str) -> str:
        """See `Literals`."""
        return sequence(self._mark, self._raw.text([{"enum": [value]}]))

    def string(self, schema: Schema) -> str:
        """See `Literals`."""
        return sequence(self._mark, self._raw.text([dict(schema)]))

    def key(self, name: str) -> str:
        """See `Literals`."""
        if name.isidentifier() and name.isascii():
            return literal(f"{name}:")
        return literal(json.dumps(name, ensure_ascii=False) + ":")

    def free_key(self) -> str:
        """See `Literals`."""
        return sequence("/[A-Za-z_][A-Za-z0-9_]{0,63}/", literal(":"))


_SAMPLE: Final = "tide"
"""The function that examples call."""
_WRITERS: Final[Mapping[type[CallSyntax], Callable[[CallWriter, Any, Tool], str]]] = {
    JsonCall: CallWriter._json_call,
    JsonArray: CallWriter._array_item,
    HeaderJson: CallWriter._header,
    Tagged: CallWriter._tags,
    Elements: CallWriter._elements,
    PythonCalls: CallWriter._python,
    BraceCall: CallWriter._braces,
}


def _checked_name(tool: Tool) -> str:
    if not _NAME.fullmatch(tool.name):
        raise GrammarError(f"{tool.name!r} cannot be a function's name in this model's format")
    return tool.name


def _object(tool: Tool) -> dict[str, Any]:
    """The schema of all arguments; those that it does not speak of are left out."""
    declared = types({"type": tool.schema.get("type")})
    if declared and "object" not in declared:
        raise GrammarError("its arguments are an object, which its schema does not allow")
    schema = {**tool.schema, "type": "object"}
    if "properties" in schema and not schema.keys() & {"anyOf", "oneOf", "allOf", "$ref"}:
        schema.setdefault("additionalProperties", False)
    return schema
