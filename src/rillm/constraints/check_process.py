"""Reads and tries grammars in a process of its own: `python -m rillm.constraints.check_process`.

A grammar comes from anybody. One that takes too long, too much memory or too much stack ends this
process and nothing else; `rillm.constraints.checker` starts another. Lines of JSON come in, a
`Vocabulary` first and then constraints; a `Verdict` goes out for each constraint.
"""

from __future__ import annotations

import resource
import signal
import sys

import msgspec
from llguidance import LLMatcher, LLTokenizer

from rillm.constraints.limits import CHECK_CPU_S, CHECK_MEMORY_BYTES, TRIED_TOKENS
from rillm.constraints.source import grammar_source
from rillm.constraints.vocabulary import LIMITS, checking_vocabulary
from rillm.errors import InvalidRequestError
from rillm.structured_outputs import StructuredOutputsParams


class Vocabulary(msgspec.Struct):
    """What grammars may name."""

    markers: dict[int, str]
    """Ids and texts of the tokens that stand for themselves."""
    vocab_size: int


class Verdict(msgspec.Struct, omit_defaults=True):
    """What became of a constraint."""

    source: str | None = None
    """The grammar, if it is good."""
    problem: str | None = None
    """What is wrong with it."""


def judge(params: StructuredOutputsParams, vocabulary: LLTokenizer) -> Verdict:
    """Write a constraint as a grammar and take a few steps through it."""
    try:
        source = grammar_source(params)
    except InvalidRequestError as error:
        return Verdict(problem=str(error).removeprefix(error.param or "").strip())
    matcher = LLMatcher(vocabulary, source, limits=LIMITS, log_level=0)
    for _ in range(TRIED_TOKENS):
        if matcher.is_stopped():
            break
        token_id = _last_allowed(matcher.compute_bitmask())
        if matcher.is_stopped() and matcher.is_accepting() and not matcher.is_error():
            break
        if token_id is None or not matcher.consume_token(token_id):
            break
    if matcher.is_error():
        return Verdict(problem=f"cannot be used: {_first_line(matcher.get_error())}")
    return Verdict(source=source)


def _last_allowed(mask: bytes) -> int | None:
    """The highest token id of a bit mask: in JSON, braces come before white space."""
    bits = int.from_bytes(mask, "little")
    return bits.bit_length() - 1 if bits else None


def _first_line(error: str) -> str:
    error = error.partition("\n<state>")[0].strip()
    if error.startswith("NoExtension"):
        return "no text fits it"
    return " ".join(error.split())


def main() -> None:
    """Entry point of the process; it ends with its input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (CHECK_MEMORY_BYTES, CHECK_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lines = sys.stdin.buffer
    known = msgspec.json.decode(lines.readline(), type=Vocabulary)
    vocabulary = checking_vocabulary(known.markers, known.vocab_size)
    decoder = msgspec.json.Decoder(StructuredOutputsParams)
    for line in lines:
        # The signal's default action ends the process, also in the middle of foreign code.
        signal.setitimer(signal.ITIMER_PROF, CHECK_CPU_S)
        verdict = judge(decoder.decode(line), vocabulary)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(msgspec.json.encode(verdict) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
