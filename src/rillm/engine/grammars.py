"""Grammars in the engine: compiled by a thread of their own, followed by one matcher a sequence."""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llguidance import LLMatcher, LLTokenizer

from rillm.constraints.vocabulary import LIMITS, read_vocabulary
from rillm.errors import ConfigError

_MAX_CACHED: Final = 32
"""Compiled grammars kept, least recently used first to go."""

_MOST_TAKEN: Final = 256
"""Results taken at once."""


class Matcher:
    """The place of one sequence in its grammar.

    Args:
        state: llguidance's.
        ends: tokens of the vocabulary that end an output.
    """

    __slots__ = ("ends", "state")

    def __init__(self, state: LLMatcher, ends: frozenset[int]) -> None:
        self.state = state
        self.ends = ends

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow but the end."""
        return self.state.is_stopped()

    @property
    def error(self) -> str | None:
        """What went wrong, None as long as nothing has."""
        if not self.state.is_error():
            return None
        problem = self.state.get_error().partition("\n")[0]
        return f"the grammar cannot be followed any further: {problem}"

    def advance(self, token_id: int) -> None:
        """Take in a sampled token; one that does not fit leaves an error."""
        if token_id not in self.ends:
            self.state.consume_token(token_id)

    def forced(self) -> list[int]:
        """The tokens that follow now if nothing else can; the caller advances by each of them."""
        tokens: list[int] = self.state.compute_ff_tokens()
        return tokens

    def fork(self) -> Matcher:
        """Another matcher at the same place."""
        return Matcher(self.state.deep_copy(), self.ends)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A request's grammar, or why there is none."""

    request_id: int
    matcher: Matcher | None
    error: str | None = None


_Job = tuple[int, str]


class GrammarCompiler:
    """Compiles grammars in a thread, in order of arrival.

    The thread begins with the vocabulary, while the model loads: that holds Python's lock for 0.6 s
    with 150,000 tokens, which running streams would feel later.

    Args:
        directory: of the tokenizer; None for an engine that takes no grammars.
        vocab_size: the model's.
        eos_token_ids: tokens that end an output, besides the tokenizer's own.
    """

    def __init__(
        self, directory: Path | None, vocab_size: int, eos_token_ids: Sequence[int]
    ) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._done: deque[Compiled] = deque()
        self._bell, bell = socket.socketpair()
        self._bell.setblocking(False)
        worker = _Worker(directory, vocab_size, eos_token_ids, self._jobs, self._done, bell)
        threading.Thread(target=worker.run, name="rillm-grammars", daemon=True).start()
        weakref.finalize(self, _close, self._jobs, self._bell)

    def fileno(self) -> int:
        """A descriptor that can be read from when there is something to take."""
        return self._bell.fileno()

    def compile(self, request_id: int, source: str) -> None:
        """Begin with a request's grammar.

        Args:
            request_id: names it in what `take` returns.
            source: in llguidance's notation, checked.
        """
        self._jobs.put((request_id, source))

    def take(self) -> list[Compiled]:
        """What has been compiled since the last call; waits for nothing."""
        try:
            # A byte for each result, sent after it.
            num_ready = len(self._bell.recv(_MOST_TAKEN))
        except BlockingIOError:
            return []
        return [self._done.popleft() for _ in range(num_ready)]

    def wait(self) -> None:
        """Wait until there is something to take."""
        select.select([self._bell], [], [])


def _close(jobs: queue.SimpleQueue[_Job | None], bell: socket.socket) -> None:
    jobs.put(None)
    bell.close()


class _Worker:
    """The thread's side of a compiler; knows nothing of it, so that it can be collected."""

    def __init__(
        self,
        directory: Path | None,
        vocab_size: int,
        eos_token_ids: Sequence[int],
        jobs: queue.SimpleQueue[_Job | None],
        done: deque[Compiled],
        bell: socket.socket,
    ) -> None:
        self._directory = directory
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._jobs = jobs
        self._done = done
        self._bell = bell
        self._vocabulary: LLTokenizer | None = None
        self._ends: frozenset[int] = frozenset()
        self._error = "this engine was started without a tokenizer for grammars"
        self._cache: OrderedDict[str, LLMatcher] = OrderedDict()

    def run(self) -> None:
        """Work until there is nobody to work for."""
        with self._bell:
            self._load()
            while (job := self._jobs.get()) is not None:
                self._done.append(self._compile(*job))
                # After the result, so that nobody hears it too early.
                with contextlib.suppress(OSError):
                    self._bell.send(b"\0")

    def _load(self) -> None:
        if self._directory is None:
            return
        try:
            self._vocabulary, self._ends = read_vocabulary(
                self._directory, self._vocab_size, self._eos_token_ids
            )
        except ConfigError as error:
            self._error = str(error)

    def _compile(self, request_id: int, source: str) -> Compiled:
        if self._vocabulary is None:
            return Compiled(request_id, None, self._error)
        state = self._from_cache(source)
        if state is None:
            original = LLMatcher(self._vocabulary, source, limits=LIMITS, log_level=0)
            state = original.deep_copy()
            # The first mask costs most; copies share what it leaves behind.
            state.compute_bitmask()
            self._cache[source] = original
            if len(self._cache) > _MAX_CACHED:
                self._cache.popitem(last=False)
        matcher = Matcher(state, self._ends)
        return Compiled(request_id, None if matcher.error else matcher, matcher.error)

    def _from_cache(self, source: str) -> LLMatcher | None:
        original = self._cache.get(source)
        if original is None:
            return None
        self._cache.move_to_end(source)
        state = original.deep_copy()
        # Copies share their automaton, which may have grown to its limit meanwhile.
        state.compute_bitmask()
        return None if state.is_error() else state
