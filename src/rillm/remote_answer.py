"""What an engine elsewhere answers, from the bytes to the stream of its request."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rillm.errors import CapacityError, EngineGenerateError, InvalidRequestError, RillmError
from rillm.remote_stream import RemoteStream
from rillm.sse_reader import EventReader
from rillm.token_wire import read_answer

_OK: Final = 200
_NO_ROOM: Final = frozenset({429, 503})
_WRONG_FIELD: Final = frozenset({400, 422})


class EnoughError(Exception):
    """The request is complete, by a stop string: the engine goes on until it is left."""


class RemoteAnswer:
    """Reads one answer; a `rillm.http_client.Receiver`."""

    def __init__(self, stream: RemoteStream) -> None:
        self._stream = stream
        self._status = 0
        self._reader: EventReader | None = None
        """Of a stream of events; None for a whole body."""
        self._body: list[bytes] = []
        self._is_done = False

    def sent(self, at: float) -> None:
        """Nothing has come yet."""

    def begin(self, status: int, content_type: str, at: float) -> None:
        """See which kind of answer it is."""
        self._status = status
        if status == _OK and "event-stream" in content_type:
            self._reader = EventReader()

    def feed(self, data: bytes, at: float) -> None:
        """Tell the stream what has come.

        What follows `[DONE]` is dropped, so that the connection can be used again.

        Raises:
            EnoughError: the stream needs no more.
            RillmError: the engine failed, or an event is malformed.
        """
        if self._reader is None:
            self._body.append(data)
            return
        for event in self._reader.feed(data):
            self._is_done = self._is_done or event == b"[DONE]"
            if self._is_done:
                return
            answer = read_answer(event)
            if answer.error is not None:
                raise _failure(answer.error)
            self._stream.add(answer)
            if self._stream.is_complete:
                raise EnoughError

    def end(self) -> None:
        """All has come: read an answer that was not a stream.

        Raises:
            RillmError: the engine refused the request, or the answer is malformed.
        """
        if self._reader is None:
            body = b"".join(self._body)
            if self._status != _OK:
                raise _refusal(self._status, body)
            self._stream.add(read_answer(body))


def _refusal(status: int, body: bytes) -> RillmError:
    """What a status other than 200 means for the caller."""
    try:
        error = msgspec.json.decode(body)["error"]
    except (msgspec.DecodeError, LookupError, TypeError):
        error = None
    if not isinstance(error, dict):
        error = {"message": f"an engine answered with status {status}"}
    return _failure(error | {"code": status})


def _failure(error: dict[str, Any]) -> RillmError:
    """What an engine's error object means for the caller.

    Only what the caller can change is told: a wrong path or key between the two servers is not.
    """
    status, message, param = error.get("code"), str(error.get("message")), error.get("param")
    if status in _NO_ROOM:
        return CapacityError("no engine has room at present")
    if status in _WRONG_FIELD:
        return InvalidRequestError(message, param=param if isinstance(param, str) else None)
    return EngineGenerateError(message)
