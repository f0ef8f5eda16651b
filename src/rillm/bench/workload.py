"""Requests of a sweep: prompts from a file, or random ones."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from rillm.bench.options import BenchOptions
from rillm.bench.scenarios import Body
from rillm.bench.wire import Endpoint
from rillm.errors import ConfigError

_SYLLABLES: Final = (
    "al be cor da en fi gro hu il jo ka lo mi nor ol pe qua ri sa tor un ve wi yo zu"
)
_WORDS: Final = ["".join(pair) for pair in itertools.product(_SYLLABLES.split(), repeat=2)]
_FRESH: Final = 4
"""Words at the beginning of a random prompt that no other prompt has."""
_PROMPT_FIELDS: Final[dict[Endpoint, str]] = {
    "chat": "messages",
    "completions": "prompt",
    "generate": "token_ids",
}


def complete_body(body: Mapping[str, Any], *, model: str, extra: Mapping[str, Any]) -> Body:
    """A request as it is sent: with the model's name, as a stream that tells usage.

    Args:
        body: of the scenario or the sweep.
        model: name.
        extra: fields that go into every request; None takes a field out, objects are joined.
    """
    whole = {"model": model, **body, "stream": True, "stream_options": {"include_usage": True}}
    for name, value in extra.items():
        before = whole.get(name)
        whole[name] = (
            before | value if isinstance(before, dict) and isinstance(value, dict) else value
        )
    return {name: value for name, value in whole.items() if value is not None}


def whole_body(body: Mapping[str, Any]) -> Body:
    """The same request for an answer in one piece."""
    return {name: value for name, value in body.items() if name not in ("stream", "stream_options")}


def sweep_bodies(options: BenchOptions, count: int, random: Random, fresh: Random) -> list[Body]:
    """Requests of one step, without what all requests have.

    Args:
        options: with the file of prompts, or lengths.
        count: how many.
        random: source of random prompts.
        fresh: source of their beginnings, so that no earlier run has left them in a prefix cache.

    Raises:
        ConfigError: the file of prompts cannot be used.
    """
    if options.prompts is None:
        return [_random_body(options, random, fresh) for _ in range(count)]
    from_file = read_prompts(options.prompts, options.endpoint)
    return [_limited(options, each) for each in itertools.islice(itertools.cycle(from_file), count)]


def read_prompts(path: Path, endpoint: Endpoint) -> list[Body]:
    """Prompts of a file.

    Raises:
        ConfigError: it cannot be read, or a line of it cannot be used.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompts is {str(path)!r}, cannot be read: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise ConfigError(f"prompts is {str(path)!r}, must hold at least one prompt")
    is_json = path.suffix == ".jsonl"
    bodies: list[Body] = []
    for number, line in numbered:
        body: Body | None = _from_json(line) if is_json else {"prompt": line}
        if body is not None and endpoint == "chat" and "prompt" in body:
            body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
        if body is None or _PROMPT_FIELDS[endpoint] not in body:
            raise ConfigError(
                f"prompts: line {number} of {path} must have {_PROMPT_FIELDS[endpoint]!r} for "
                f"endpoint {endpoint!r}"
            )
        bodies.append(body)
    return bodies


def _from_json(line: str) -> Body | None:
    try:
        body = json.loads(line)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _random_body(options: BenchOptions, random: Random, fresh: Random) -> Body:
    words: Sequence[Any] = _WORDS
    if options.endpoint == "generate":
        words = range(options.vocab_size)
    num_fresh = min(_FRESH, options.input_tokens)
    drawn = fresh.choices(words, k=num_fresh)
    drawn += random.choices(words, k=options.input_tokens - num_fresh)
    match options.endpoint:
        case "generate":
            return _limited(options, {"token_ids": drawn})
        case "completions":
            return _limited(options, {"prompt": " ".join(drawn)})
        case "chat":
            messages = [{"role": "user", "content": " ".join(drawn)}]
            return _limited(options, {"messages": messages})


def _limited(options: BenchOptions, body: Mapping[str, Any]) -> Body:
    """With the length that the answer shall have, unless the body says it itself."""
    limits: Body = {"max_tokens": options.output_tokens}
    if options.ignore_eos:
        limits["ignore_eos"] = True
    if options.endpoint == "generate":
        return {**body, "sampling_params": limits | body.get("sampling_params", {})}
    return {**limits, **body}
