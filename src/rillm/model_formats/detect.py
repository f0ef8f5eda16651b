"""Choosing a model's formats by its own files.

The chat template says most, since it writes earlier calls and reasoning as the model does; then
come the tokens of the vocabulary, the architecture, and last the name.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rillm.formats.description import Evidence, Format
from rillm.formats.registry import reasoning_formats, tool_formats

_TEMPLATE: Final = 8.0
_TOKENS: Final = 4.0
_ARCHITECTURE: Final = 2.0
_NAME: Final = 1.0
_RANK: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTraits:
    """What of a model's files speaks for a format."""

    template: str = ""
    """The chat templates, one after another."""
    tokens: frozenset[str] = frozenset()
    """Added tokens of the vocabulary."""
    architectures: tuple[str, ...] = ()
    """`architectures` and `model_type` of config.json."""
    name: str = ""
    """What the model is called: its directory or hub id."""
    declares_format: bool = False
    """Whether tokenizer_config.json has a `response_template`."""


@dataclass(frozen=True, slots=True)
class Match:
    """A format that the evidence speaks for."""

    format: Format
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Detected:
    """The two halves that were found, and why."""

    tool: Match | None
    reasoning: Match | None


def detect(traits: ModelTraits) -> Detected:
    """Find the formats a model uses."""
    if traits.declares_format:
        declared = next(each for each in tool_formats().values() if each.from_checkpoint)
        found = Match(declared, _TEMPLATE, ("tokenizer_config.json: 'response_template'",))
        return Detected(found, found)
    tool = _best(tool_formats().values(), traits)
    reasoning = _best(reasoning_formats().values(), traits)
    # A family with one markup for both decides both halves.
    for match in (tool, reasoning):
        if match is not None and not match.format.mixes:
            stronger = max(filter(None, (tool, reasoning)), key=lambda each: each.score)
            if stronger.format.mixes:
                tool = None if tool is match else tool
                reasoning = None if reasoning is match else reasoning
            else:
                tool = reasoning = stronger
    return Detected(tool, reasoning)


def _best(formats: Iterable[Format], traits: ModelTraits) -> Match | None:
    matches = (_match(each, traits) for each in dict.fromkeys(formats))
    return max(
        (each for each in matches if each is not None), key=lambda each: each.score, default=None
    )


def _match(format: Format, traits: ModelTraits) -> Match | None:
    """Weigh one format's evidence; None where nothing speaks for it, or the template against."""
    evidence = format.evidence
    if traits.template and not all(text in traits.template for text in evidence.template_all):
        return None
    name = traits.name.lower().replace("_", "-")
    found = {
        "chat template": (_TEMPLATE, _first(evidence.markers + evidence.template, traits.template)),
        "added token": (_TOKENS, _first(evidence.markers + evidence.tokens, traits.tokens)),
        "architecture": (_ARCHITECTURE, _architecture(evidence, traits)),
        "name": (_NAME, _first(evidence.names, name)),
    }
    reasons = tuple(f"{what}: {text!r}" for what, (_, text) in found.items() if text)
    if not reasons:
        return None
    score = sum(weight for weight, text in found.values() if text)
    return Match(format, score + _RANK * evidence.rank, reasons)


def _first(wanted: Iterable[str], found: Container[str]) -> str | None:
    return next((each for each in wanted if each in found), None)


def _architecture(evidence: Evidence, traits: ModelTraits) -> str | None:
    beginnings = tuple(map(_folded, evidence.architectures))
    return next(
        (name for name in traits.architectures if _folded(name).startswith(beginnings)), None
    )


def _folded(name: str) -> str:
    return name.lower().replace("_", "")


def architectures_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in config.json that say what a model is."""
    listed = config.get("architectures")
    names = [*(listed if isinstance(listed, list) else []), config.get("model_type")]
    return tuple(name for name in names if isinstance(name, str))
