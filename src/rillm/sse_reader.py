"""Server-sent events out of bytes that were cut anywhere.

Source: the HTML standard, section "Interpreting an event stream". Of an event only its data is
told; names, ids and comments are passed over.
"""

from __future__ import annotations


class EventReader:
    """Takes the bytes of one stream in, piece by piece."""

    def __init__(self) -> None:
        self._rest = b""
        self._ended_in_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take in some bytes.

        Returns:
            The data of each event that they complete. What follows the last empty line waits.
        """
        if self._ended_in_cr or b"\r" in data:
            data = self._with_plain_line_ends(data)
        *events, self._rest = (self._rest + data).split(b"\n\n")
        return [found for event in events if (found := _data_of(event)) is not None]

    def _with_plain_line_ends(self, data: bytes) -> bytes:
        """CR LF, and CR alone, as LF; the two halves of a pair may come apart."""
        if self._ended_in_cr and data.startswith(b"\n"):
            data = data[1:]
        self._ended_in_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _data_of(event: bytes) -> bytes | None:
    """The joined data lines of an event; None where it has none."""
    if event.startswith(b"data:") and b"\n" not in event:
        return event[5:].removeprefix(b" ")
    lines = [
        line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None
