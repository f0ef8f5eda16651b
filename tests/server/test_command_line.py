"""The console command as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from openai import OpenAI

RILLM = [sys.executable, "-m", "rillm"]
SMALL = ["--kv-cache-memory-bytes", str(64 * 2**20), "--num-threads", "2"]


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RILLM, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def serving() -> Iterator[subprocess.Popen[str]]:
    command = [*RILLM, "serve", "--port", "0", *SMALL]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_where_streams_and_leaves_nothing_behind(
    serving: subprocess.Popen[str], signum: signal.Signals
) -> None:
    assert serving.stderr is not None
    line = serving.stderr.readline()
    found = re.search(r"serves bundled: .+ on \w+, \d+ MiB in memory, .+ at (http://\S+)$", line)
    assert found, line
    children = psutil.Process(serving.pid).children(recursive=True)
    assert children

    with OpenAI(base_url=f"{found[1]}/v1", api_key="any") as client:
        chunks = list(
            client.completions.create(model="bundled", prompt="A", max_tokens=4, stream=True)
        )
    serving.send_signal(signum)
    _, rest = serving.communicate(timeout=30)

    assert chunks[-1].choices[0].finish_reason is not None
    assert serving.returncode == 0
    assert re.fullmatch(r".+ INFO request_id=\w+ outcome=completed .+ status=200 .+\n", rest)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_interrupt_stops_an_answer_and_not_the_conversation() -> None:
    command = [*RILLM, "chat", "--temperature", "0", "--max-tokens", "200", *SMALL]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # As in a terminal, the signal goes to the engine's process too.
        start_new_session=True,
    ) as chatting:
        assert chatting.stdin is not None
        assert chatting.stdout is not None
        chatting.stdin.write(b"Tell me a long story.\n")
        chatting.stdin.flush()
        assert chatting.stdout.read(2) == b"> "
        chatting.stdout.read(1)

        os.killpg(chatting.pid, signal.SIGINT)
        after, errors = chatting.communicate(b"And then?\n", timeout=60)

    assert (chatting.returncode, errors) == (0, b"")
    answer = after.split(b"> ")[-2]
    assert answer.strip()


def test_serve_that_cannot_listen_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("serve", "--port", str(taken.getsockname()[1]))

    assert result.returncode == 2
    assert "in use" in result.stderr
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["serve", "--port", "0", "no/such/model/here"], "no/such/model/here"),
        (["serve", "--port", "0", "--dtype", "float7"], "float7"),
        (["chat", "-p", "hi", "--tensor-parallel-size", "2"], "tensor_parallel_size"),
        (["serve", "--prot", "1"], "--prot"),
    ],
)
def test_wrong_settings_are_named_without_a_traceback(arguments: list[str], named: str) -> None:
    result = run(*arguments)

    assert result.returncode == 2
    assert named in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_chat_answers_one_prompt() -> None:
    result = run("chat", "-p", "Hello", "--temperature", "0", "--max-tokens", "8", *SMALL)

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip()


def test_chat_goes_on_until_the_input_ends() -> None:
    result = run(
        "chat", "--temperature", "0", "--max-tokens", "4", *SMALL, stdin="Hello\n\nAnd then?\n"
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("> ") == 4
    answers = [line.strip() for line in result.stdout.split("> ")]
    assert answers[1]
    assert answers[3]


def test_help_lists_engine_settings_with_their_text() -> None:
    result = run("serve", "--help")

    assert result.returncode == 0
    assert "--max-num-seqs" in result.stdout
    assert "--port" in result.stdout


def test_version_is_the_packages() -> None:
    result = run("--version")

    assert re.fullmatch(r"\d+\.\d+\.\d+\n", result.stdout)


def test_the_server_process_never_loads_torch() -> None:
    program = (
        "import sys, rillm.cli; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert result.stdout == "[]\n"
