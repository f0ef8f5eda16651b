"""Server-sent events: whatever the cut and the line ends, the same data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillm.sse_reader import EventReader

LINES = st.sampled_from(
    ["data: a", "data:b", "data:  c", "data: {\"x\": 1}", "data", "data:", ": comment", "event: e",
     "id: 1", "data: \u00e9\u4e2d", "dat: no", ""]
)  # fmt: skip


def by_the_book(text: str) -> list[str]:
    """The standard's algorithm, line by line."""
    found, data = [], []
    for line in text.split("\n")[:-1]:
        if not line:
            found += ["\n".join(data)] if data else []
            data = []
        elif line.partition(":")[0] == "data" and ":" in line:
            data.append(line.partition(":")[2].removeprefix(" "))
    return found


@given(st.lists(LINES, max_size=12), st.data(), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_cut_gives_the_same_events(lines: list[str], data: st.DataObject, end: str) -> None:
    text = "".join(line + "\n" for line in lines)
    sent = text.replace("\n", end).encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(sent)), max_size=8)))
    reader = EventReader()

    found = []
    for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        found += reader.feed(sent[start:stop])

    assert [each.decode() for each in found] == by_the_book(text)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_event_comes_with_the_last_byte_of_its_empty_line(end: bytes) -> None:
    reader = EventReader()

    assert reader.feed(b"data: now" + end[:-1]) == ([] if end != b"\r\n\r\n" else [b"now"])
    assert reader.feed(end[-1:]) == ([b"now"] if end != b"\r\n\r\n" else [])
