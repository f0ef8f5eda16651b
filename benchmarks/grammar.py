"""What masks of grammars cost the sampler, at a vocabulary of 150,000 tokens.

    python benchmarks/grammar.py [--batches 1,16] [--repeats 20]

The vocabulary is made as byte-pair encoding makes one, of random pieces; the logits are random, so
the text is whatever the grammar lets a random model write. Reported is what masks add to the
sampler, and advancing the matchers, in processor time of all threads by token and request: for
the first request with a grammar, whose automaton is yet to be built, and for later ones, which
share it. "sampler us" is what a batch without grammars pays; it never gets to this code. The last
line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from typing import Any, Final

import torch
from llguidance import LLMatcher, LLTokenizer

from rillm.constraints.source import grammar_source
from rillm.constraints.vocabulary import LIMITS, vocabulary_of
from rillm.engine.grammars import Matcher
from rillm.engine.messages import EngineRequest, TokenSamplingParams
from rillm.engine.sampler import Sampler
from rillm.engine.sampling_batch import Row
from rillm.engine.sequence import Sequence
from rillm.structured_outputs import StructuredOutputsParams

VOCAB_SIZE: Final = 150_000
END: Final = VOCAB_SIZE - 1
GOAL_US: Final = 60.0
LONGEST: Final = 16
"""Bytes of the longest token."""
STEPS: Final = 60
LETTERS: Final = b'etaoinshrdlucmfwypvbgkjqxz    ETAOINS0123456789{}[]":,.-_\n'
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
GRAMMARS: Final = {
    "schema": StructuredOutputsParams(json=SCHEMA),
    "any JSON": StructuredOutputsParams(json={"type": "array", "minItems": 50}),
    "expression": StructuredOutputsParams(regex=r"([A-Z][a-z]{2,9} \d{1,4}, ){30}"),
    "grammar": StructuredOutputsParams(
        grammar='start: e\ne: "(" e ")" | e OP e | NUMBER\nOP: /[-+]/\nNUMBER: /[0-9]{1,9}/'
    ),
}


def random_vocabulary() -> LLTokenizer:
    """All single bytes, and joins of two tokens, as byte-pair encoding makes them."""
    rng = random.Random(0)
    single = [bytes([i]) for i in range(256)]
    tokens = [*single, *(bytes([i]) for i in LETTERS)]
    seen = set(single)
    while len(seen) < VOCAB_SIZE - 1:
        # Early tokens are joined more often.
        first, second = (tokens[256 + int((len(tokens) - 256) * rng.random() ** 3)] for _ in "ab")
        joined = first + second
        if len(joined) <= LONGEST and joined not in seen:
            seen.add(joined)
            tokens.append(joined)
    in_order = [*single, *(token for token in tokens[256:] if len(token) > 1)]
    return vocabulary_of(
        [*in_order, b"<|end|>"], markers=[END], ends=[END], encode=lambda text: list(text.encode())
    )


def rows_of(original: LLMatcher | None, batch: int) -> list[Row]:
    """Sequences at the beginning of their grammar."""
    rows: list[Row] = []
    for i in range(batch):
        params = TokenSamplingParams(seed=i, max_tokens=1 << 20, temperature=0.0, eos_token_id=END)
        request = EngineRequest(request_id=i, prompt_token_ids=[1], params=params)
        sequence = Sequence.start(request, i, 0.0)
        if original is not None:
            sequence.matcher = Matcher(original.deep_copy(), frozenset({END}))
        rows.append((sequence, 0))
    return rows


def run(original: LLMatcher | None, batch: int, seed: int) -> list[float]:
    """Processor time of sampling and advancing in each step, in microseconds by request."""
    sampler = Sampler(VOCAB_SIZE, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    rows = rows_of(original, batch)
    spent = []
    for _ in range(STEPS):
        logits = torch.randn(len(rows), VOCAB_SIZE, generator=generator)
        started = time.process_time()
        sampled = sampler.sample(logits, rows)
        for (sequence, _), token in zip(rows, sampled, strict=True):
            sequence.token_ids.append(token.token_id)
            if sequence.matcher is not None:
                sequence.matcher.advance(token.token_id)
        spent.append((time.process_time() - started) / len(rows) * 1e6)
        rows = [row for row, token in zip(rows, sampled, strict=True) if token.token_id != END]
        if not rows:
            break
    return spent


def best(original: LLMatcher | None, batch: int, repeats: int) -> float:
    """Mean over the steps, each at its best of the repeats: these take the same tokens."""
    runs = [run(original, batch, seed=1) for _ in range(repeats)]
    return statistics.mean(map(min, zip(*runs, strict=True)))


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
    vocabulary = random_vocabulary()
    row = pass_over_row()
    results: dict[str, Any] = {"row_us": row}
    print(f"One pass over a row of logits, for comparison: {row:.0f} us\n")
    print("| grammar | batch | sampler us | mask us, first request | mask us, later ones | goal |")
    print("|---|--:|--:|--:|--:|--:|")
    for batch in map(int, args.batches.split(",")):
        plain = best(None, batch, args.repeats)
        for name, params in GRAMMARS.items():
            original = LLMatcher(vocabulary, grammar_source(params), limits=LIMITS, log_level=0)
            first = statistics.mean(run(original, batch, seed=0)) - plain
            later = best(original, batch, args.repeats) - plain
            results[f"{name}, batch {batch}"] = {"first_us": first, "later_us": later}
            print(f"| {name} | {batch} | {plain:.0f} | {first:.0f} | {later:.0f} | {GOAL_US:.0f} |")
    print(json.dumps({"vocab_size": VOCAB_SIZE, "results": results}))


if __name__ == "__main__":
    main()
