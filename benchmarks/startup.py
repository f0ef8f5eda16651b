"""How long `rillm serve` takes to its first streamed token, and what it weighs when idle.

    python benchmarks/startup.py [MODEL] [--runs 5]

Each run starts the server as a user would, knocks until the socket answers, at the same time
asks for a streamed chat completion (which waits while the model loads), and reads the first
content from the stream. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil

KNOCK_S = 0.01
IDLE_S = 2.0


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def first_content_s(url: str, model: str) -> float:
    """Ask for a streamed answer; the time when its first content arrived."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello!"}],
        "stream": True,
        "max_tokens": 16,
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        for line in response:
            if line.startswith(b"data: {"):
                choice = json.loads(line[6:])["choices"][0]
                if choice["delta"].get("content"):
                    response.read()
                    return time.perf_counter()
    raise RuntimeError("the stream ended without content")


def memory_mib(process: psutil.Process) -> float:
    """Resident memory of a process and its children, pages they share counted once each."""
    family = [process, *process.children(recursive=True)]
    return sum(p.memory_full_info().pss for p in family) / 2**20


def run(model: str) -> dict[str, float]:
    """One start: seconds to the socket's answer and to the first content, MiB when idle."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    start_s = time.perf_counter()
    command = [sys.executable, "-m", "rillm", "serve", model, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=5).read()
                    break
                except urllib.error.HTTPError:
                    break  # It answers: that it is still loading.
                except OSError:
                    if server.poll() is not None:
                        raise RuntimeError("the server did not start") from None
                    time.sleep(KNOCK_S)
            socket_s = time.perf_counter() - start_s
            token_s = first_content_s(url, model) - start_s
            time.sleep(IDLE_S)
            memory = memory_mib(psutil.Process(server.pid))
        finally:
            server.terminate()
    return {"socket_s": socket_s, "first_token_s": token_s, "idle_mib": memory}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", nargs="?", default="bundled")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    runs = [run(options.model) for _ in range(options.runs)]
    medians = {name: statistics.median(r[name] for r in runs) for name in runs[0]}
    print(
        f"socket answers after {medians['socket_s']:.2f} s, first content after "
        f"{medians['first_token_s']:.2f} s, {medians['idle_mib']:.0f} MiB when idle "
        f"(medians of {options.runs})"
    )
    print(json.dumps({"model": options.model, "runs": runs, "median": medians}))


if __name__ == "__main__":
    main()
