"""The playground in a real browser, over an engine that says what the test wants."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from browsing import GatedEngine, Visit, serve, wait_until
from playwright.sync_api import Page, expect
from scripted_engine import ScriptedEngine, delta

from rillm.errors import EngineGenerateError
from rillm.server.options import HttpOptions

Open = Callable[..., Visit]

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
HOSTILE = (
    "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script> "
    "![p](http://192.0.2.1/a.png) [a](javascript:document.title='hit') "
    "[b](http://192.0.2.1/b) </div></article>"
)


def say(page: Page, text: str = "hello") -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def is_done(page: Page) -> None:
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator(".turn.is-live")).to_have_count(0)


def test_text_is_shown_while_it_comes(visit: Open) -> None:
    engine = GatedEngine("One two three four.", allowed=3)
    with serve(engine) as url:
        page = visit(url).page
        say(page)
        answer = page.locator(".answer .prose")
        expect(answer).to_have_text(re.compile("^One"))
        expect(answer).not_to_have_text(re.compile("four"))
        expect(page.get_by_role("button", name="Stop")).to_be_visible()

        engine.allowed = 1000
        is_done(page)

        expect(answer).to_have_text("One two three four.")
        expect(page.locator("#announcer")).to_contain_text("Answer: One two three four.")


@pytest.mark.parametrize("by", ["button", "key"])
def test_stop_ends_the_request_on_the_server_and_keeps_what_came(visit: Open, by: str) -> None:
    engine = GatedEngine("One two three four.", allowed=3)
    with serve(engine) as url:
        page = visit(url).page
        say(page)
        expect(page.locator(".answer .prose")).to_have_text(re.compile("^One"))
        assert engine.num_live == 1

        if by == "button":
            page.get_by_role("button", name="Stop").click()
        else:
            page.keyboard.press("Escape")

        wait_until(lambda: engine.num_live == 0)
        is_done(page)
        expect(page.locator(".answer .prose")).to_have_text(re.compile("^One"))
        expect(page.locator(".figures")).to_contain_text("stopped")


def test_arguments_fill_in_and_a_result_goes_back_to_the_model(visit: Open) -> None:
    engine = GatedEngine(CALL, allowed=10)
    with serve(engine) as url:
        page = visit(url).page
        page.get_by_role("button", name="Tools", exact=True).click()
        say(page, "Weather in Oslo?")
        card = page.get_by_role("region", name="Call of get_weather")
        expect(card).to_contain_text("arriving")
        before = card.locator("pre").first.inner_text()
        engine.allowed = 1000
        is_done(page)

        expect(card.locator("pre").first).to_have_text('{\n  "city": "Oslo"\n}')
        assert len(before) < len('{\n  "city": "Oslo"\n}')
        page.get_by_label("Result of get_weather").fill('{"sky": "snow"}')
        page.get_by_role("button", name="Send result").click()
        is_done(page)

        expect(card.first).to_contain_text("answered")
        assert '"name": "get_weather"' in engine.prompts()[0]
        assert '<tool_response>\n{"sky": "snow"}\n</tool_response>' in engine.prompts()[1]
        assert '{"city": "Oslo"}' in engine.prompts()[1]


def test_reasoning_is_open_while_it_comes_and_folds_after(visit: Open) -> None:
    engine = GatedEngine("<think>\nLet me see.\n</think>\n\nYes.", allowed=5)
    with serve(engine) as url:
        page = visit(url).page
        page.get_by_role("button", name="Reasoning", exact=True).click()
        say(page)
        reasoning = page.locator("details.reasoning")
        expect(reasoning).to_have_attribute("open", "")
        expect(reasoning).to_contain_text("Let")
        engine.allowed = 1000
        is_done(page)

        expect(reasoning).not_to_have_attribute("open", "")
        expect(page.locator(".prose")).to_have_text("Yes.")
        page.get_by_text("Reasoned for").click()
        expect(page.get_by_text("Let me see.")).to_be_visible()


def test_choices_stand_side_by_side_and_one_goes_on(visit: Open) -> None:
    engine = GatedEngine("First words.", "Second words.")
    with serve(engine) as url:
        page = visit(url, viewport={"width": 1280, "height": 800}).page
        page.get_by_label("Answers (n)").fill("2")
        say(page)
        is_done(page)
        columns = page.locator(".column")
        expect(columns).to_have_count(2)
        boxes = [columns.nth(index).bounding_box() for index in range(2)]
        assert boxes[0]
        assert boxes[1]
        assert boxes[0]["y"] == boxes[1]["y"]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        expect(columns.nth(1)).to_contain_text("Second words.")

        page.get_by_label("Answer 2", exact=True).get_by_role("radio").check()
        say(page, "again")
        is_done(page)

        assert "assistant\nSecond words.<" in engine.prompts()[1]
        assert "First words." not in engine.prompts()[1]


def test_reload_keeps_conversation_and_settings(visit: Open) -> None:
    engine = GatedEngine("<think>\nHm.\n</think>\n\nFine.")
    with serve(engine) as url:
        page = visit(url, viewport={"width": 1280, "height": 800}).page
        page.get_by_label("Temperature").fill("0.7")
        say(page)
        is_done(page)

        page.reload()

        expect(page.locator(".user-text")).to_have_text("hello")
        expect(page.locator(".answer .prose")).to_have_text("Fine.")
        expect(page.get_by_label("Temperature")).to_have_value("0.7")
        say(page, "and then?")
        is_done(page)
        assert "hello" in engine.prompts()[1]
        assert engine.seen[1][1].temperature == 0.7

        page.get_by_role("button", name="New conversation").click()
        expect(page.locator(".turn")).to_have_count(0)
        page.get_by_role("button", name="Undo").click()
        expect(page.locator(".turn")).to_have_count(4)


def test_page_left_in_the_middle_keeps_what_came(visit: Open) -> None:
    engine = GatedEngine("One two three four.", allowed=3)
    with serve(engine) as url:
        page = visit(url).page
        say(page)
        expect(page.locator(".answer .prose")).to_have_text(re.compile("^One"))

        page.reload()

        expect(page.locator(".answer .prose")).to_have_text(re.compile("^One"))
        wait_until(lambda: engine.num_live == 0)


@pytest.mark.parametrize("view", ["text", "tokens"])
def test_hostile_output_is_inert(visit: Open, view: str) -> None:
    call = json.dumps({"name": "get_weather", "arguments": {"city": HOSTILE}})
    text = f"<think>\n{HOSTILE}\n</think>\n\n{HOSTILE}\n\n```html\n{HOSTILE}\n```\n"
    engine = GatedEngine(f"{text}\n<tool_call>\n{call}\n</tool_call>")
    with serve(engine) as url:
        visited = visit(url)
        page = visited.page
        page.get_by_role("button", name="Tools", exact=True).click()
        page.get_by_role("button", name="Reasoning", exact=True).click()
        say(page, HOSTILE)
        is_done(page)
        if view == "tokens":
            page.get_by_role("button", name="Tokens").click()
        page.reload()

        title = page.title()
        found = page.locator("#turns").locator("img, script, iframe, object, embed, link, style")
        expect(found).to_have_count(0)
        assert "hit" not in title
        hrefs = [link.get_attribute("href") for link in page.locator("#turns a").all()]
        assert hrefs == ["http://192.0.2.1/a.png", "http://192.0.2.1/b"]
        for link in page.locator("#turns a").all():
            assert link.get_attribute("rel") == "noopener noreferrer"
        expect(page.locator(".prose p").first).to_contain_text("<img src=x")
        assert all(each.startswith(url) for each in visited.urls), visited.urls
        assert visited.complaints == []


def test_nothing_is_asked_of_other_hosts_and_nothing_complains(visit: Open) -> None:
    with serve(GatedEngine("Fine.")) as url:
        visited = visit(url, viewport={"width": 1280, "height": 800})
        page = visited.page
        say(page)
        is_done(page)
        for name in ("Tokens", "Timeline"):
            page.get_by_role("button", name=name).click()
        page.get_by_role("button", name=re.compile("^Theme")).click()
        page.get_by_role("button", name="Export").click()

        assert len(visited.urls) > 20
        assert all(each.startswith(f"{url}/") for each in visited.urls)
        assert visited.complaints == []


def test_what_the_server_refuses_is_said_in_words_beside_the_field(visit: Open) -> None:
    engine = GatedEngine("Fine.")
    with serve(engine) as url:
        page = visit(url, viewport={"width": 1280, "height": 800}).page
        page.get_by_label("Temperature").fill("5")
        say(page)

        expect(page.get_by_role("alert").filter(has_text="must be in [0, 2]").first).to_be_visible()
        expect(page.get_by_label("Temperature")).to_have_attribute("aria-invalid", "true")
        page.get_by_label("Temperature").fill("1")
        expect(page.get_by_label("Temperature")).not_to_have_attribute("aria-invalid", "true")
        page.get_by_role("button", name="Answer again").click()
        is_done(page)
        expect(page.locator(".answer")).to_have_count(1)
        expect(page.locator(".answer .prose")).to_have_text("Fine.")


def test_settings_that_cannot_be_sent_are_said_before_anything_is_sent(visit: Open) -> None:
    engine = GatedEngine("Fine.")
    with serve(engine) as url:
        page = visit(url, viewport={"width": 1280, "height": 800}).page
        page.get_by_role("button", name="Tools", exact=True).click()
        page.get_by_label("Definitions, as JSON").fill('[{"type": ')
        say(page)

        expect(page.locator("#tools-error")).to_contain_text("tools:")
        assert engine.seen == []


def test_failure_in_the_middle_keeps_what_came(visit: Open) -> None:
    engine = ScriptedEngine([delta(0, "Half of ")], EngineGenerateError("the core fell over"))
    with serve(engine) as url:
        page = visit(url).page
        say(page)

        expect(page.locator(".answer .error")).to_have_text("Internal server error")
        expect(page.locator(".answer .prose")).to_have_text("Half of")


def test_server_that_is_gone_is_said(visit: Open) -> None:
    with serve(GatedEngine("Fine.")) as url:
        page = visit(url).page
        expect(page.get_by_label("Model", exact=True)).to_have_value("scripted")
    say(page)

    expect(page.locator(".answer .error")).to_contain_text("cannot be reached")


def test_key_is_asked_for_kept_and_sent(visit: Open) -> None:
    engine = GatedEngine("Fine.")
    options = HttpOptions(api_key=("hush",), root_path="/llm")
    with serve(engine, options) as url:
        page = visit(f"{url}/llm").page
        key = page.get_by_role("dialog").get_by_label("Key, kept in this browser")
        key.fill("wrong")
        page.keyboard.press("Enter")
        expect(key).to_have_value("")
        key.fill("hush")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Model", exact=True)).to_have_value("scripted")

        page.reload()
        say(page)
        is_done(page)

        expect(page.locator(".answer .prose")).to_have_text("Fine.")
        page.get_by_role("button", name="Export").click()
        expect(page.locator("#export-code")).to_contain_text("$RILLM_API_KEY")
        expect(page.locator("#export-code")).not_to_contain_text("hush")
        expect(page.locator("#export-code")).to_contain_text(f"{url}/llm/v1/chat/completions")


@pytest.mark.parametrize("kind", ["curl", "Python"])
def test_exported_programs_ask_the_same(visit: Open, kind: str) -> None:
    engine = GatedEngine("Fine.")
    with serve(engine) as url:
        page = visit(url, viewport={"width": 1280, "height": 800}).page
        page.get_by_label("System prompt").fill('Quote: "it\'s" \\ ☃')
        page.get_by_label("Top k").fill("7")
        page.get_by_text("Penalties and stops").click()
        page.get_by_label("Stop strings, one a line").fill("q\nz")
        page.get_by_role("button", name="Tools", exact=True).click()
        say(page, "it's\n$HOME `x`")
        is_done(page)
        page.get_by_role("button", name="Export").click()
        page.get_by_role("tab", name=kind).click()
        program = page.locator("#export-code").inner_text()
        command = ["sh", "-c", program] if kind == "curl" else [sys.executable, "-c", program]

        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

        said = re.findall(r'"content":"([^"]*)"', done.stdout) if kind == "curl" else [done.stdout]
        assert "".join(said).strip() == "Fine."
        (first, first_params, *_), (second, second_params, *_) = engine.seen
        assert first["prompt_token_ids"] == second["prompt_token_ids"]
        assert first_params == second_params
        assert (first_params.top_k, first_params.stop) == (7, ["q", "z"])
