"""A lean HTTP/1.1 client for streams: what arrives is stamped with its time, and told at once.

A request costs one write and a callback for each read; there are no tasks, locks or buffers
between the socket and the answer. Proxies that the environment names are not used.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

import httptools

from rillm.errors import ConfigError

_PORTS: Final = {"http": 80, "https": 443}
_LENGTH_HEADERS: Final = (b"content-length", b"transfer-encoding")


class Receiver(Protocol):
    """Who reads an answer. Times are those of `time.perf_counter`, in seconds."""

    def sent(self, at: float) -> None:
        """Take note that the request is on its way."""

    def begin(self, status: int, content_type: str, at: float) -> None:
        """Take note of status and headers."""

    def feed(self, data: bytes, at: float) -> None:
        """Take in some of the body.

        Raises:
            Exception: no more of it is wanted; `Client.ask` raises the same.
        """


class TransferError(Exception):
    """The answer did not arrive whole."""


class StallError(TransferError):
    """Nothing arrived for too long."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server."""

    is_tls: bool
    host: str
    port: int
    prefix: str
    """Path before that of the endpoint, such as `/api`."""

    @classmethod
    def from_url(cls, url: str) -> Target:
        """Read a URL; `/v1` at its end is as good as nothing.

        Raises:
            ConfigError: it is no URL of HTTP.
        """
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in _PORTS or not parts.hostname or port == 0:
            raise ConfigError(f"url is {url!r}, must be like http://127.0.0.1:8000")
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.scheme == "https", parts.hostname, port or _PORTS[parts.scheme], prefix)


class Connection(asyncio.Protocol):
    """One connection; one request at a time.

    Attributes:
        has_answer: whether anything has come in answer to the last request.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._receiver: Receiver | None = None
        self._done: asyncio.Future[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._content_type = ""
        self._now = 0.0
        self._has_length = False
        self._has_headers = False
        self._is_reusable = False
        self.has_answer = False

    async def ask(self, request: bytes, receiver: Receiver, timeout_s: float | None) -> None:
        """Send a request and have its answer read.

        Args:
            request: head and body.
            receiver: is told what arrives.
            timeout_s: longest silence, in seconds; None: any.

        Raises:
            StallError: nothing arrived for `timeout_s`.
            TransferError: the connection broke, or what came is not HTTP.
            Exception: what the receiver raised.
        """
        assert self._transport is not None
        self._done, self._receiver = asyncio.get_running_loop().create_future(), receiver
        self._parser, self._content_type = httptools.HttpResponseParser(self), ""
        self._is_reusable = self._has_length = self._has_headers = self.has_answer = False
        self._now = time.perf_counter()
        receiver.sent(self._now)
        self._transport.write(request)
        if timeout_s is not None:
            self._check_silence(timeout_s)
        try:
            await self._done
        finally:
            if self._watch is not None:
                self._watch.cancel()
            self._receiver = None
            if not self._is_reusable:
                self.close()

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are not asyncio's by class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Stamp and parse."""
        self._now = time.perf_counter()
        if self._parser is None or self._receiver is None:
            # Nobody asked: whatever this is, the next answer must not begin with it.
            self.close()
            return
        self.has_answer = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(TransferError(f"not HTTP: {error}"))
        except httptools.HttpParserUpgrade:
            self._fail(TransferError("the server wants another protocol"))

    def connection_lost(self, error: Exception | None) -> None:
        """An answer without a length ends here; any other is cut off."""
        if error is None and self._has_headers and not self._has_length:
            self._finish()
        else:
            self._fail(TransferError("the connection closed before the answer's end"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep what is needed of the headers; called by the parser."""
        name = name.lower()
        if name == b"content-type":
            self._content_type = value.decode("latin-1")
        self._has_length |= name in _LENGTH_HEADERS

    def on_headers_complete(self) -> None:
        """Tell status and headers; called by the parser."""
        assert self._parser is not None
        assert self._receiver is not None
        self._has_headers = True
        self._receiver.begin(self._parser.get_status_code(), self._content_type, self._now)

    def on_body(self, data: bytes) -> None:
        """Tell some of the body; called by the parser."""
        if self._receiver is None:
            return
        try:
            self._receiver.feed(data, self._now)
        except Exception as error:  # noqa: BLE001 - for whoever asked
            self._receiver = None
            self._fail(error)

    def on_message_complete(self) -> None:
        """The answer is there; called by the parser."""
        assert self._parser is not None
        self._is_reusable = self._parser.should_keep_alive()
        self._finish()

    def _check_silence(self, timeout_s: float) -> None:
        rest_s = self._now + timeout_s - time.perf_counter()
        if rest_s <= 0:
            self._fail(StallError(f"nothing arrived for {timeout_s:g} s"))
            return
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(rest_s, self._check_silence, timeout_s)

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)
        self.close()


class Client:
    """Connections to one server, used again where the server allows it."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout_s: float | None,
        connect_timeout_s: float | None = None,
        max_idle_connections: int | None = None,
        ca_file: str | None = None,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            url: of the server, with or without `/v1`.
            headers: to send with every request.
            timeout_s: longest silence of an answer, in seconds; None: any.
            connect_timeout_s: the same for connecting; None: `timeout_s`.
            max_idle_connections: to keep for the next requests; None: all.
            ca_file: file with the certificates to trust; None for those of the system.

        Raises:
            ConfigError: the URL, a header or the file cannot be used.
        """
        self._target = target = Target.from_url(url)
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s or timeout_s
        self._max_idle = float("inf") if max_idle_connections is None else max_idle_connections
        self._idle: list[Connection] = []
        self._ssl = None
        if target.is_tls:
            try:
                self._ssl = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise ConfigError(f"ssl_ca_file is {ca_file!r}, cannot be read: {error}") from error
        host = f"[{target.host}]" if ":" in target.host else target.host
        if target.port != _PORTS["https" if target.is_tls else "http"]:
            host += f":{target.port}"
        sent = {"Host": host, "Accept": "*/*", "User-Agent": "rillm"} | dict(headers)
        self._headers = _header_lines(sent)

    async def ask(
        self,
        path: str,
        body: bytes,
        receiver: Receiver,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Post a body and have the answer read.

        Args:
            path: of the endpoint.
            body: JSON.
            receiver: is told what arrives.
            headers: besides those of every request.

        Raises:
            StallError: nothing arrived for too long.
            TransferError: the server cannot be reached, or the answer did not arrive whole.
            Exception: what the receiver raised.
        """
        head = b"POST %s%s HTTP/1.1\r\n%s%sContent-Type: application/json\r\n" % (
            self._target.prefix.encode(),
            path.encode(),
            self._headers,
            _header_lines(headers),
        )
        request = b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)
        await self._send(request, receiver)

    async def get(self, path: str, receiver: Receiver) -> None:
        """Get what is at a path; otherwise as `ask`."""
        prefix = self._target.prefix.encode()
        await self._send(
            b"GET %s%s HTTP/1.1\r\n%s\r\n" % (prefix, path.encode(), self._headers), receiver
        )

    def close(self) -> None:
        """Close all connections that are idle."""
        while self._idle:
            self._idle.pop().close()

    async def _send(self, request: bytes, receiver: Receiver) -> None:
        connection = self._idle_connection()
        if connection is not None:
            try:
                await connection.ask(request, receiver, self._timeout_s)
            except TransferError as error:
                if connection.has_answer or isinstance(error, StallError):
                    raise
                # The server had closed it for being idle.
                connection = None
        if connection is None:
            connection = await self._connect()
            await connection.ask(request, receiver, self._timeout_s)
        if len(self._idle) >= self._max_idle:
            connection.close()
        elif connection.is_open:
            self._idle.append(connection)

    def _idle_connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _connect(self) -> Connection:
        target = self._target
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection, target.host, target.port, ssl=self._ssl
                )
        except TimeoutError as error:
            raise StallError(f"no connection within {self._connect_timeout_s:g} s") from error
        except OSError as error:
            raise TransferError(f"no connection: {error}") from error
        return connection


def _header_lines(headers: Mapping[str, str]) -> bytes:
    """The lines of some headers.

    Raises:
        ConfigError: a header cannot be sent.
    """
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if lines.count("\n") != len(headers) or not lines.isascii():
        raise ConfigError("a header holds a line end or a character that is not of ASCII")
    return lines.encode()
