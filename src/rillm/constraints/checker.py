"""GrammarChecker: refuses bad constraints before the engine hears of them. No torch here."""

from __future__ import annotations

import asyncio
import hashlib
import os
import select
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from rillm.constraints.limits import CHECK_WALL_S
from rillm.errors import ConfigError
from rillm.sampling_params import SamplingParams
from rillm.structured_outputs import StructuredOutputsParams
from rillm.text.tokenizer_files import markers_of, read_tokenizer_files

_CACHE_BYTES: Final = 16 * 2**20
_TOO_MUCH: Final = "takes too much time or memory to read: make it simpler"
_READ_BYTES: Final = 65536


class _Verdict(msgspec.Struct):
    source: str | None = None
    problem: str | None = None


class GrammarChecker:
    """Tries grammars in a process of its own, which is started with the first of them.

    Safe to use from several threads; one grammar is tried at a time.

    Args:
        markers: finds the ids and texts of the tokens that grammars may name.
        vocab_size: the model's.
    """

    def __init__(self, markers: Callable[[], Mapping[int, str]], vocab_size: int) -> None:
        self._markers = markers
        self._vocab_size = vocab_size
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        """None or one; a list, so that it can be ended when the checker is forgotten."""
        weakref.finalize(self, _end, self._processes)
        self._executor: ThreadPoolExecutor | None = None
        self._cache: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._cached_bytes = 0

    async def check(self, params: SamplingParams) -> str | None:
        """Check a request's constraint without holding up the event loop; see `check_now`."""
        if self._constraint(params) is None:
            return None
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="rillm-grammars")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self.check_now, params)

    def check_now(self, params: SamplingParams) -> str | None:
        """Check a request's constraint.

        Args:
            params: what was asked for, not checked yet.

        Returns:
            The grammar in llguidance's notation; None where the request has none.

        Raises:
            InvalidRequestError: it means nothing, nothing fits it, it takes too much to find out,
                or this model has no tokenizer for it; `param` names it.
        """
        constraint = self._constraint(params)
        return None if constraint is None else self._source(constraint)

    def _constraint(self, params: SamplingParams) -> StructuredOutputsParams | None:
        # What is no SamplingParams is refused by who checks all of them.
        if not isinstance(params, SamplingParams) or params.structured_outputs is None:
            return None
        params.verify()
        return params.structured_outputs

    def _source(self, params: StructuredOutputsParams) -> str:
        question = msgspec.json.encode(params)
        key = hashlib.sha256(question).digest()
        with self._lock:
            verdict = self._cache.get(key)
            if verdict is None:
                verdict = self._ask(question, params)
                self._remember(key, verdict)
            else:
                self._cache.move_to_end(key)
        if verdict.source is None:
            raise params.error(verdict.problem or _TOO_MUCH)
        return verdict.source

    def close(self) -> None:
        """End the process. Idempotent; a later check starts another."""
        with self._lock:
            _end(self._processes)
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    def _ask(self, question: bytes, params: StructuredOutputsParams) -> _Verdict:
        if not self._processes or self._processes[0].poll() is not None:
            _end(self._processes)
            try:
                markers = dict(self._markers())
            except ConfigError as error:
                raise params.error(f"needs the model's tokenizer: {error}") from error
            self._processes.append(_start_process())
            hello = msgspec.json.encode({"markers": markers, "vocab_size": self._vocab_size})
            question = hello + b"\n" + question
        answer = _talk(self._processes[0], question + b"\n")
        if answer is None:
            _end(self._processes)
            return _Verdict(problem=_TOO_MUCH)
        return msgspec.json.decode(answer, type=_Verdict)

    def _remember(self, key: bytes, verdict: _Verdict) -> None:
        self._cache[key] = verdict
        self._cached_bytes += _size(verdict)
        while self._cached_bytes > _CACHE_BYTES:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= _size(oldest)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    while processes:
        process = processes.pop()
        process.kill()
        process.communicate()


def _size(verdict: _Verdict) -> int:
    """Bytes that a cached verdict takes, about."""
    return 200 + sys.getsizeof(verdict.source or verdict.problem or "")


def read_markers(directory: Path) -> dict[int, str]:
    """The tokens that grammars may name, of a model whose tokenizer is not loaded.

    Raises:
        ConfigError: it has none.
    """
    return markers_of(read_tokenizer_files(directory).backend)


def _start_process() -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-m", "rillm.constraints.check_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )


def _talk(process: subprocess.Popen[bytes], question: bytes) -> bytes | None:
    """Ask, and read one line; None when the process ended or the time is up."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(question)
        process.stdin.flush()
    except OSError:
        return None
    parts: list[bytes] = []
    while not parts or not parts[-1].endswith(b"\n"):
        if not select.select([process.stdout], [], [], CHECK_WALL_S)[0]:
            return None
        part = os.read(process.stdout.fileno(), _READ_BYTES)
        if not part:
            return None
        parts.append(part)
    return b"".join(parts)
