"""What the playground makes of text while it arrives: Markdown, JSON, server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from browsing import GatedEngine, serve
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

RENDER = """async pieces => {
  const { MarkdownView } = await import("/playground/markdown.js");
  const root = document.createElement("div");
  const view = new MarkdownView(root);
  for (const piece of pieces) view.append(piece);
  view.end();
  for (const each of root.querySelectorAll("figcaption, [tabindex]")) {
    each.localName === "figcaption" ? each.remove() : each.removeAttribute("tabindex");
  }
  root.normalize();
  return root.innerHTML;
}"""

LINK = '<a href="{0}" target="_blank" rel="noopener noreferrer" title="{0}">{1}</a>'
CODE = '<figure class="code"><pre aria-label="Code"><code>{}</code></pre></figure>'

CASES = {
    "plain <b>text</b> & more": "<p>plain &lt;b&gt;text&lt;/b&gt; &amp; more</p>",
    "a *b* **c** ***d*** ~~e~~ `f*g*`": (
        "<p>a <em>b</em> <strong>c</strong> <strong><em>d</em></strong> <del>e</del> "
        "<code>f*g*</code></p>"
    ),
    "2 * 3 * 4, snake_case_name, 5*": "<p>2 * 3 * 4, snake_case_name, 5*</p>",
    "*never closed and `neither": "<p>*never closed and `neither</p>",
    r"\*not\* ``a`b``": "<p>*not* <code>a`b</code></p>",
    "line\nbreak\n\nnext": "<p>line\nbreak</p><p>next</p>",
    "# One\ntext\n#hash": "<h3>One</h3><p>text\n#hash</p>",
    "- a\n- b\n  - c\n- d": (
        "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p></li></ul></li><li><p>d</p></li></ul>"
    ),
    "1. a\n\n   more\n2. b\n\nafter": (
        "<ol><li><p>a</p><p>more</p></li><li><p>b</p></li></ol><p>after</p>"
    ),
    "3) c": '<ol start="3"><li><p>c</p></li></ol>',
    "12 apples\n- ": "<p>12 apples\n-</p>",
    "> a\n> - b\n\nc": "<blockquote><p>a</p><ul><li><p>b</p></li></ul></blockquote><p>c</p>",
    "a\n\n---\nb": "<p>a</p><hr><p>b</p>",
    "```py\nif a < b:\n    *c*\n\n```\nd": CODE.format("if a &lt; b:\n    *c*\n\n") + "<p>d</p>",
    "~~~\n```\n~~~": CODE.format("```\n"),
    "```\nnever closed": CODE.format("never closed\n"),
    "- a\n  ```\n  b\n  ```": f"<ul><li><p>a</p>{CODE.format('b' + chr(10))}</li></ul>",
    "| a | b |\n|---|---|\n| *c* | d |\nafter": (
        '<div class="table" role="region" aria-label="Table"><table>'
        '<thead><tr><th scope="col">a</th><th scope="col">b</th></tr></thead>'
        "<tbody><tr><td><em>c</em></td><td>d</td></tr></tbody></table></div><p>after</p>"
    ),
    "| no table": "<p>| no table</p>",
    "[a *b*](https://a.example/x_(y)) [c] (d)": (
        f"<p>{LINK.format('https://a.example/x_(y)', 'a <em>b</em>')} [c] (d)</p>"
    ),
    "see https://a.example/x.": f"<p>see {LINK.format('https://a.example/x', 'https://a.example/x')}.</p>",
    "[x](javascript:alert(1)) [y](data:text/html,a) [z](/v1) [w](//a.example)": (
        "<p>[x](javascript:alert(1)) [y](data:text/html,a) [z](/v1) [w](//a.example)</p>"
    ),
    "![p](https://a.example/p.png)": f"<p>!{LINK.format('https://a.example/p.png', 'p')}</p>",
}

PIECES = st.lists(
    st.sampled_from(
        ["*", "**", "_", "`", "```", "~~", "[", "](", ")", "\n", "\n\n", "- ", "  ", "1. ", "> "]
        + ["# ", "|", "---", "\\", "<b>", "https://a.example", "a", "word ", "é☃", " "]
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with serve(GatedEngine("Fine.")) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        yield page
        context.close()


@pytest.mark.parametrize("text", CASES)
def test_markdown_becomes_elements(page: Page, text: str) -> None:
    assert page.evaluate(RENDER, [text]) == CASES[text]


@pytest.mark.parametrize("text", CASES)
def test_markdown_is_the_same_character_by_character(page: Page, text: str) -> None:
    assert page.evaluate(RENDER, list(text)) == CASES[text]


@settings(max_examples=150)
@given(pieces=PIECES)
def test_markdown_is_the_same_however_it_is_cut(page: Page, pieces: list[str]) -> None:
    text = "".join(pieces)

    whole = page.evaluate(RENDER, [text])

    assert page.evaluate(RENDER, pieces) == whole
    assert page.evaluate(RENDER, list(text)) == whole


def test_markdown_that_has_been_shown_is_not_made_again(page: Page) -> None:
    """All text ever put into the page is a small multiple of the text that came."""
    paragraph = "Some **bold** words, `code` and a [link](https://a.example/). " * 20
    text = f"{paragraph}\n\n- item\n- *item*\n\n```\n{'code line' * 500}\n```\n" * 5

    made = page.evaluate(
        """async text => {
          const { MarkdownView } = await import("/playground/markdown.js");
          let made = 0;
          const create = document.createTextNode.bind(document);
          const append = CharacterData.prototype.appendData;
          document.createTextNode = data => { made += data.length; return create(data); };
          CharacterData.prototype.appendData = function (data) {
            made += data.length;
            return append.call(this, data);
          };
          const view = new MarkdownView(document.createElement("div"));
          for (let at = 0; at < text.length; at += 4) view.append(text.slice(at, at + 4));
          view.end();
          delete document.createTextNode;
          CharacterData.prototype.appendData = append;
          return made;
        }""",
        text,
    )

    assert len(text) > 20_000
    assert made < 10 * len(text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=80)
@given(value=JSON_VALUES, spaced=st.booleans())
def test_json_is_laid_out_as_it_comes(page: Page, value: Any, spaced: bool) -> None:
    separators = (", ", ": ") if spaced else (",", ":")
    text = json.dumps(value, ensure_ascii=False, separators=separators)

    pieces = page.evaluate(
        """async parts => {
          const { JsonLayout } = await import("/playground/json_text.js");
          const layout = new JsonLayout();
          return parts.flatMap(part => layout.push(part));
        }""",
        list(text),
    )

    assert "".join(part for _, part in pieces) == json.dumps(value, ensure_ascii=False, indent=2)
    assert "".join(part for kind, part in pieces if kind == "key") == "".join(
        json.dumps(key, ensure_ascii=False) for key in keys_of(value)
    )


def keys_of(value: Any) -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield key
        yield from keys_of(inner)
    for inner in value if isinstance(value, list) else ():
        yield from keys_of(inner)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_decoded_however_they_are_cut(page: Page, end: str, size: int) -> None:
    lines = [
        ": ping",
        "",
        "data: {}",
        "",
        "event: x",
        "data:a",
        "data:  b",
        "",
        "",
        "data",
        "data: c",
    ]
    text = end.join([*lines, "", ""])

    events = page.evaluate(
        """async parts => {
          const { EventDecoder } = await import("/playground/sse.js");
          const decoder = new EventDecoder();
          return parts.flatMap(part => decoder.push(part));
        }""",
        [text[at : at + size] for at in range(0, len(text), size)],
    )

    assert events == ["{}", "a\n b", "\nc"]
