"""RunningCore: one engine core from its start to its burial. No torch here."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from rillm.engine.config import EngineConfig
from rillm.engine.messages import Start
from rillm.engine.step_board import StepBoard
from rillm.engine.transport import client_end

CORE_MODULE = "rillm.engine.core_process"

_EXIT_GRACE_S = 5.0
_REAP_S = 0.5
"""Between the end of a core's connection and the end of its process."""


@dataclass(frozen=True, slots=True)
class Death:
    """How a core ended."""

    how: str
    """To follow "the engine core"."""
    is_own_fault: bool
    """It crashed; otherwise somebody outside may have killed or stopped it."""


class RunningCore:
    """A core, the connection to it, and the board it writes on.

    Args:
        config: what it is asked for.
        in_process: run it in a thread of this process instead of a process of its own.

    Raises:
        OSError: no process, or no memory for it.
    """

    def __init__(self, config: EngineConfig, *, in_process: bool) -> None:
        self.started_s = time.monotonic()
        self.board = StepBoard(config.max_num_seqs)
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._is_hung = False
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                if in_process:
                    self._thread = _start_thread(theirs.dup(), self.board)
                else:
                    self._process = _start_process(theirs, self.board)
        except BaseException:
            ours.close()
            self.board.close()
            raise
        self.board.close_file()
        self.link = client_end(ours)
        # A core that is dead already is found out by who reads.
        with contextlib.suppress(OSError):
            self.link.send(Start(config))

    @property
    def name(self) -> str:
        """For the log."""
        return "in this process" if self._process is None else f"pid {self._process.pid}"

    def kill_hung(self) -> bool:
        """Kill a core that makes no progress; False where it cannot be killed."""
        self._is_hung = True
        if self._process is None:
            return False
        self._process.kill()
        return True

    def bury(self, last_words: str | None) -> Death:
        """Make sure that a core whose connection has ended is gone, and say how it went.

        Args:
            last_words: what it has said of the reason.
        """
        if self._is_hung:
            self._end(0)
            return Death("made no progress and was killed", is_own_fault=False)
        if self._process is None or last_words is not None:
            self._end(0)
            return Death(f"failed: {last_words or 'its thread has ended'}", is_own_fault=True)
        code = self._end(_REAP_S)
        if code is None or code == -signal.SIGKILL:
            return Death("was killed by SIGKILL", is_own_fault=False)
        if code < 0:
            return Death(f"was killed by {signal.Signals(-code).name}", is_own_fault=True)
        return Death(f"exited with status {code}", is_own_fault=True)

    def stop(self) -> None:
        """Close the connection, upon which the core exits, and wait until it is gone."""
        self.link.close()
        self._end(_EXIT_GRACE_S)
        self.close()

    def close(self) -> None:
        """Give back what a core that is gone has left. Idempotent."""
        self.link.close()
        # A thread that hangs may yet come back and write.
        if self._thread is None or not self._thread.is_alive():
            self.board.close()

    def _end(self, grace_s: float) -> int | None:
        """Wait for the end, then bring it about; the exit code if it is known."""
        if self._thread is not None:
            self._thread.join(grace_s)
        if self._process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(grace_s)
        self._process.kill()
        # One that sleeps in a device driver dies later, and is not waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_EXIT_GRACE_S)
        return None


def _start_process(theirs: socket.socket, board: StepBoard) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        # The core's own modules must be found where this process found them.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # KV cache in huge pages: the first write to a block costs a fraction.
        "THP_MEM_ALLOC_ENABLE": os.environ.get("THP_MEM_ALLOC_ENABLE", "1"),
    }
    files = [theirs.fileno(), board.fileno()]
    arguments = [*map(str, files), str(board.capacity)]
    return subprocess.Popen(
        [sys.executable, "-m", CORE_MODULE, *arguments],
        pass_fds=files,
        stdin=subprocess.DEVNULL,
        env=environment,
    )


def _start_thread(theirs: socket.socket, board: StepBoard) -> threading.Thread:
    # Imported only here: a client whose core is another process never loads torch.
    core_process = importlib.import_module(CORE_MODULE)
    thread = threading.Thread(
        target=core_process.serve, args=(theirs, board), name="rillm-engine-core", daemon=True
    )
    thread.start()
    return thread
