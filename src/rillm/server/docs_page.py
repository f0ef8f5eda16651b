"""The OpenAPI document as one page of HTML: no script, nothing loaded from anywhere."""

from __future__ import annotations

from html import escape
from typing import Any, Final

import msgspec

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
summary{cursor:pointer;padding:.3rem 0}code{font-family:ui-monospace,monospace}
.method{display:inline-block;min-width:4rem;font-weight:600}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;
border-bottom:1px solid #8884;padding:.2rem .6rem .2rem 0}
@media(prefers-color-scheme:dark){body{background:#111;color:#eee}a{color:#8cf}}
"""


def docs_page(document: dict[str, Any]) -> str:
    """Show a document.

    Args:
        document: as `rillm.server.openapi.openapi_document` makes it.
    """
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    operations = [
        _operation(path, method, operation, document)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{title}</h1>"
        '<p>Also as <a href="openapi.json">openapi.json</a>.</p>' + "".join(operations) + "</html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    answers = "".join(
        f"<tr><td><code>{escape(status)}</code><td>{escape(answer['description'])}"
        f"<td><code>{escape(', '.join(answer.get('content', {})))}</code>"
        for status, answer in operation["responses"].items()
    )
    return (
        f'<details><summary><span class="method">{escape(method.upper())}</span>'
        f"<code>{escape(path)}</code> {escape(operation['summary'])}</summary>"
        + _fields(operation, document)
        + f"<table><tr><th>Status<th>Meaning<th>Type{answers}</table></details>"
    )


def _fields(operation: dict[str, Any], document: dict[str, Any]) -> str:
    if "requestBody" not in operation:
        return ""
    [media] = operation["requestBody"]["content"].values()
    schema = document["components"]["schemas"][_name(media["schema"])]
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code><td><code>{escape(_type(field))}</code>"
        f"<td>{'required' if name in required else _default(field)}"
        for name, field in schema["properties"].items()
    )
    return f"<table><tr><th>Field<th>Type<th>Default{rows}</table>"


def _name(reference: dict[str, Any]) -> str:
    name: str = reference["$ref"].rpartition("/")[2]
    return name


def _default(field: dict[str, Any]) -> str:
    return f"<code>{escape(msgspec.json.encode(field.get('default')).decode())}</code>"


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " | ".join(_type(each) for each in schema["anyOf"])
    if "$ref" in schema:
        return _name(schema)
    if "enum" in schema:
        return " | ".join(repr(each) for each in schema["enum"])
    kind = schema.get("type", "any")
    items = schema.get("items")
    return f"{kind}[{_type(items)}]" if isinstance(items, dict) else str(kind)
