"""The playground in a real browser, with the bundled model; and who can use it."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import GatedEngine, Visit, serve, wait_until
from playwright.sync_api import Page, expect
from running_server import RunningServer

Open = Callable[..., Visit]

DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 800}
ENOUGH_MS = 60_000


def address(server: RunningServer) -> str:
    return server.url.removesuffix("v1")


def is_done(page: Page) -> None:
    expect(page.locator("#stop")).to_be_hidden(timeout=ENOUGH_MS)


BYTES = re.compile(r"(?:⟨[0-9a-f]{2}⟩)+")
"""How the playground shows tokens that are a part of a character."""


def as_text(shown: re.Match[str]) -> str:
    return bytes.fromhex(re.sub("[⟨⟩]", "", shown[0])).decode()


def start(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()
    expect(page.locator(".turn.answer")).to_have_count(1)
    is_done(page)


def running(server: RunningServer) -> float:
    with urllib.request.urlopen(f"{address(server)}metrics") as answer:
        text = answer.read().decode()
    found = re.search(r"^rillm:num_requests_running\{.*\} (\S+)$", text, re.MULTILINE)
    assert found
    return float(found[1])


def test_model_calls_the_example_and_speaks_of_its_result(
    visit: Open, server: RunningServer
) -> None:
    page = visit(address(server), viewport=DESKTOP).page
    start(page, "Two function calls")
    expect(page.locator(".call")).to_have_count(2)
    expect(page.locator(".call pre").first).to_have_text('{\n  "city": "Oslo"\n}')
    expect(page.locator("details.reasoning")).not_to_have_attribute("open", "")

    for _ in range(2):
        page.get_by_role("button", name="Send result").first.click()
    is_done(page)

    expect(page.locator(".turn.answer")).to_have_count(2)
    expect(page.locator(".prose").last).to_contain_text("3 degrees")


def test_stop_ends_the_request_in_the_engine(visit: Open, server: RunningServer) -> None:
    page = visit(address(server), viewport=DESKTOP).page
    page.get_by_text("More fields of the request").click()
    more = page.get_by_label("Any other field, as a JSON object")
    more.fill('{"ignore_eos": true, "max_tokens": 2000}')
    page.get_by_label("Message", exact=True).fill("Tell me a story.")
    page.keyboard.press("Enter")
    expect(page.locator(".prose")).to_contain_text(re.compile(r"\w+ \w+"), timeout=ENOUGH_MS)
    with server.suspended():
        assert running(server) == 1

        page.keyboard.press("Escape")

        is_done(page)
    wait_until(lambda: running(server) == 0)


def test_tokens_show_their_probabilities_to_pointer_and_keyboard(
    visit: Open, server: RunningServer
) -> None:
    page = visit(address(server), viewport=DESKTOP).page
    start(page, "Plain text")
    text = page.locator(".prose").inner_text()
    page.get_by_role("button", name="Tokens").click()

    tokens = page.get_by_role("listbox").get_by_role("option")
    # A sampled text may have line ends and parts of characters, which are shown as such.
    joined = BYTES.sub(as_text, "".join(tokens.all_inner_texts()).replace("↵", " "))
    assert " ".join(joined.split()).startswith(" ".join(text.split()))
    assert len(set(re.findall(r"level-\d", page.locator(".tokens").inner_html()))) >= 2
    details = page.locator("#token-details")
    tokens.nth(0).hover()
    expect(details).to_contain_text(" %")
    expect(details.get_by_role("listitem")).to_have_count(5)
    page.mouse.move(0, 0)
    expect(details).to_be_hidden()

    page.get_by_role("listbox").focus()
    for key in ("Home", "ArrowRight"):
        page.keyboard.press(key)
    expect(tokens.nth(1)).to_have_attribute("aria-selected", "true")
    expect(details).to_be_visible()
    shares = [
        float(share)
        for share in re.findall(r"([\d.]+) %", tokens.nth(1).get_attribute("aria-label") or "")
    ]
    assert all(0 < share <= 100 for share in shares)


def test_timeline_says_when_chunks_came(visit: Open, server: RunningServer) -> None:
    page = visit(address(server), viewport=DESKTOP).page
    start(page, "Reasoning first")
    page.get_by_role("button", name="Timeline").click()
    plot = page.get_by_role("slider")

    expect(page.locator(".stats")).to_contain_text("Time to first token")
    count_colours = """canvas => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const seen = new Set();
      for (let at = 0; at < data.length; at += 4) {
        if (data[at + 3] === 255) seen.add(data.slice(at, at + 3).join());
      }
      return seen.size;
    }"""
    wait_until(lambda: plot.evaluate(count_colours) >= 4)
    plot.focus()
    page.keyboard.press("Home")
    expect(page.locator(".readout")).to_contain_text("the first")
    page.keyboard.press("ArrowRight")
    expect(plot).to_have_attribute("aria-valuenow", "1")
    expect(plot).to_have_attribute("aria-valuetext", re.compile("after the one before"))
    page.keyboard.press("End")
    last = plot.get_attribute("aria-valuemax")
    expect(plot).to_have_attribute("aria-valuenow", last or "")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_has_no_barriers_that_a_checker_finds(
    visit: Open, scheme: str, viewport: dict[str, int]
) -> None:
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    text = (
        "# Head\n\nA [link](https://a.example), `code`.\n\n```py\nx = 1\n```\n\n|a|\n|-|\n|b|\n\n"
    )
    engine = GatedEngine(f"<think>\nHm.\n</think>\n\n{text}{call}")
    with serve(engine) as url:
        page = visit(url, viewport=viewport, color_scheme=scheme, reduced_motion="reduce").page
        check(page)
        page.get_by_role("button", name="Two function calls").click()
        is_done(page)
        page.get_by_role("button", name="Timeline").click()
        check(page)
        page.get_by_role("button", name="Tokens").click()
        check(page)
        page.get_by_role("button", name="Export").click()
        check(page)
        page.keyboard.press("Escape")
        if viewport == PHONE:
            page.get_by_role("button", name="Settings", exact=True).click()
            check(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def check(page: Page) -> None:
    """Let axe look for controls without a name, poor contrast, roles that do not fit."""
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()


def test_everything_can_be_reached_and_seen_with_the_keyboard(visit: Open) -> None:
    with serve(GatedEngine("Fine.")) as url:
        page = visit(url, viewport=PHONE).page
        page.get_by_role("button", name="Settings", exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Close settings")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Settings", exact=True)).to_be_focused()
        page.keyboard.press("Tab")

        reached = []
        for _ in range(9):
            focused = page.locator("*:focus")
            reached.append(focused.evaluate("element => element.id || element.className"))
            outline = focused.evaluate("element => getComputedStyle(element).outlineStyle")
            # The message box shows the focus on the frame around it.
            assert outline != "none" or reached[-1] == "message"
            page.keyboard.press("Tab")

        order = ["scroller", *["starter"] * 4, "message", "think", "offer-tools", "send"]
        assert reached == order


def test_a_long_answer_is_added_to_and_not_made_again(visit: Open) -> None:
    words = " ".join(f"word{number % 97}" for number in range(1500))
    engine = GatedEngine(f"{words}\n\n{words}")
    with serve(engine) as url:
        page = visit(url, viewport=DESKTOP).page
        page.evaluate(
            """() => {
              window.added = 0;
              new MutationObserver(records => {
                for (const { addedNodes } of records)
                  for (const node of addedNodes) window.added += node.textContent.length;
              }).observe(document.getElementById("turns"), { childList: true, subtree: true });
            }"""
        )
        page.get_by_label("Message", exact=True).fill("hello")
        page.keyboard.press("Enter")
        expect(page.locator(".turn.answer")).to_have_count(1)
        is_done(page)

        assert page.locator(".prose").inner_text().split() == (words + " " + words).split()
        assert page.evaluate("window.added") < 5 * len(words) * 2
