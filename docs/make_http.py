"""Writes the tables of docs/http.md from the routes and the types that requests are decoded into.

python docs/make_http.py          # writes
python docs/make_http.py --check  # exits with 1 if the file is not up to date
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
from generated import update

from rillm.sampling_params import RepetitionDetection, SamplingParams
from rillm.server.openapi import OPERATIONS
from rillm.structured_outputs import StructuredOutputsParams

PAGE = Path(__file__).with_name("http.md")


@dataclass(frozen=True)
class Field:
    """One field of a body."""

    name: str
    annotation: str
    default: str | None
    """As the source has it; None: the field has to be sent."""
    meaning: str


def tables() -> str:
    """The table of routes, and one table for each body, as Markdown."""
    rows = ["## Routes", "", "| path | body | what |", "|---|---|---|"]
    bodies: dict[str, type] = {}
    for path, operation in OPERATIONS.items():
        body = operation.body
        if body is not None:
            bodies |= {each.__name__: each for each in _with_nested(body)}
        link = "" if body is None else f"[{body.__name__}](#{body.__name__.lower()})"
        rows.append(f"| `{path}` | {link} | {operation.summary} |")
    for name, struct in bodies.items():
        rows += ["", f"## {name}", "", _first_line(struct), ""]
        rows += ["| field | type | default | support |", "|---|---|---|---|"]
        rows += [_row(struct, field) for field in fields_of(struct)]
    return "\n".join(rows) + "\n"


def fields_of(struct: type) -> list[Field]:
    """The fields of a body, inherited ones first; the string under one is its meaning."""
    own = {field.name: field for base in reversed(struct.__mro__) for field in _own_fields(base)}
    return list(own.values())


def _row(struct: type, field: Field) -> str:
    kind = re.sub(r"\bInt64\b", "int", re.sub(r" \| None\b", "", field.annotation))
    kind = re.sub(r"Annotated\[(\w+), .*?\)\]", r"\1", kind)
    default = {None: "required", "None": ""}.get(field.default, f"`{field.default}`")
    support = field.meaning or _meaning_for_the_engine(field.name) or "yes"
    if field.name in getattr(struct, "UNSUPPORTED", ()):
        kind, support = "", "refused when set"
    cells = (f"`{field.name}`", f"`{kind}`" if kind else "", default, support)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _meaning_for_the_engine(name: str) -> str:
    structs = (SamplingParams, RepetitionDetection, StructuredOutputsParams)
    known = [field for struct in structs for field in _own_fields(struct)]
    return next((each.meaning for each in known if each.name == name), "")


def _with_nested(struct: type) -> Iterator[type]:
    yield struct
    namespace = vars(inspect.getmodule(struct))
    for field in fields_of(struct):
        for name in re.findall(r"\w+", field.annotation):
            nested = namespace.get(name)
            if isinstance(nested, type) and issubclass(nested, msgspec.Struct):
                yield from _with_nested(nested)


def _first_line(struct: type) -> str:
    return (struct.__doc__ or "").splitlines()[0]


@cache
def _own_fields(struct: type) -> list[Field]:
    if not issubclass(struct, msgspec.Struct) or struct is msgspec.Struct:
        return []
    [definition] = ast.parse(inspect.getsource(struct)).body
    assert isinstance(definition, ast.ClassDef)
    fields = []
    for node, after in zip(definition.body, [*definition.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        annotation = ast.unparse(node.annotation).replace("'", '"')
        if annotation.startswith("ClassVar"):
            continue
        default = None if node.value is None else ast.unparse(node.value).replace("'", '"')
        fields.append(Field(node.target.id, annotation, default, _string(after)))
    return fields


def _string(node: ast.stmt | None) -> str:
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return " ".join(text.split())
    return ""


if __name__ == "__main__":
    update(PAGE, "make_http.py", tables)
