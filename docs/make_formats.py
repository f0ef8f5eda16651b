"""Writes the tables of docs/formats.md from the descriptions in rillm.formats.

python docs/make_formats.py          # writes
python docs/make_formats.py --check  # exits with 1 if the file is not up to date
"""

from __future__ import annotations

from pathlib import Path

from generated import update

from rillm.format_grammars.generator import unsupported
from rillm.formats.description import Format
from rillm.formats.registry import all_formats

PAGE = Path(__file__).with_name("formats.md")


def tables() -> str:
    """Both tables, as Markdown."""
    rows = [
        "| `--tool-call-parser` | models | a call | what streams | grammar |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| {_names(each.names)} | {each.family} | {_code(each.example)} | {_streams(each)} "
        f"| {f'no: {unsupported(each)}' if unsupported(each) else 'yes'} |"
        for each in all_formats()
        if each.names
    ]
    rows += ["", "| `--reasoning-parser` | models | opens | closes | a call inside |"]
    rows += ["|---|---|---|---|---|"]
    rows += [_reasoning_row(each) for each in all_formats() if each.reasoning_names]
    return "\n".join(rows) + "\n"


def _streams(format: Format) -> str:
    if format.calls is not None:
        return format.calls.syntax.streams
    return "declared by the checkpoint" if format.header is None else "the arguments, as they come"


def _reasoning_row(format: Format) -> str:
    reasoning = format.reasoning
    names = _names(format.reasoning_names)
    if reasoning is None:
        how = "in its header" if format.header is not None else "declared by the checkpoint"
        return f"| {names} | {format.family} | {how} | | |"
    calls = "ends the reasoning" if reasoning.calls_end else "is a quotation"
    opens, closes = (" ".join(map(_code, markers)) for markers in (reasoning.open, reasoning.close))
    return f"| {names} | {format.family} | {opens} | {closes} | {calls} |"


def _names(names: tuple[str, ...]) -> str:
    return " ".join(f"`{name}`" for name in names)


def _code(text: str) -> str:
    shown = text.replace("\n", "⏎").replace("|", "\\|")
    fence = "``" if "`" in shown else "`"
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}" if shown else ""


if __name__ == "__main__":
    update(PAGE, "make_formats.py", tables)
