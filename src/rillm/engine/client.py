"""EngineClient: the half of the engine that lives in the caller's event loop. No torch here.

Owns the connection to the core and the journal of live requests. Commands given during one turn
of the event loop leave as one frame; outputs come as one frame a step and go to the sink of
their request. Sinks are plain callables, so a slow reader costs the others nothing.

It is also the supervisor of the core: one that dies or hangs is replaced, and goes on from the
journal. See docs/failures.md.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from rillm.engine.config import EngineConfig, EngineInfo
from rillm.engine.journal import Journal, Sink
from rillm.engine.messages import (
    Commands,
    EngineRequest,
    FromCore,
    Ready,
    StepOutputs,
    StepStats,
)
from rillm.engine.running_core import RunningCore
from rillm.engine.supervision import RestartCount, Supervision, Watchdog
from rillm.errors import ConfigError, EngineDeadError, EngineError

_KILL_GRACE_S = 10.0
"""After a hung core was killed, until it is given up even if it sleeps in a device driver."""

logger = logging.getLogger(__name__)


class EngineClient:
    """Starts an engine core, talks to it, and keeps it running.

    The core starts loading at once; requests may be made before it is ready, and wait.

    Args:
        config: what the core is asked for.
        in_process: run the core in a thread of this process instead of a process of its own. A
            thread can be neither killed nor replaced: its first failure is the last.
        supervision: within which bounds the core is kept alive.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        in_process: bool = False,
        supervision: Supervision | None = None,
    ) -> None:
        supervision = supervision or Supervision()
        self._config = config
        self._in_process = in_process
        self._core = RunningCore(config, in_process=in_process)
        self._journal = Journal()
        self._watchdog = Watchdog(supervision)
        self._restarts = RestartCount(supervision)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._requests: list[EngineRequest] = []
        self._aborts: list[tuple[int, int | None]] = []
        self._reset_prefix_cache = False
        self._is_flushing = False
        self._after_step: list[Callable[[], None]] = []
        self._next_id = 0
        self._info: EngineInfo | None = None
        self._ready: asyncio.Future[EngineInfo] | None = None
        self._is_up = False
        self._is_buried = False
        self._last_words: str | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._error: EngineError | ConfigError | None = None
        self.stats = StepStats()
        """Counters of the newest step."""

    @property
    def info(self) -> EngineInfo | None:
        """What the core decided, None while it loads for the first time."""
        return self._info

    @property
    def error(self) -> EngineError | ConfigError | None:
        """Why the engine has stopped for good, None while it lives."""
        return self._error

    @property
    def is_restarting(self) -> bool:
        """Whether a core has died and the next one is not ready yet; requests wait."""
        return self._info is not None and not self._is_up and self._error is None

    @property
    def num_restarts(self) -> int:
        """Times that a core was started again."""
        return self._restarts.total

    @property
    def journal(self) -> Journal:
        """Requests that are waiting or running, or not read to their end; to be counted."""
        return self._journal

    async def wait_ready(self) -> EngineInfo:
        """Wait until the core has loaded its model for the first time.

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
        """An id that was never used with this client."""
        self._next_id += 1
        return self._next_id

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        """Send a request with the next frame, or as soon as there is a core.

        Raises:
            ConfigError: the core could not load.
            EngineDeadError: the core stopped.
            PoisonedRequestError: an equal request has stopped it repeatedly.
        """
        self._attach()
        if self._error is not None:
            raise self._error
        self._journal.add(request, sink)
        if self._is_up:
            self._requests.append(request)
            self._flush_soon()
            self._watch()

    def abort(self, request_id: int) -> None:
        """Stop a request; its sink gets nothing any more. Unknown ids are ignored."""
        if self._journal.remove(request_id):
            self._abort(request_id, None)

    def abort_choice(self, request_id: int, choice: int) -> None:
        """Stop one choice of a request; the others go on."""
        self._journal.end_choice(request_id, choice)
        self._abort(request_id, choice)

    def _abort(self, request_id: int, choice: int | None) -> None:
        if self._is_up:
            self._aborts.append((request_id, choice))
            self._flush_soon()

    def finish(self, request_id: int) -> None:
        """Forget a request whose last delta has been taken."""
        self._journal.remove(request_id)

    def after_step(self, callback: Callable[[], None]) -> None:
        """Call back when all outputs of this step have been given to their sinks.

        Only for sinks, while they are given a delta. The callback must not raise.
        """
        self._after_step.append(callback)

    def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes before the next step."""
        if self._is_up:
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
        self._core.stop()

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
        # Timers have gone with the loop that they were set in.
        self._look = None
        if self._is_buried:
            self._start_again()
        else:
            self._listen()

    def _listen(self) -> None:
        assert self._loop is not None
        self._loop.add_reader(self._core.link.socket.fileno(), self._receive)
        self._send_rest()
        self._watchdog.reset()
        self._watch()

    def _flush_soon(self) -> None:
        if not self._is_flushing and self._loop is not None and not self._loop.is_closed():
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if self._is_up:
            self._send(Commands(self._requests, self._aborts, self._reset_prefix_cache))
            self._forget_commands()

    def _forget_commands(self) -> None:
        self._requests, self._aborts, self._reset_prefix_cache = [], [], False

    def _send(self, commands: Commands) -> None:
        try:
            self._core.link.send(commands)
        except OSError:
            self._bury()
            return
        if self._core.link.has_unsent and self._loop is not None:
            self._loop.add_writer(self._core.link.socket.fileno(), self._send_rest)

    def _send_rest(self) -> None:
        try:
            self._core.link.flush()
        except OSError:
            self._bury()
            return
        if not self._core.link.has_unsent and self._loop is not None:
            self._loop.remove_writer(self._core.link.socket.fileno())

    def _receive(self) -> None:
        try:
            messages = self._core.link.receive()
        except (EOFError, OSError, msgspec.MsgspecError):
            self._bury()
            return
        for message in messages:
            self._take(message)
        callbacks, self._after_step = self._after_step, []
        for callback in callbacks:
            callback()

    def _take(self, message: FromCore) -> None:
        if isinstance(message, StepOutputs):
            self.stats = message.stats
            if message.deltas:
                self._restarts.recover()
            for delta in message.deltas:
                self._journal.deliver(delta)
        elif isinstance(message, Ready):
            self._begin(message.info)
        elif self._info is None:
            error = ConfigError if message.is_config_error else EngineDeadError
            self._fail(error(message.message))
        else:
            self._last_words = message.message

    def _begin(self, info: EngineInfo) -> None:
        """The core is ready: give it everything there is to do."""
        self._is_up = True
        self._restarts.set_ready()
        if self._info is not None:
            logger.warning(
                "engine core (%s) is ready after %.1f s: %d requests go on",
                self._core.name,
                time.monotonic() - self._core.started_s,
                self._journal.num_open,
            )
        self._info = info
        # The next core has the same place for everything, whatever the machine has left then.
        self._config = msgspec.structs.replace(
            self._config,
            device=info.device,
            dtype=info.dtype,
            max_model_len=info.max_model_len,
            max_num_batched_tokens=info.max_num_batched_tokens,
            num_blocks=info.num_blocks,
        )
        self._reset_stats()
        self._watchdog.reset()
        self._send(Commands(replays=self._journal.replays()))
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(info)

    # ---- when the core fails -----------------------------------------------------------------

    def _watch(self) -> None:
        """Look at the core every now and then, while it has something to do."""
        interval_s = self._watchdog.interval_s
        if self._look is None and self._loop is not None and interval_s < float("inf"):
            self._watchdog.reset()
            self._look = self._loop.call_later(interval_s, self._look_at_core)

    def _look_at_core(self) -> None:
        self._look = None
        if self._loop is None or not (self._journal.num_open or not self._is_up):
            return
        if not self._watchdog.is_hung(self._core.board, is_loading=not self._is_up):
            self._look = self._loop.call_later(self._watchdog.interval_s, self._look_at_core)
        elif self._core.kill_hung():
            # The end of its connection comes first, and calls this off.
            self._look = self._loop.call_later(_KILL_GRACE_S, self._bury)
        else:
            self._fail(EngineDeadError("the engine core makes no progress"))

    def _bury(self) -> None:
        """The core is gone: find out why, and see to the next one."""
        if self._error is not None:
            return
        self._is_up = False
        self._is_buried = True
        self._forget_commands()
        self._stop_listening()
        death = self._core.bury(self._last_words)
        self._last_words = None
        logger.error("engine core (%s) %s", self._core.name, death.how)
        guilty = self._journal.blame(self._core.board.request_ids, is_own_fault=death.is_own_fault)
        if guilty is not None:
            logger.error("engine request %d has stopped the core twice and is refused", guilty)
        self._core.close()
        if self._in_process or self._info is None:
            self._fail(EngineDeadError(f"the engine core {death.how}"))
            return
        self._reset_stats()
        self._restart_after(death.how)

    def _reset_stats(self) -> None:
        """Set the counters of a core that has made no step."""
        assert self._info is not None
        num_open = self._journal.num_open
        self.stats = StepStats(num_waiting=num_open, num_free_blocks=self._info.num_blocks)

    def _restart_after(self, how: str) -> None:
        delay_s = self._restarts.next_delay()
        if delay_s is None:
            self._fail(EngineDeadError(f"the engine core {how}, too often in a row"))
            return
        logger.warning(
            "engine core starts again%s (restart %d): %d requests wait",
            f" in {delay_s:.0f} s" if delay_s else "",
            self.num_restarts,
            self._journal.num_open,
        )
        if self._loop is not None and not self._loop.is_closed():
            self._restart = self._loop.call_later(delay_s, self._start_again)

    def _start_again(self) -> None:
        if self._error is not None:
            return
        try:
            self._core = RunningCore(self._config, in_process=False)
        except OSError as error:
            self._restart_after(f"cannot be started: {error}")
            return
        self._is_buried = False
        self._listen()

    def _stop_listening(self) -> None:
        fd = self._core.link.socket.fileno()
        if self._loop is not None and not self._loop.is_closed() and fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _fail(self, error: EngineError | ConfigError) -> None:
        """Close the connection and end every live request with the error."""
        if self._error is not None:
            return
        self._error = error
        self._is_up = False
        self._stop_listening()
        if self._restart is not None:
            self._restart.cancel()
        self._core.link.close()
        self._journal.fail_all(
            error if isinstance(error, EngineError) else EngineDeadError(str(error))
        )
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
            # Nobody may be waiting; the error is kept and raised by the next call.
            self._ready.exception()
