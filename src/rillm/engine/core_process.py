"""The engine core as a process of its own: `python -m rillm.engine.core_process FD BOARD SIZE`.

FD is one end of a socket pair, inherited from the client. The process ends when the other end
does, however that came about, so no core outlives its client. BOARD is the file of a `StepBoard`
for SIZE requests.
"""

from __future__ import annotations

import select
import signal
import socket
import sys
import traceback

from rillm.engine.core import EngineCore
from rillm.engine.messages import Commands, Failed, FromCore, Ready, Start, StepOutputs, ToCore
from rillm.engine.step_board import StepBoard
from rillm.engine.transport import FrameSocket, core_end
from rillm.errors import ConfigError


def serve(sock: socket.socket, board: StepBoard) -> bool:
    """Run an engine core for the client at the other end until the client goes away.

    Args:
        sock: connected stream socket; closed at the end.
        board: where the core says what it is working on.

    Returns:
        Whether the client has left; otherwise the core has failed, and has said why.
    """
    link = core_end(sock)
    try:
        core = _start(link, board)
        if core is not None:
            _loop(link, core)
    except (EOFError, OSError):
        # The client is gone: there is nobody left to tell.
        return True
    finally:
        link.close()
    return False


def _start(link: FrameSocket[FromCore, ToCore], board: StepBoard) -> EngineCore | None:
    """Load what the client's first frame asks for; None when that fails."""
    commands: list[ToCore] = []
    while not commands:
        select.select([link.socket], [], [])
        commands = link.receive()
    start = commands.pop(0)
    if not isinstance(start, Start):
        raise TypeError(f"the first frame is a {type(start).__name__}, must be a Start")
    try:
        core = EngineCore(start.config, board)
    except ConfigError as error:
        _send_all(link, Failed(str(error), is_config_error=True))
        return None
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        _send_all(link, Failed(f"{type(error).__name__}: {error}", is_config_error=False))
        return None
    link.send(Ready(core.info))
    _apply(core, commands)
    return core


def _loop(link: FrameSocket[FromCore, ToCore], core: EngineCore) -> None:
    """One frame of commands, one step, one frame of outputs, for ever."""
    while True:
        if not core.has_work or core.is_blocked:
            sock, grammars = link.socket.fileno(), core.grammars.fileno()
            select.select([sock, grammars], [sock] if link.has_unsent else [], [])
        had_work = core.has_work
        _apply(core, link.receive())
        if link.has_unsent:
            link.flush()
        if had_work and not core.has_work:
            # The last request was aborted: without a step, nothing else would say so.
            link.send(StepOutputs([], core.scheduler.stats()))
        if core.has_work:
            try:
                outputs = core.step()
            except Exception as error:  # noqa: BLE001
                traceback.print_exc()
                _send_all(link, Failed(f"{type(error).__name__}: {error}", is_config_error=False))
                return
            if outputs.deltas:
                link.send(outputs)


def _apply(core: EngineCore, messages: list[ToCore]) -> None:
    for message in messages:
        if isinstance(message, Commands):
            core.apply(message)


def _send_all(link: FrameSocket[FromCore, ToCore], message: FromCore) -> None:
    link.send(message)
    while link.has_unsent:
        select.select([], [link.socket], [])
        link.flush()


def main() -> None:
    """Entry point of the process."""
    # Ctrl-C goes to the whole terminal group; the client decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fd, board, size = map(int, sys.argv[1:])
    if not serve(socket.socket(fileno=fd), StepBoard(size, board)):
        sys.exit(1)


if __name__ == "__main__":
    main()
