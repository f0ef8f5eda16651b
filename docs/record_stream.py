"""Record `rillm chat` and draw it as an animated SVG, every piece at the time it arrived.

    python docs/record_stream.py docs/stream.svg "Tell me a story about a river."

The picture in the README is made by this command on the bundled model.
"""

from __future__ import annotations

import html
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

COLUMNS = 76
FONT_PX = 14
LINE_PX = 20
CHAR_PX = 8.43
PAUSE_S = 4.0
"""The finished picture stands this long before it starts again."""


def record(prompt: str) -> list[tuple[float, str]]:
    """Run one chat; the pieces of its output with seconds since the first key press."""
    command = [sys.executable, "-m", "rillm", "chat", "-p", prompt, "--seed", "1"]
    start_s = time.perf_counter()
    pieces = []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while piece := os.read(process.stdout.fileno(), 4096):
            pieces.append((time.perf_counter() - start_s, piece.decode(errors="ignore")))
    if process.returncode:
        raise SystemExit(f"rillm chat ended with {process.returncode}")
    return pieces


def lay_out(pieces: list[tuple[float, str]]) -> list[list[tuple[float, str]]]:
    """Wrap the text into lines of words, each with the time when it was complete."""
    text = "".join(piece for _, piece in pieces).strip()
    arrivals = [at_s for at_s, piece in pieces for _ in piece]
    lines, position = [], 0
    for paragraph in text.splitlines():
        for line in textwrap.wrap(paragraph, COLUMNS) or [""]:
            words = []
            for word in line.split():
                position = text.index(word, position) + len(word)
                words.append((arrivals[position - 1], word))
            lines.append(words)
    return lines


def draw(prompt: str, lines: list[list[tuple[float, str]]]) -> str:
    """The SVG document."""
    end_s = max(at_s for line in lines for at_s, _ in line) + PAUSE_S
    width, height = round(COLUMNS * CHAR_PX) + 40, (len(lines) + 2) * LINE_PX + 30
    rules, rows = [], []
    number = 0
    for row, line in enumerate(lines):
        y, column = 20 + (row + 2) * LINE_PX, 0
        for at_s, word in line:
            share = 100 * at_s / end_s
            rules.append(
                f"@keyframes k{number}{{0%,{share:.2f}%{{opacity:0}}{share + 0.01:.2f}%,100%"
                f"{{opacity:1}}}}.w{number}{{animation:k{number} {end_s:.2f}s infinite}}"
            )
            x = 20 + column * CHAR_PX
            rows.append(f'<text class="w{number}" x="{x:.1f}" y="{y}">{html.escape(word)}</text>')
            column += len(word) + 1
            number += 1
    command = html.escape(f'$ rillm chat -p "{prompt}"')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="rillm chat, streaming">'
        f"<style>text{{font:{FONT_PX}px ui-monospace,Menlo,Consolas,monospace;fill:#d7e0ea}}"
        f".p{{fill:#7fd1b9}}{''.join(rules)}</style>"
        f'<rect width="{width}" height="{height}" rx="8" fill="#10161d"/>'
        f'<text class="p" x="20" y="34">{command}</text>{"".join(rows)}</svg>\n'
    )


def main() -> None:
    """Command line: the file to write and the prompt."""
    path, prompt = Path(sys.argv[1]), sys.argv[2]
    path.write_text(draw(prompt, lay_out(record(prompt))))


if __name__ == "__main__":
    main()
