"""Frames over a stream socket: four bytes of length, little endian, then a msgpack message.

Both ends send without blocking. What the kernel does not take at once stays in a buffer, so an
engine is never held up by a client that reads late, and the other way round.
"""

from __future__ import annotations

import socket
from typing import Generic, TypeVar

import msgspec

from rillm.engine.messages import FromCore, ToCore

_LENGTH_BYTES = 4
_RECEIVE_BYTES = 1 << 18


Sent = TypeVar("Sent")
Received = TypeVar("Received")


class FrameSocket(Generic[Sent, Received]):
    """One end of the connection between client and core."""

    def __init__(self, sock: socket.socket, receives: object) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(receives)
        self._unsent = bytearray()
        self._received = bytearray()

    @property
    def has_unsent(self) -> bool:
        """Whether `flush` has something left to send."""
        return bool(self._unsent)

    def send(self, message: Sent) -> None:
        """Send a message, or keep what the kernel does not take for `flush`.

        Raises:
            OSError: the other end is gone.
        """
        # Encoded apart, so that a message that cannot be leaves no half frame behind.
        body = self._encoder.encode(message)
        self._unsent += len(body).to_bytes(_LENGTH_BYTES, "little")
        self._unsent += body
        self.flush()

    def flush(self) -> None:
        """Send what is left over, as far as the kernel takes it.

        Raises:
            OSError: the other end is gone.
        """
        while self._unsent:
            try:
                sent = self.socket.send(self._unsent)
            except BlockingIOError:
                return
            del self._unsent[:sent]

    def receive(self) -> list[Received]:
        """Take the messages that have arrived, without waiting.

        Raises:
            EOFError: the other end is gone and all its messages were taken.
            OSError: the connection broke.
        """
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError("the other end has closed the connection")
        self._received += data
        messages: list[Received] = []
        at = 0
        while len(self._received) - at >= _LENGTH_BYTES:
            start = at + _LENGTH_BYTES
            end = start + int.from_bytes(self._received[at:start], "little")
            if len(self._received) < end:
                break
            messages.append(self._decoder.decode(memoryview(self._received)[start:end]))
            at = end
        del self._received[:at]
        return messages

    def close(self) -> None:
        """Close the socket; the other end sees the end of the stream."""
        self.socket.close()


def core_end(sock: socket.socket) -> FrameSocket[FromCore, ToCore]:
    """The core's end of a connected stream socket."""
    return FrameSocket(sock, ToCore)


def client_end(sock: socket.socket) -> FrameSocket[ToCore, FromCore]:
    """The client's end of a connected stream socket."""
    return FrameSocket(sock, FromCore)
