"""EngineClient: the half of the engine that lives in the caller's event loop. No torch here.

Owns the connection to the core and the table of live requests. Commands given during one turn
of the event loop leave as one frame; outputs come as one frame a step and go to the sink of
their request. Sinks are plain callables, so a slow reader costs the others nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from rillm.engine.config import EngineConfig, EngineInfo
from rillm.engine.messages import (
    Commands,
    EngineRequest,
    Failed,
    FromCore,
    Ready,
    Start,
    StepOutputs,
    StepStats,
    TokenDelta,
)
from rillm.engine.transport import client_end
from rillm.errors import ConfigError, EngineDeadError, EngineError

Sink = Callable[[TokenDelta | EngineError], None]
"""Takes each delta of one request; an error is the last thing it gets."""

_EXIT_GRACE_S = 5.0


class EngineClient:
    """Starts an engine core and talks to it.

    The core starts loading at once; requests may be made before it is ready, and wait.

    Args:
        config: what the core is asked for.
        in_process: run the core in a thread of this process instead of a process of its own.
    """

    def __init__(self, config: EngineConfig, *, in_process: bool = False) -> None:
        ours, theirs = socket.socketpair()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        if in_process:
            self._thread = _start_thread(theirs)
        else:
            self._process = _start_process(theirs)
        self._link = client_end(ours)
        self._link.send(Start(config))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sinks: dict[int, Sink] = {}
        self._requests: list[EngineRequest] = []
        self._aborts: list[tuple[int, int | None]] = []
        self._reset_prefix_cache = False
        self._is_flushing = False
        self._after_step: list[Callable[[], None]] = []
        self._next_id = 0
        self._info: EngineInfo | None = None
        self._ready: asyncio.Future[EngineInfo] | None = None
        self._error: EngineError | ConfigError | None = None
        self.stats = StepStats()
        """Counters of the newest step."""

    @property
    def info(self) -> EngineInfo | None:
        """What the core decided, None while it loads."""
        return self._info

    @property
    def error(self) -> EngineError | ConfigError | None:
        """Why the core stopped, None while it lives."""
        return self._error

    @property
    def num_live_requests(self) -> int:
        """Requests that are waiting or running."""
        return len(self._sinks)

    async def wait_ready(self) -> EngineInfo:
        """Wait until the core has loaded its model.

        Raises:
            ConfigError: it cannot, and the operator can change that.
            EngineDeadError: the core stopped.
        """
        self._attach()
        if self._error is not None:
            raise self._error
        if self._info is not None:
            return self._info
        if self._ready is None or self._ready.get_loop() is not self._loop:
            self._ready = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._ready)

    def new_request_id(self) -> int:
        """An id that was never used with this core."""
        self._next_id += 1
        return self._next_id

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        """Send a request with the next frame.

        Raises:
            ConfigError: the core could not load.
            EngineDeadError: the core stopped.
        """
        self._attach()
        if self._error is not None:
            raise self._error
        self._sinks[request.request_id] = sink
        self._requests.append(request)
        self._flush_soon()

    def abort(self, request_id: int) -> None:
        """Stop a request; its sink gets nothing any more. Unknown ids are ignored."""
        if self._sinks.pop(request_id, None) is not None and self._error is None:
            self._aborts.append((request_id, None))
            self._flush_soon()

    def abort_choice(self, request_id: int, choice: int) -> None:
        """Stop one choice of a request; the others go on."""
        if self._error is None:
            self._aborts.append((request_id, choice))
            self._flush_soon()

    def finish(self, request_id: int) -> None:
        """Forget a request whose last delta has been taken."""
        self._sinks.pop(request_id, None)

    def after_step(self, callback: Callable[[], None]) -> None:
        """Call back when all outputs of this step have been given to their sinks.

        Only for sinks, while they are given a delta. The callback must not raise.
        """
        self._after_step.append(callback)

    def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes before the next step."""
        self._reset_prefix_cache = True
        self._flush_soon()

    def disconnect(self) -> None:
        """Stop the core without waiting for it. Idempotent; live requests end with an error."""
        self._fail(EngineDeadError("the engine was shut down"))

    def shutdown(self) -> None:
        """Stop the core and wait until it is gone. Idempotent; live requests end with an error.

        After `disconnect` it may be called in any thread.
        """
        self.disconnect()
        if self._process is not None:
            try:
                self._process.wait(_EXIT_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._thread is not None:
            self._thread.join(_EXIT_GRACE_S)

    # ---- the event loop --------------------------------------------------------------------

    def _attach(self) -> None:
        """Listen on the running loop, also when an earlier one has been closed."""
        loop = asyncio.get_running_loop()
        if self._loop is loop or self._error is not None:
            return
        if self._loop is not None and not self._loop.is_closed():
            raise EngineError("the engine is in use in another event loop")
        self._loop = loop
        self._is_flushing = False
        loop.add_reader(self._link.socket.fileno(), self._receive)

    def _flush_soon(self) -> None:
        if not self._is_flushing and self._loop is not None and not self._loop.is_closed():
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if self._error is not None or self._loop is None:
            return
        commands = Commands(self._requests, self._aborts, self._reset_prefix_cache)
        self._requests, self._aborts, self._reset_prefix_cache = [], [], False
        try:
            self._link.send(commands)
        except OSError:
            self._die()
            return
        if self._link.has_unsent:
            self._loop.add_writer(self._link.socket.fileno(), self._send_rest)

    def _send_rest(self) -> None:
        try:
            self._link.flush()
        except OSError:
            self._die()
            return
        if not self._link.has_unsent and self._loop is not None:
            self._loop.remove_writer(self._link.socket.fileno())

    def _receive(self) -> None:
        try:
            messages = self._link.receive()
        except (EOFError, OSError):
            self._die()
            return
        for message in messages:
            self._take(message)
        callbacks, self._after_step = self._after_step, []
        for callback in callbacks:
            callback()

    def _take(self, message: FromCore) -> None:
        if isinstance(message, StepOutputs):
            self.stats = message.stats
            for delta in message.deltas:
                # Deltas of a request that was just aborted may still be on their way.
                sink = self._sinks.get(delta.request_id)
                if sink is not None:
                    sink(delta)
        elif isinstance(message, Ready):
            self._info = message.info
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(message.info)
        elif isinstance(message, Failed):
            error = ConfigError if message.is_config_error else EngineDeadError
            self._fail(error(message.message))

    def _die(self) -> None:
        code = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(1.0)
        how = "" if code is None else f" (exit status {code})"
        self._fail(EngineDeadError(f"the engine core has stopped{how}"))

    def _fail(self, error: EngineError | ConfigError) -> None:
        """Close the connection and end every live request with the error."""
        if self._error is not None:
            return
        self._error = error
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._link.socket.fileno())
            self._loop.remove_writer(self._link.socket.fileno())
        self._link.close()
        sinks, self._sinks = self._sinks, {}
        told = error if isinstance(error, EngineError) else EngineDeadError(str(error))
        for sink in sinks.values():
            sink(told)
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
            # Nobody may be waiting; the error is kept and raised by the next call.
            self._ready.exception()


def _start_process(theirs: socket.socket) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        # The core's own modules must be found where this process found them.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # KV cache in huge pages: the first write to a block costs a fraction.
        "THP_MEM_ALLOC_ENABLE": os.environ.get("THP_MEM_ALLOC_ENABLE", "1"),
    }
    with theirs:
        return subprocess.Popen(
            [sys.executable, "-m", "rillm.engine.core_process", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=environment,
        )


def _start_thread(theirs: socket.socket) -> threading.Thread:
    # Imported only here: a client whose core is another process never loads torch.
    core_process = importlib.import_module("rillm.engine.core_process")
    thread = threading.Thread(
        target=core_process.serve, args=(theirs,), name="rillm-engine-core", daemon=True
    )
    thread.start()
    return thread
