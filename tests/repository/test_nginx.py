"""A real nginx with the configuration of docs/deployment.md passes streams on as they come."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from doc_blocks import ADDRESS, all_blocks

(BLOCK,) = all_blocks("nginx")
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
NUM_CHUNKS = 5

pytestmark = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None, reason="needs nginx and openssl"
)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def _nginx(upstream: str, folder: Path) -> Iterator[str]:
    """Run nginx as the page says, in front of `upstream`; where it listens."""
    port = _free_port()
    certificate, key = folder / "llm.pem", folder / "llm.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
        + ["-subj", "/CN=127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    block = BLOCK.text
    for written, here in (
        (ADDRESS, upstream),
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("/etc/ssl/llm.example.com.pem", str(certificate)),
        ("/etc/ssl/llm.example.com.key", str(key)),
    ):
        assert written in block
        block = block.replace(written, here)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off;\nworker_processes 1;\npid {folder / 'pid'};\nerror_log {folder / 'log'};\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}{block}}}\n"
    )
    assert NGINX is not None
    with subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf"]) as process:
        try:
            while True:
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.02)
            yield f"https://127.0.0.1:{port}"
        finally:
            process.terminate()


class _Upstream:
    """Answers one request with chunks, each of them only when the one before has been read."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.may_send = threading.Semaphore(1)
        self.head = b""
        self.has_seen_the_end = threading.Event()
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def _answer(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            while b"\r\n\r\n" not in self.head:
                self.head += connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
            for number in range(NUM_CHUNKS):
                self.may_send.acquire()
                event = f"data: {number}\n\n".encode()
                connection.sendall(b"%x\r\n%b\r\n" % (len(event), event))
            # No end: what closes the connection is that the reader leaves.
            while connection.recv(65536):
                pass
        self.has_seen_the_end.set()

    def close(self) -> None:
        self.listener.close()


@pytest.fixture
def upstream() -> Iterator[_Upstream]:
    upstream = _Upstream()
    yield upstream
    upstream.close()


def test_every_chunk_comes_before_the_next_is_made(upstream: _Upstream, tmp_path: Path) -> None:
    with (
        _nginx(upstream.address, tmp_path) as url,
        httpx2.Client(verify=False, timeout=30) as client,
    ):
        with client.stream("POST", url, json={"stream": True}) as response:
            events = (line for line in response.iter_lines() if line)
            for number in range(NUM_CHUNKS):
                assert next(events) == f"data: {number}"
                upstream.may_send.release()

        # The reader has left: so does nginx.
        assert upstream.has_seen_the_end.wait(30)
    head = upstream.head.lower()
    assert b"http/1.1\r\n" in head
    assert b"connection: close" not in head


def test_a_stream_is_the_same_through_nginx(served_address: str, tmp_path: Path) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 20, "temperature": 0, "stream": True}

    def text(client: httpx2.Client, url: str) -> str:
        with client.stream("POST", f"{url}/v1/completions", json=body) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in response.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        # Chunks may merge on a slow machine; what they say does not.
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        return "".join(chunk["choices"][0]["text"] for chunk in chunks)

    with (
        _nginx(served_address, tmp_path) as url,
        httpx2.Client(verify=False, timeout=30) as client,
    ):
        assert text(client, url) == text(client, f"http://{served_address}")
