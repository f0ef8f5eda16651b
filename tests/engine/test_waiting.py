"""The order in which clients are served, against what fairness promises."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fakes import ScriptedEngine, engine_request
from hypothesis import given, settings
from hypothesis import strategies as st

from rillm.engine.sequence import Sequence
from rillm.engine.waiting import MAX_IDLE_CLIENTS, OUTPUT_WEIGHT, WaitingQueue

MAX_PROMPT = 12
MAX_TOKENS = 8
MAX_SEQS = 4
BOUND = 2 * MAX_SEQS * (MAX_PROMPT + OUTPUT_WEIGHT * MAX_TOKENS)
"""Weighted tokens: twice what can be running at a time, and so cannot be taken back."""

sizes = st.tuples(st.integers(1, MAX_PROMPT), st.integers(1, MAX_TOKENS))


def sequence(number: int, client: str = "", priority: int = 0) -> Sequence:
    request = engine_request(number, [1], client=client, priority=priority)
    return Sequence.start(request, number, 0.0)


@dataclass
class Shop:
    """A scheduler, and what each client has been served."""

    num_blocks: int
    engine: ScriptedEngine = field(init=False)
    served: Counter[str] = field(default_factory=Counter)
    begun: list[int] = field(default_factory=list)
    waiting: Counter[str] = field(default_factory=Counter)
    clients: list[str] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = ScriptedEngine(
            num_blocks=self.num_blocks,
            block_size=4,
            max_num_seqs=MAX_SEQS,
            max_num_batched_tokens=16,
            enable_prefix_caching=False,
        )

    def send(self, client: str, size: tuple[int, int]) -> int:
        number = len(self.clients)
        self.clients.append(client)
        self.prompts.append(size[0])
        self.waiting[client] += 1
        request = engine_request(number, [5] * size[0], max_tokens=size[1], client=client)
        self.engine.scheduler.add(request)
        return number

    def step(self) -> None:
        for delta in self.engine.step():
            client = self.clients[delta.request_id]
            self.served[client] += OUTPUT_WEIGHT * len(delta.token_ids)
            if delta.prompt is not None:
                self.served[client] += self.prompts[delta.request_id]
                self.waiting[client] -= 1
                self.begun.append(delta.request_id)
        self.engine.scheduler.check()


@settings(max_examples=30)
@given(
    sizes_of=st.fixed_dictionaries(
        {"greedy": st.lists(sizes, min_size=1), "modest": st.lists(sizes, min_size=1)}
    ),
    backlog=st.integers(MAX_SEQS + 1, 30),
    others=st.lists(st.tuples(st.integers(0, 200), st.sampled_from("abc"), sizes), max_size=40),
    head_start=st.integers(0, 60),
    num_blocks=st.sampled_from([8, 12, 100]),
)
def test_clients_that_always_wait_are_served_alike(
    sizes_of: dict[str, list[tuple[int, int]]],
    backlog: int,
    others: list[tuple[int, str, tuple[int, int]]],
    head_start: int,
    num_blocks: int,
) -> None:
    """One of them sends far more, and begins earlier: what was served before does not count."""
    shop = Shop(num_blocks)
    wanted = {"greedy": backlog, "modest": MAX_SEQS + 1}
    sent: Counter[str] = Counter()
    before: Counter[str] = Counter()
    for step in range(200 + head_start):
        for client, num in wanted.items():
            while shop.waiting[client] < num and (client == "greedy" or step >= head_start):
                shop.send(client, sizes_of[client][sent[client] % len(sizes_of[client])])
                sent[client] += 1
        for at, client, size in others:
            if at == step:
                shop.send(client, size)
        if step == head_start:
            before = Counter(shop.served)
        shop.step()
        if step > head_start:
            since = shop.served - before
            assert abs(since["greedy"] - since["modest"]) <= BOUND


@settings(max_examples=30)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 60), st.sampled_from("abcd"), sizes), min_size=1),
    num_blocks=st.sampled_from([8, 12, 100]),
)
def test_everybody_is_served_while_others_keep_sending(
    arrivals: list[tuple[int, str, tuple[int, int]]], num_blocks: int
) -> None:
    """What has been accepted ends, whatever two clients with a backlog do beside it."""
    shop = Shop(num_blocks)
    accepted = set()
    step = 0
    while step <= 60 or not accepted <= set(shop.begun):
        for client in ("x", "y"):
            while shop.waiting[client] < 6:
                shop.send(client, (2, 2))
        for at, client, size in arrivals:
            if at == step:
                accepted.add(shop.send(client, size))
        shop.step()
        step += 1
        assert step < 5000, "somebody starves"


@given(
    requests=st.lists(st.sampled_from([0, 0, -1, 3])),
    removals=st.lists(st.integers(0, 50)),
    charges=st.lists(st.integers(0, 9)),
)
def test_one_client_is_served_in_order_of_priority_and_arrival(
    requests: list[int], removals: list[int], charges: list[int]
) -> None:
    queue = WaitingQueue()
    waiting = [sequence(number, "only", priority) for number, priority in enumerate(requests)]
    for each in waiting:
        queue.add(each)
        queue.charge("only", charges[each.arrival] if each.arrival < len(charges) else 1)
    for number in removals:
        if number < len(waiting):
            queue.remove(waiting.pop(number))
    expected = sorted(waiting, key=lambda each: each.order)

    taken = []
    while queue:
        taken.append(queue.first())
        queue.remove(taken[-1])

    assert taken == expected
    assert len(queue) == 0


def test_who_was_served_least_goes_first_and_a_pause_earns_nothing() -> None:
    queue = WaitingQueue()
    for number, client in enumerate(["a", "a", "b"]):
        queue.add(sequence(number, client))
    first = queue.first()
    queue.remove(first)
    queue.charge("a", 10)
    assert (first.arrival, queue.first().arrival) == (0, 2)

    # "b" has had its turn and more; "c" comes, and begins where the least of those is who wait.
    queue.remove(queue.first())
    queue.charge("b", 100)
    queue.add(sequence(3, "c"))
    queue.add(sequence(4, "b"))
    assert queue.first().arrival == 1
    queue.charge("a", 1)
    assert queue.first().arrival == 3
    queue.charge("c", 95)
    assert queue.first().arrival == 1


def test_priority_comes_before_fairness() -> None:
    queue = WaitingQueue()
    queue.add(sequence(0, "a"))
    queue.add(sequence(1, "b", priority=-1))
    queue.charge("b", 1000)

    assert queue.first().arrival == 1


def test_counters_of_clients_that_do_not_come_back_are_forgotten() -> None:
    queue = WaitingQueue()
    for number in range(3 * MAX_IDLE_CLIENTS):
        each = sequence(number, f"client {number}")
        queue.add(each)
        queue.remove(each)
        queue.charge(each.request.client, 1)

    assert len(queue._clients) <= MAX_IDLE_CLIENTS + 1
