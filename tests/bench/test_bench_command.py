"""`rillm bench` as a user runs it, against `rillm serve` on the bundled model."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rillm.bench.scenarios import SCENARIOS

pytestmark = pytest.mark.timeout(300)
RILLM = [sys.executable, "-m", "rillm"]
SERVE = [*RILLM, "serve", "--port", "0", "--kv-cache-memory-bytes", str(64 * 2**20)]
VOID = {"meta", "br"}


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    with subprocess.Popen([*SERVE, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline().split()[-1]
        finally:
            process.kill()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving("--num-threads", "1") as found:
        yield found


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*RILLM, "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


class Page(HTMLParser):
    """Checks that elements close in order, and collects what could reach other places."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.outside: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.outside += [each for each in attrs if each[0] in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.remove(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_all_scenarios_and_a_sweep_without_a_fault(url: str, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "all.json"), "--html", str(tmp_path / "all.html")]
    load = ["--concurrency", "4", "--rate", "50", "--num-prompts", "4", "--output-tokens", "8"]

    result = bench(url, "--scenario", "all", "--runs", "1", "--warmup", "0", *load, *files)

    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert "gates: no faults in 15 requests" in result.stdout
    found = json.loads((tmp_path / "all.json").read_text())
    rows = {row["title"]: row for row in found["rows"]}
    assert {row["scenario"] for row in rows.values()} == {*SCENARIOS, None}
    assert found["num_faults"] == sum(row["not_comparable"] for row in rows.values()) == 0
    assert rows["tool call"]["missed"] == rows["reasoning, then a tool"]["missed"] == 0
    assert rows["tool call"]["median_tool_name_ms"] <= rows["tool call"]["median_tool_call_ms"]
    assert rows["reasoning, then a tool"]["median_reasoning_ms"] > 0
    assert len(rows["n = 4"]["requests"][0]["finish_reasons"]) == 4
    first, again = rows["prefix, first time"], rows["prefix, again"]
    assert first["total_cached_tokens"] < again["total_cached_tokens"]
    assert rows["4 at once"]["max_concurrency"] == 4
    assert rows["50 req/s"]["request_rate"] == 50
    for row in rows.values():
        for request in row["requests"]:
            assert len(request["chunk_ms"]) == len(request["chunk_kind"]) > 0
    check_page((tmp_path / "all.html").read_text())


def check_page(text: str) -> None:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.outside == []
    assert page.seen.count("svg") > 10
    assert not {"script", "link", "img", "iframe", "object"} & set(page.seen)
    assert not re.search(r"@import|url\(|//(?!127\.0\.0\.1)", text.replace("</", "<"))


def test_token_endpoint_and_two_servers(url: str, tmp_path: Path) -> None:
    html = tmp_path / "two.html"
    load = ["--concurrency", "2", "--num-prompts", "8", "--output-tokens", "8", "--ignore-eos"]

    result = bench(
        "--compare", url, f"{url}/v1", "--endpoint", "generate", *load, "--html", str(html)
    )

    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert "2 at once: output_throughput" not in result.stdout
    assert re.search(r"2 at once: tok/s +\d", result.stdout)
    page = Page()
    page.feed(html.read_text())
    assert page.outside == []
    assert "B against A" in html.read_text()


def test_completions_endpoint_within_an_objective(url: str) -> None:
    load = ["--endpoint", "completions", "--rate", "inf", "--num-prompts", "4"]

    result = bench(url, *load, "--output-tokens", "8", "--goodput", "ttft:60000", "itl:60000")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "good/s" in result.stdout


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_tls_and_api_key(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files, *subject], check=True, capture_output=True)
    tls = ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]
    asked = ["--scenario", "tool_call", "--runs", "1", "--warmup", "0"]

    with serving(*tls, "--api-key", "secret", "--num-threads", "1") as url:
        trusted = ["--ssl-ca-file", str(certificate)]
        right = bench(url, *asked, *trusted, "--api-key", "secret")
        no_key = bench(url, *asked, *trusted, "--model", "bundled")
        no_trust = bench(url, *asked, "--api-key", "secret")

    assert right.returncode == 0, right.stdout + right.stderr
    assert no_key.returncode == 1
    assert "error: the server refused" in no_key.stdout
    assert no_trust.returncode == 2
    assert "CERTIFICATE_VERIFY_FAILED" in no_trust.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["http://127.0.0.1:1"], "cannot be reached"),
        (["--runs", "0"], "runs is 0"),
        (["--goodput", "speed:1"], "goodput is 'speed:1'"),
        (["http://x", "--compare", "http://a", "http://b"], "must not be given with compare"),
        (["--html", "no/such/folder/x.html"], "cannot be written"),
    ],
)
def test_wrong_settings_end_with_2_and_no_traceback(arguments: list[str], named: str) -> None:
    result = bench(*arguments)

    assert result.returncode == 2
    assert named in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
