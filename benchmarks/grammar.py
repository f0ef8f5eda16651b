"""What masks of grammars cost the sampler, at a vocabulary of 150,000 tokens.

    pip install --no-deps mistral-common    # for its vocabulary, 150,000 tokens of real texts
    python benchmarks/grammar.py [--batches 1,16] [--repeats 20]

The sampler is led along texts that fit the grammar, as a model would write them. Reported is what
masks add to it, and advancing the matchers, in processor time of all threads by token and request:
for the first request with a grammar, whose automaton is yet to be built, and for later ones, which
share it. "sampler us" is what a batch without grammars pays; it never gets to this code. "one in
the batch" is all that masks add to a step in which one request has a grammar: the rows of the
others are not touched. It grows with the batch only because the logits of a large one leave
nothing in the processor's cache. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import statistics
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import fill_next_token_bitmask

from rillm.constraints.source import grammar_source
from rillm.constraints.vocabulary import LIMITS, vocabulary_of
from rillm.engine.grammars import Matcher
from rillm.engine.messages import EngineRequest, TokenSamplingParams
from rillm.engine.sampler import Sampler
from rillm.engine.sampling_batch import Row
from rillm.engine.sequence import Sequence
from rillm.engine.token_masks import TokenMasks
from rillm.structured_outputs import StructuredOutputsParams

VOCAB_SIZE: Final = 150_000
END: Final = VOCAB_SIZE - 1
GOAL_US: Final = 60.0
STEPS: Final = 60
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "days": {"type": "integer"},
        "stops": {"type": "array", "items": {"type": "string"}, "minItems": 20},
    },
    "required": ["name", "days", "stops"],
    "additionalProperties": False,
}
STOPS: Final = ["Colosseum in the morning", "Lunch near the Pantheon", "A walk by the river"]
WEATHER: Final = {"city": "Rome", "temperature": 21.5, "sunny": True, "note": "wind from the sea"}
GRAMMARS: Final = {
    "schema": (
        StructuredOutputsParams(json=SCHEMA),
        json.dumps({"name": "Three days in Rome", "days": 3, "stops": STOPS * 7}),
    ),
    "any JSON": (
        StructuredOutputsParams(json={"type": "array", "minItems": 20}),
        json.dumps([WEATHER] * 20),
    ),
    "expression with counts": (
        StructuredOutputsParams(regex=r"([A-Z][a-z]{2,9} \d{1,4}, ){30}"),
        "Rome 12, Oslo 450, Paris 7, Lisbon 1234, Vienna 88, Athens 301, " * 5,
    ),
    "recursive grammar": (
        StructuredOutputsParams(
            grammar='start: e\ne: "(" e ")" | e OP e | NUMBER\nOP: /[-+]/\nNUMBER: /[0-9]{1,9}/'
        ),
        "+".join(["((12+3)-(45-6))", "7", "(1999-(3+4))"] * 9),
    ),
}


def real_vocabulary() -> LLTokenizer:
    """The first tokens of a published vocabulary, and the end of an output."""
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        raise SystemExit("a vocabulary is missing: pip install --no-deps mistral-common")
    path = Path(spec.origin).with_name("data") / "tekken_240911.json"
    entries = json.loads(path.read_text(encoding="utf-8"))["vocab"][: VOCAB_SIZE - 1]
    tokens = [base64.b64decode(entry["token_bytes"]) for entry in entries]

    def encode(text: str) -> list[int]:
        return vocabulary.greedy_tokenize(text)

    vocabulary = vocabulary_of([*tokens, b"<|end|>"], markers=[END], ends=[END], encode=encode)
    return vocabulary


def rows_of(original: LLMatcher | None, batch: int, num_constrained: int) -> list[Row]:
    """Sequences, the first of which are at the beginning of their grammar."""
    rows: list[Row] = []
    for i in range(batch):
        params = TokenSamplingParams(seed=i, max_tokens=1 << 20, temperature=0.0, eos_token_id=END)
        request = EngineRequest(request_id=i, prompt_token_ids=[1], params=params)
        sequence = Sequence.start(request, i, 0.0)
        if original is not None and i < num_constrained:
            sequence.matcher = Matcher(original.deep_copy(), frozenset({END}))
        rows.append((sequence, 0))
    return rows


def run(original: LLMatcher | None, batch: int, text: list[int]) -> list[float]:
    """Processor time of sampling and advancing in each step, in microseconds by request."""
    sampler = Sampler(VOCAB_SIZE, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    rows = rows_of(original, batch, batch)
    spent = []
    for token_id in text[:STEPS]:
        logits = torch.randn(batch, VOCAB_SIZE, generator=generator)
        logits[:, token_id] = 100.0
        started = time.process_time()
        sampled = sampler.sample(logits, rows)
        for (sequence, _), token in zip(rows, sampled, strict=True):
            sequence.token_ids.append(token.token_id)
            if sequence.matcher is not None:
                sequence.matcher.advance(token.token_id)
        spent.append((time.process_time() - started) / batch * 1e6)
        assert all(token.token_id == token_id for token in sampled)
    return spent


def best(original: LLMatcher | None, batch: int, text: list[int], repeats: int) -> float:
    """Mean over the steps, each at its best of the repeats."""
    runs = [run(original, batch, text) for _ in range(repeats)]
    return float(statistics.mean(map(min, zip(*runs, strict=True))))


def filling(original: LLMatcher, text: list[int], repeats: int) -> float:
    """What of that is llguidance's work: the mean over the steps of filling a mask, as above."""
    runs = []
    mask = np.zeros((1, -(-VOCAB_SIZE // 32)), dtype=np.int32)
    for _ in range(repeats):
        matcher = original.deep_copy()
        spent = []
        for token_id in text[:STEPS]:
            started = time.process_time()
            fill_next_token_bitmask(matcher, mask)
            spent.append((time.process_time() - started) * 1e6)
            matcher.consume_token(token_id)
        runs.append(spent)
    return float(statistics.mean(map(min, zip(*runs, strict=True))))


def one_in_batch(original: LLMatcher, batch: int, text: list[int], repeats: int) -> float:
    """All that masks add to a step when one request of the batch has a grammar."""
    runs = []
    for _ in range(repeats):
        masks = TokenMasks(VOCAB_SIZE)
        # The last row: the others push the first out of the cache while they are made here.
        sequences = [sequence for sequence, _ in reversed(rows_of(original, batch, 1))]
        matcher = sequences[-1].matcher
        assert matcher is not None
        spent = []
        for token_id in text[:STEPS]:
            logits = torch.randn(batch, VOCAB_SIZE)
            started = time.process_time()
            masks.apply(logits, sequences, [batch - 1])
            matcher.advance(token_id)
            spent.append((time.process_time() - started) * 1e6)
        runs.append(spent)
    return float(statistics.mean(map(min, zip(*runs, strict=True))))


def pass_over_row() -> float:
    """Adding a number to a row of logits, in microseconds: what memory lets the machine do."""
    logits = torch.randn(1, VOCAB_SIZE)
    spent = []
    for _ in range(200):
        started = time.process_time()
        logits.add_(1.0)
        spent.append(time.process_time() - started)
    return min(spent) * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    vocabulary = real_vocabulary()
    row = pass_over_row()
    results: dict[str, Any] = {"row_us": row}
    print(f"One pass over a row of logits, for comparison: {row:.0f} us\n")
    columns = "sampler us | mask us, first request | later ones | filling it | one in the batch"
    print(f"| grammar | batch | {columns} | goal |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for batch in map(int, args.batches.split(",")):
        for name, (params, text) in GRAMMARS.items():
            ids = vocabulary.greedy_tokenize(text)
            assert len(ids) >= STEPS
            plain = best(None, batch, ids, args.repeats)
            original = LLMatcher(vocabulary, grammar_source(params), limits=LIMITS, log_level=0)
            first = statistics.mean(run(original, batch, ids)) - plain
            later = best(original, batch, ids, args.repeats) - plain
            cost = {
                "sampler_us": plain,
                "first_us": first,
                "later_us": later,
                "filling_us": filling(original, ids, args.repeats),
                "one_in_batch_us": one_in_batch(original, batch, ids, args.repeats),
            }
            results[f"{name}, batch {batch}"] = cost
            figures = " | ".join(f"{each:.0f}" for each in [*cost.values(), GOAL_US])
            print(f"| {name} | {batch} | {figures} |")
    print(json.dumps({"vocab_size": VOCAB_SIZE, "results": results}))


if __name__ == "__main__":
    main()
