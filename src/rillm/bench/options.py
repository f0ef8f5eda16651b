"""Settings of one run. The string under a field is its help text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rillm.bench.metrics import Objective, parse_goodput
from rillm.bench.scenarios import Scenario, find_scenarios
from rillm.bench.wire import Endpoint
from rillm.errors import ConfigError

_DEFAULT_URL = "http://127.0.0.1:8000"
_DEFAULT_CONCURRENCY = (1, 4, 16)


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Which server, what to ask it, and where the results go."""

    compare: tuple[str, str] | None = None
    """Two servers, to be asked in turn; ratios say how much slower the second is."""
    endpoint: Endpoint = "chat"
    """What to ask: chat, completions, or generate, the token endpoint."""
    model: str | None = None
    """Name of the model; by default the first that the server lists."""
    api_key: str | None = None
    """Sent as a bearer token."""
    header: tuple[str, ...] = ()
    """More headers, each `Name: value`."""
    extra_body: str | None = None
    """JSON object whose fields go into every request; null takes a field out."""
    ssl_ca_file: str | None = None
    """File with the certificates to trust, if not those of the system."""
    timeout: float = 120.0
    """Longest silence of an answer, in seconds."""

    scenario: tuple[str, ...] = ()
    """Scenarios to run: all, tool_call, plain_short, plain_long, reasoning_tool, n4,
    shared_prefix. By default all, unless there is a sweep."""
    runs: int = 5
    """Requests of each scenario that are timed."""
    warmup: int = 1
    """Requests before them, and before each step of a sweep, that are checked but not timed."""

    concurrency: tuple[int, ...] = ()
    """Sweep over so many requests at once."""
    rate: tuple[float, ...] = ()
    """Sweep over so many requests a second, which arrive at random (Poisson); inf: all at once."""
    num_prompts: int = 64
    """Requests of each step of a sweep."""
    prompts: Path | None = None
    """Prompts of a sweep: a text in each line, or in each line of a .jsonl file an object with
    `prompt`, `messages` or `token_ids` and any other field of a request."""
    input_tokens: int = 128
    """Length of random prompts: ids of the token endpoint, elsewhere words."""
    output_tokens: int = 128
    """Most tokens of an answer in a sweep."""
    vocab_size: int = 1000
    """Random token ids are below this."""
    ignore_eos: bool = False
    """Ask for answers of full length in a sweep, of servers that know `ignore_eos`."""
    goodput: tuple[str, ...] = ()
    """What a good request is, in milliseconds: ttft:500 tpot:50."""
    seed: int = 0
    """Source of random prompts and arrival times."""

    json: Path | None = None
    """Write everything measured into this file."""
    html: Path | None = None
    """Write a report with plots into this file."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: a setting is out of range; the message names it.
        """
        for name in ("runs", "num_prompts", "input_tokens", "output_tokens", "vocab_size"):
            _check_positive(name, getattr(self, name))
        for number in self.concurrency:
            _check_positive("concurrency", number)
        for rate in self.rate:
            if not rate > 0:
                raise ConfigError(f"rate is {rate}, must be above 0")
        if self.warmup < 0:
            raise ConfigError(f"warmup is {self.warmup}, must be at least 0")
        if not 0 < self.timeout < math.inf:
            raise ConfigError(f"timeout is {self.timeout}, must be above 0")
        if self.scenario and self.endpoint != "chat":
            raise ConfigError(f"endpoint is {self.endpoint!r}, must be 'chat' for scenarios")

    def urls(self, url: str | None) -> tuple[str, ...]:
        """The servers.

        Args:
            url: of the only one, if it was named.

        Raises:
            ConfigError: there are three.
        """
        if self.compare is None:
            return (url or _DEFAULT_URL,)
        if url is not None:
            raise ConfigError(f"url is {url!r}, must not be given with compare")
        return self.compare

    def scenarios(self) -> list[Scenario]:
        """The scenarios to run."""
        has_sweep = bool(self.concurrency or self.rate)
        if not self.scenario and (has_sweep or self.endpoint != "chat"):
            return []
        return find_scenarios(self.scenario or ("all",))

    def loads(self) -> list[Load]:
        """The steps of the sweep; none where only scenarios are run."""
        numbers = self.concurrency
        if not numbers and not self.rate and self.endpoint != "chat":
            numbers = _DEFAULT_CONCURRENCY
        return [*(Load(concurrency=number) for number in numbers), *map(Load.at_rate, self.rate)]

    def objective(self) -> Objective | None:
        """What a good request is; None if nobody said."""
        return parse_goodput(self.goodput) if self.goodput else None

    def headers(self) -> dict[str, str]:
        """What is sent with every request.

        Raises:
            ConfigError: a header has no colon.
        """
        found = {}
        for each in self.header:
            name, colon, value = each.partition(":")
            if not colon or not name.strip():
                raise ConfigError(f"header is {each!r}, must be like 'Name: value'")
            found[name.strip()] = value.strip()
        return found | ({} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"})

    def extra_fields(self) -> Mapping[str, Any]:
        """Fields that go into every request.

        Raises:
            ConfigError: they are no JSON object.
        """
        if self.extra_body is None:
            return {}
        try:
            fields = json.loads(self.extra_body)
        except ValueError as error:
            raise ConfigError(f"extra_body is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise ConfigError(f"extra_body is {self.extra_body!r}, must be a JSON object")
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One step of a sweep: so many requests at once, or so many a second."""

    concurrency: int | None = None
    rate: float | None = None

    @classmethod
    def at_rate(cls, rate: float) -> Load:
        """Requests a second."""
        return cls(rate=rate)

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.concurrency} at once" if self.rate is None else f"{self.rate:g} req/s"

    @property
    def label(self) -> str:
        """Only the number."""
        return str(self.concurrency) if self.rate is None else f"{self.rate:g}/s"


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} is {value}, must be at least 1")
