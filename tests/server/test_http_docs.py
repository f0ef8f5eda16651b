"""docs/http.md names every route and every field; its tables are checked to be fresh elsewhere."""

from __future__ import annotations

from pathlib import Path

from scripted_engine import ScriptedEngine, call_app, new_app

from rillm.server.openapi import OPERATIONS

PAGE = Path(__file__).parents[2] / "docs" / "http.md"


async def test_every_route_is_listed() -> None:
    app = new_app(ScriptedEngine())
    paths = (await call_app(app, "/openapi.json", b"", method="GET")).json()["paths"]

    text = PAGE.read_text(encoding="utf-8")
    assert paths.keys() <= OPERATIONS.keys()
    assert all(f"| `{path}` |" in text for path in paths)


def test_every_field_is_listed_and_those_refused_say_so() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for operation in OPERATIONS.values():
        body = operation.body
        if body is None:
            continue
        section = text.partition(f"\n## {body.__name__}\n")[2].partition("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        assert [row.split("`")[1] for row in rows] == list(body.__struct_fields__)
        refused = {row.split("`")[1] for row in rows if row.endswith("| refused when set |")}
        assert refused == set(getattr(body, "UNSUPPORTED", ()))
