"""Run `rillm bench` on the bundled model and take a picture of its report.

    python docs/make_bench_report.py docs/bench.png

Needs Chromium (`apt-get install chromium`). The picture in the README is made by this command.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RILLM = [sys.executable, "-m", "rillm"]
SERVE = [*RILLM, "serve", "--port", "0", "--num-threads", "1"]
WIDTH, HEIGHT = 1120, 1390
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def measure(html: Path) -> None:
    """Start a server of its own, and have the report of all scenarios written."""
    with subprocess.Popen(SERVE, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stderr is not None
        try:
            url = serving.stderr.readline().split()[-1]
            command = [*RILLM, "bench", url, "--html", str(html)]
            subprocess.run(command, check=True)
        finally:
            serving.terminate()
            serving.communicate()


def take_picture(html: Path, picture: Path) -> None:
    """The first page of the report, as a browser shows it."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is installed")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    size = f"--window-size={WIDTH},{HEIGHT}"
    shot = f"--screenshot={picture.resolve()}"
    subprocess.run([browser, *options, size, shot, html.as_uri()], check=True, capture_output=True)


def main() -> None:
    """Command line: the file to write."""
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "report.html"
        measure(html)
        take_picture(html, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
