"""How a sequence ends, and what its last delta says."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import engine_request

from rillm.engine.block_pool import BlockPool
from rillm.engine.messages import TokenLogprobs
from rillm.engine.scheduled_batch import SampledToken
from rillm.engine.scheduler import Scheduler


def finish(prompt: list[int], sampled: list[int], **params: Any) -> tuple[str | None, int | None]:
    """Feed tokens to one request; give the reason and stop id of the last delta."""
    scheduler = Scheduler(BlockPool(50), block_size=4, max_num_seqs=2, max_num_batched_tokens=64)
    scheduler.add(engine_request(0, prompt, **({"max_tokens": 8} | params)))
    for token_id in sampled:
        (delta,) = scheduler.update(scheduler.schedule(), [SampledToken(token_id)])
    assert scheduler.has_work == (delta.finish_reason is None)
    return delta.finish_reason, delta.stop_token_id


@pytest.mark.parametrize(
    ("sampled", "params", "expected"),
    [
        ([1], {"eos_token_id": 1}, ("stop", None)),
        ([1], {"stop_token_ids": [1]}, ("stop", 1)),
        ([1], {"eos_token_id": 1, "stop_token_ids": [1]}, ("stop", None)),
        ([1], {"eos_token_id": 2, "stop_token_ids": [3]}, (None, None)),
        ([5, 1], {"max_tokens": 2, "eos_token_id": 1}, ("stop", None)),
        ([5, 5], {"max_tokens": 2}, ("length", None)),
        ([1, 1], {"eos_token_id": 1, "min_tokens": 2}, (None, None)),
        ([5, 5, 1], {"eos_token_id": 1, "min_tokens": 2}, ("stop", None)),
        ([4, 4], {"repetition_detection": (1, 2, 3)}, (None, None)),
        ([4, 4, 4], {"repetition_detection": (1, 2, 3)}, ("repetition", None)),
        ([4, 4, 4], {"repetition_detection": (1, 2, 3), "max_tokens": 3}, ("length", None)),
        ([4, 4, 4], {"repetition_detection": (1, 2, 3), "min_tokens": 3}, (None, None)),
        ([1, 2, 3, 2, 3], {"repetition_detection": (2, 2, 2)}, ("repetition", None)),
        ([3, 3, 3, 3], {"repetition_detection": (3, 3, 2)}, (None, None)),
        ([-1], {"eos_token_id": 1}, ("error", None)),
    ],
)
def test_a_sequence_ends_for_the_first_reason_in_order(
    sampled: list[int], params: dict[str, Any], expected: tuple[str | None, int | None]
) -> None:
    assert finish([4, 4], sampled, **params) == expected


def test_an_error_delta_holds_no_tokens_and_says_why() -> None:
    scheduler = Scheduler(BlockPool(9), block_size=4, max_num_seqs=2, max_num_batched_tokens=8)
    scheduler.add(engine_request(0, [1, 2], num_logprobs=0))
    logprobs = TokenLogprobs([-1], [float("nan")], 1)
    (delta,) = scheduler.update(scheduler.schedule(), [SampledToken(-1, logprobs)])
    assert (delta.token_ids, delta.logprobs, delta.finish_reason) == ([], None, "error")
    assert "logits" in (delta.error or "")
    assert not scheduler.has_work


def test_times_of_a_request_are_in_order_and_come_with_first_and_last_delta() -> None:
    seconds = iter(range(100))
    scheduler = Scheduler(
        BlockPool(9),
        block_size=4,
        max_num_seqs=2,
        max_num_batched_tokens=8,
        clock=lambda: float(next(seconds)),
    )
    scheduler.add(engine_request(0, [1, 2], max_tokens=3))
    deltas = [scheduler.update(scheduler.schedule(), [SampledToken(5)])[0] for _ in range(3)]
    first, middle, last = (delta.times for delta in deltas)
    assert first is not None
    assert middle is None
    assert last is not None
    assert first.queued < first.scheduled < first.first_token == first.last_token
    assert (last.queued, last.first_token) == (first.queued, first.first_token)
    assert last.last_token > last.first_token
