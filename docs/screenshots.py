"""Take the pictures of the playground in the README, of the bundled model.

    pip install '.[test]' pillow && python docs/screenshots.py docs

It needs Chromium (Debian: `apt-get install chromium`), starts a server of its own and plays one
conversation, once in a light page and once in a dark one. The colours are reduced to a palette.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 780}
SCALE = 1.5
NUM_COLOURS = 256
LONGEST_MS = 120_000


@contextmanager
def serve() -> Iterator[str]:
    """Run `rillm serve`; where it listens."""
    command = [sys.executable, "-m", "rillm", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield next(
                found[1] for line in process.stderr if (found := re.search(r" at (http\S+)", line))
            )
        finally:
            process.terminate()


def wait_for_answer(page: Page) -> None:
    """Wait until an answer is complete and drawn."""
    page.locator("#send").wait_for(timeout=LONGEST_MS)
    page.wait_for_timeout(300)


def show_tokens(page: Page) -> None:
    """A story, its tokens, and when they came."""
    page.get_by_label("Seed").fill("7")
    page.get_by_text("Tell me a story about a river.").click()
    wait_for_answer(page)
    page.get_by_role("button", name="Tokens").click()
    page.get_by_role("button", name="Timeline").click()
    unlikely = page.locator(".tokens :is(.level-3, .level-4, .level-5, .level-6)")
    (unlikely.last if unlikely.count() else page.locator(".token").first).hover()


def show_calls(page: Page) -> None:
    """Two calls, one of them answered by hand."""
    page.get_by_text("What is the weather in Oslo and in Lima?").click()
    wait_for_answer(page)
    page.get_by_role("button", name="Send result").first.click()


def take(page: Page, path: Path) -> None:
    """Write what the page shows."""
    page.wait_for_timeout(500)
    picture = Image.open(BytesIO(page.screenshot()))
    # Of all methods this one keeps the few coloured spots of a mostly grey page.
    reduced = picture.convert("RGB").quantize(
        NUM_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )
    reduced.save(path, optimize=True)


def main() -> None:
    """Command line: the directory to write to."""
    directory = Path(sys.argv[1])
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with serve() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path)
        for scheme in ("light", "dark"):
            for name, size, show in (
                ("playground", DESKTOP, show_tokens),
                ("playground-phone", PHONE, show_calls),
            ):
                context = browser.new_context(
                    viewport=size, color_scheme=scheme, device_scale_factor=SCALE
                )
                page = context.new_page()
                page.goto(url)
                show(page)
                take(page, directory / f"{name}-{scheme}.png")
                context.close()
        browser.close()


if __name__ == "__main__":
    main()
