"""Reads what the markers of calls announce: one call, or a section of them."""

from __future__ import annotations

from rillm.formats.compiled import CompiledCalls
from rillm.formats.source import Steps
from rillm.formats.syntax.base import Context


class CallSection:
    """The frame around calls; their syntax reads what is inside."""

    def __init__(self, calls: CompiledCalls, context: Context) -> None:
        """Prepare for one choice."""
        self._calls = calls
        self._context = context
        self._source = context.source
        self._sink = context.sink

    def read(self, marker: str) -> Steps[bool]:
        """Read what a marker announces; returns whether it was markup."""
        calls, source, sink = self._calls, self._source, self._sink
        is_section = marker in calls.open
        lead = "" if marker not in calls.starts else marker
        noise = sink.drop if calls.description.noise == "drop" else sink.content
        has_begun = False
        source.keep_raw(marker)
        while True:
            if not lead and calls.needs_start:
                lead = yield from self._start()
                if lead in calls.close:
                    source.drop_raw()
                    return True
            num_calls: int | None = None
            if lead or not calls.needs_start:
                syntax_lead = lead if lead in calls.leads else ""
                num_calls = yield from calls.parser.parse(
                    self._context, syntax_lead, calls.is_bare(marker)
                )
            raw = source.drop_raw()
            if num_calls is None:
                sink.raw(raw)
                if not has_begun:
                    return False
            else:
                has_begun = True
                sink.cut()
                closer = yield from self._closers()
                if closer in calls.close or not (is_section or closer in calls.leads):
                    return True
            if not calls.needs_start:
                return True
            found = yield from source.until(calls.starts_or_ends, noise)
            if found is not None and found in calls.frame:
                source.give_back(found)
                return True
            if found is None or found in calls.close:
                return True
            source.keep_raw(found)
            lead = found

    def _start(self) -> Steps[str]:
        """Consume the marker before a call, or the one after all of them; empty for neither."""
        if self._calls.description.noise == "drop":
            found = yield from self._source.until(self._calls.starts_or_close, self._sink.drop)
        else:
            found = yield from self._source.accept_after_space(self._calls.starts_or_close)
        return found or ""

    def _closers(self) -> Steps[str | None]:
        """Consume the markers after a call, and what models write too much before them.

        Returns:
            The last of them, or the start of another call where none goes before it.
        """
        source = self._source
        last: str | None = None
        while self._calls.is_fenced:
            source.keep_raw()
            yield from source.run(self._calls.junk, self._sink.drop)
            found = yield from source.accept(self._calls.closers_or_leads)
            raw = source.drop_raw()
            if found is not None and found in self._calls.leads:
                source.give_back(found)
                return last or found
            if found is None:
                self._sink.content(raw)
                break
            last = found
            if found in self._calls.close:
                yield from self._echo()
                break
        return last

    def _echo(self) -> Steps[None]:
        """Drop repetitions of the calls, where a format has them."""
        source = self._source
        while self._calls.description.echo:
            source.keep_raw()
            first = yield from source.skip_space()
            marker: str | None = None
            if first and first in self._calls.description.echo:
                marker = yield from source.until(self._calls.section, self._sink.drop)
                if marker in self._calls.open:
                    source.give_back(marker)
            raw = source.drop_raw()
            if marker not in self._calls.close:
                self._sink.content(raw)
                return
