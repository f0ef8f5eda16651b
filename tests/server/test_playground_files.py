"""The playground as files: who gets them, with which headers, and what they may not hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import Answer, ScriptedEngine, call_app, new_app

from rillm.server.options import HttpOptions
from rillm.server.playground import FILES

NAMES = sorted(path.name for path in FILES.iterdir())
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg"}


async def get(path: str, options: HttpOptions | None = None, **headers: str) -> Answer:
    app = new_app(ScriptedEngine(), options)
    sent = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return await call_app(app, path, b"", method="GET", headers=sent)


@pytest.mark.parametrize("name", NAMES)
async def test_every_file_is_served_as_it_is(name: str) -> None:
    answer = await get(f"/playground/{name}")

    assert answer.status == 200
    assert answer.body == (FILES / name).read_bytes()
    assert answer.headers["content-type"].startswith(TYPES[Path(name).suffix])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["", "index.htm", "../app.py", "..%2fapp.py", "a/b.js"])
async def test_nothing_else_is_served(path: str) -> None:
    assert (await get(f"/playground/{path}")).status == 404


async def test_page_lets_only_its_own_files_run() -> None:
    answer = await get("/")

    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"


@pytest.mark.parametrize("known", ["{}", 'W/{}, "other"', '"other" , {}'])
async def test_a_file_that_is_known_is_not_sent_again(known: str) -> None:
    etag = (await get("/")).headers["etag"]

    answer = await get("/", if_none_match=known.format(etag))

    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == etag
    assert "content-security-policy" in answer.headers


async def test_another_version_is_sent() -> None:
    assert (await get("/", if_none_match='"another"')).status == 200


@pytest.mark.parametrize("path", ["/", "/playground/main.js", "/llm/", "/llm/playground/main.js"])
async def test_page_needs_no_key_but_the_api_does(path: str) -> None:
    options = HttpOptions(api_key=("first",), root_path="/llm")

    assert (await get(path, options)).status == 200
    assert (await get("/llm/v1/models", options)).status == 401


async def test_root_path_without_a_slash_leads_to_the_page() -> None:
    answer = await get("/llm", HttpOptions(api_key=("first",), root_path="/llm"))

    assert answer.status == 307
    assert answer.headers["location"].endswith("/llm/")


async def test_an_engine_without_a_tokenizer_has_no_page() -> None:
    from rillm.server.app import create_app

    engine: Any = ScriptedEngine()
    app = create_app(engine, model_names=["m"], model_root="m", tokens_only=True)

    assert (await call_app(app, "/", b"", method="GET")).status == 404


@pytest.mark.parametrize("name", NAMES)
def test_files_are_readable_and_make_no_markup_of_text(name: str) -> None:
    text = (FILES / name).read_text(encoding="utf-8")

    assert text.count("\n") <= 400
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
    # Names of XML's SVG are no addresses; everything else comes from this server.
    addresses = re.findall(r"""["'(]((?:https?:)?//[\w.]+[^"')]*)""", text)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}


def test_page_names_all_scripts_before_they_are_asked_for() -> None:
    """Otherwise each script is found only when the one that imports it has been read."""
    page = (FILES / "index.html").read_text(encoding="utf-8")

    named = re.findall(r'(?:href|src)="playground/([\w.]+)"', page)

    assert set(named) | {"index.html"} == set(NAMES)
