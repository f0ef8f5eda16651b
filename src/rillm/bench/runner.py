"""Runs scenarios and sweeps, on one server or on two in turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random, SystemRandom
from typing import Any, Final

import msgspec

from rillm.bench.exchange import Exchange, exchange
from rillm.bench.gates import Fault, compare
from rillm.bench.metrics import Objective, Summary, summarize
from rillm.bench.options import BenchOptions, Load
from rillm.bench.scenarios import Body, Scenario
from rillm.bench.workload import complete_body, sweep_bodies, whole_body
from rillm.errors import ConfigError
from rillm.http_client import Client, TransferError

_ROUNDS: Final = 4
"""Into so many parts a step is cut where two servers take turns."""
_REPEATS: Final = 2
"""Whole answers that must agree before a stream is held against them."""


@dataclass(slots=True)
class Round:
    """Requests of one row that were made together."""

    exchanges: list[Exchange]
    duration_s: float


@dataclass(slots=True)
class Row:
    """One line of the result: a scenario, or a step of a sweep, on one server.

    Attributes:
        title: for people; rows of two servers with the same title belong together.
        server: number of the server.
        scenario: None for a step of a sweep.
        load: None for a scenario.
    """

    title: str
    server: int
    scenario: Scenario | None = None
    load: Load | None = None
    rounds: list[Round] = field(default_factory=list)
    warmups: list[Exchange] = field(default_factory=list)
    num_unlike: int = 0
    """Requests whose whole answer came out differently each time, so that no stream can be held
    against it."""

    @property
    def exchanges(self) -> list[Exchange]:
        """All that were timed."""
        return [each for round in self.rounds for each in round.exchanges]

    @property
    def num_faults(self) -> int:
        """Faults of all requests, those of the warm-up included."""
        return sum(len(each.faults) for each in (*self.warmups, *self.exchanges))

    @property
    def num_missed(self) -> int:
        """Complete answers without the output that the scenario is made for."""
        if self.scenario is None:
            return 0
        expected = self.scenario.expects
        return sum(
            each.is_complete and expected not in each.answer.first_s for each in self.exchanges
        )

    def summary(self, objective: Objective | None = None) -> Summary:
        """The figures of all rounds together."""
        duration_s = sum(round.duration_s for round in self.rounds)
        return summarize(self.exchanges, duration_s, objective)


@dataclass(slots=True)
class Server:
    """A server under test."""

    url: str
    client: Client
    model: str


@dataclass(slots=True)
class Results:
    """What a run found."""

    urls: list[str]
    models: list[str]
    rows: list[Row]
    cpu_share: float
    """Of one core, that the benchmark itself took, in [0, 1]."""
    duration_s: float

    @property
    def num_requests(self) -> int:
        """Streams that were asked for, those of the warm-up included."""
        return sum(len(row.warmups) + len(row.exchanges) for row in self.rows)

    @property
    def num_faults(self) -> int:
        """Faults of all requests."""
        return sum(row.num_faults for row in self.rows)


async def run(options: BenchOptions, urls: Sequence[str], tell: Callable[[str], None]) -> Results:
    """Run everything that the options ask for.

    Args:
        options: checked.
        urls: one server, or two to be asked in turn.
        tell: is told before each request what it belongs to.

    Raises:
        ConfigError: a server does not say which models it has, or a setting cannot be used.
    """
    servers = [await _connect(url, options) for url in urls]
    runner = _Runner(options, servers, tell)
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        for scenario in options.scenarios():
            await runner.run_scenario(scenario)
        for load in options.loads():
            await runner.run_load(load)
    finally:
        for server in servers:
            server.client.close()
    duration_s = time.perf_counter() - started
    cpu_share = (time.process_time() - cpu_started) / duration_s
    models = [server.model for server in servers]
    titles = list(dict.fromkeys(title for title, _ in runner.rows))
    rows = sorted(runner.rows.values(), key=lambda row: (titles.index(row.title), row.server))
    return Results(list(urls), models, rows, cpu_share, duration_s)


def num_requests(options: BenchOptions, num_servers: int) -> int:
    """About how many requests a run makes, for its progress."""
    a_run = sum(len(scenario.ask(0, Random(0))) for scenario in options.scenarios())
    of_scenarios = a_run * (options.warmup + 2 * options.runs)
    num_rounds = _ROUNDS if num_servers > 1 else 1
    of_loads = sum(
        options.warmup + num_rounds * _round_size(options, load, num_rounds)
        for load in options.loads()
    )
    return num_servers * (of_scenarios + of_loads)


def _round_size(options: BenchOptions, load: Load, num_rounds: int) -> int:
    return max(-(-options.num_prompts // num_rounds), load.concurrency or 1)


class _Runner:
    def __init__(
        self, options: BenchOptions, servers: Sequence[Server], tell: Callable[[str], None]
    ) -> None:
        self.rows: dict[tuple[str, int], Row] = {}
        self._options = options
        self._servers = servers
        self._tell = tell
        self._extra = options.extra_fields()
        self._fresh = SystemRandom()

    async def run_scenario(self, scenario: Scenario) -> None:
        """One request after the other; each server is the first in every second run."""
        options = self._options
        for run in range(-options.warmup, options.runs):
            for number in self._in_turn(run):
                await self._run_once(scenario, number, run)

    async def run_load(self, load: Load) -> None:
        """The same requests to each server, part by part."""
        options = self._options
        num_rounds = _ROUNDS if len(self._servers) > 1 else 1
        size = _round_size(options, load, num_rounds)
        for round in range(num_rounds):
            source = f"{options.seed} {load.title} {round}"
            for number in self._in_turn(round):
                # The same words to both servers.
                bodies = sweep_bodies(options, size + options.warmup, Random(source), self._fresh)
                row = self._row(load.title, number, load=load)
                if round == 0:
                    for body in bodies[: options.warmup]:
                        row.warmups.append(await self._ask(number, row, body))
                timed = bodies[options.warmup :]
                row.rounds.append(await self._run_round(row, load, timed, Random(source)))

    def _in_turn(self, round: int) -> Iterator[int]:
        numbers = range(len(self._servers))
        return iter(reversed(numbers) if round % 2 else numbers)

    def _row(self, title: str, server: int, **what: Any) -> Row:
        return self.rows.setdefault((title, server), Row(title, server, **what))

    async def _run_once(self, scenario: Scenario, server: int, run: int) -> None:
        asked = []
        for title, body in scenario.ask(run, self._fresh).items():
            row = self._row(title, server, scenario=scenario)
            made = await self._ask(server, row, body)
            if run < 0:
                row.warmups.append(made)
                continue
            asked.append((row, made))
            row.rounds.append(Round([made], made.answer.end_s or 0.0))
        for row, made in asked:
            if made.is_complete:
                await self._check_text(row, made)

    async def _check_text(self, row: Row, made: Exchange) -> None:
        """Hold a stream against the whole answer, if that is the same each time."""
        body = whole_body(made.body)
        differences = []
        tellings: list[Any] = []
        for _ in range(_REPEATS):
            self._tell(row.title)
            whole = await exchange(self._servers[row.server].client, "chat", body)
            made.faults += (Fault(gate, f"whole answer: {said}") for gate, said in whole.faults)
            if not whole.is_complete:
                return
            differences = compare(made.answer, whole.answer)
            if not differences:
                return
            tellings.append(whole.answer.told())
        if all(each == tellings[0] for each in tellings):
            made.faults += differences
        else:
            row.num_unlike += 1

    async def _run_round(
        self, row: Row, load: Load, bodies: Sequence[Body], arrivals: Random
    ) -> Round:
        exchanges: list[Exchange] = []
        started = time.perf_counter()

        async def ask(body: Body) -> None:
            exchanges.append(await self._ask(row.server, row, body))

        async def take_turns(queue: Iterator[Body]) -> None:
            for body in queue:
                await ask(body)

        async with asyncio.TaskGroup() as group:
            if load.rate is None:
                queue = iter(bodies)
                for _ in range(load.concurrency or 1):
                    group.create_task(take_turns(queue))
            else:
                due = started
                for body in bodies:
                    due += arrivals.expovariate(load.rate)
                    await asyncio.sleep(max(due - time.perf_counter(), 0))
                    group.create_task(ask(body))
        exchanges.sort(key=lambda each: each.sent_at)
        return Round(exchanges, time.perf_counter() - started)

    async def _ask(self, server: int, row: Row, body: Body) -> Exchange:
        self._tell(row.title)
        under_test = self._servers[server]
        whole = complete_body(body, model=under_test.model, extra=self._extra)
        return await exchange(under_test.client, self._options.endpoint, whole)


class _Collector:
    """Reads a small answer."""

    def __init__(self) -> None:
        self.body = b""

    def sent(self, at: float) -> None:
        pass

    def begin(self, status: int, content_type: str, at: float) -> None:
        pass

    def feed(self, data: bytes, at: float) -> None:
        self.body += data


async def _connect(url: str, options: BenchOptions) -> Server:
    client = Client(
        url,
        headers=options.headers(),
        timeout_s=options.timeout,
        ca_file=options.ssl_ca_file,
    )
    return Server(url, client, options.model or await _first_model(url, client))


async def _first_model(url: str, client: Client) -> str:
    collector = _Collector()
    try:
        await client.get("/v1/models", collector)
        return str(msgspec.json.decode(collector.body)["data"][0]["id"])
    except TransferError as error:
        raise ConfigError(f"{url} cannot be reached: {error}") from error
    except (msgspec.DecodeError, LookupError, TypeError) as error:
        raise ConfigError(f"{url} does not list its models: --model must say one") from error
