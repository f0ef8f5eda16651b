"""Random conversations, printed in every format, cut at random, and parsed again.

Each family sees 2,000 conversations in all. What is printed comes from `printing`, which knows the
formats from their descriptions for people and nothing of the parser.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from formats import printing_json, printing_literals, printing_messages, printing_tags
from formats.conversations import check, make_conversation, tools_of
from formats.folding import Answer, events_of, fold, numbered_id
from formats.printing import (
    CallStyle,
    Choices,
    Conversation,
    MessageStyle,
    ReasoningStyle,
    Writer,
    make_text,
    without,
)
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import rillm
from rillm.formats.compiled import compile_format
from rillm.formats.description import Format
from rillm.formats.events import StreamEvent, ToolCallArguments, ToolCallBegin, ToolCallEnd
from rillm.formats.machine import Machine
from rillm.formats.registry import combine, reasoning_formats, tool_formats
from rillm.formats.tokens import NO_TOKENS, TokenMarkers, find_tokens, markers_of

Style = CallStyle | MessageStyle | ReasoningStyle

CALL_STYLES = (*printing_json.STYLES, *printing_tags.STYLES, *printing_literals.STYLES)
REASONING_STYLES = printing_messages.REASONING
MESSAGE_STYLES = printing_messages.MESSAGES
BY_REASONING_NAME = {name: style for style in REASONING_STYLES for name in style.names}
DECLARED_BY_CHECKPOINTS = {"hf", "beam"}
"""Formats that the checkpoint itself describes."""
ONLY_CONTENT = {"minimax_m2_append_think"}
"""Reasoning formats without reasoning."""

SURROGATES = re.compile("[\ud800-\udfff]")
BYTES = st.builds(
    lambda seed, size: random.Random(seed).randbytes(size),
    st.integers(0, 2**32 - 1),
    st.integers(0, 256),
)
"""Fewer bytes are simpler; drawing each of them would take a third of the time."""
SEEDS = st.integers(0, 2**16)


def examples(number: int) -> settings:
    return settings(
        max_examples=number,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )


@dataclass(frozen=True)
class Setup:
    """A format that a family writes, with or without tokens, and what its texts avoid."""

    format: Format
    calls: CallStyle | MessageStyle | None
    reasoning: ReasoningStyle | None
    tokens: TokenMarkers
    fences: tuple[str, ...]
    markers: tuple[str, ...]
    starts_open: bool


@cache
def setups(style: Style, has_tokens: bool) -> tuple[Setup, ...]:
    """All formats of one family that are there."""
    found: list[Setup] = []
    for name in style.names:
        if isinstance(style, ReasoningStyle):
            if name in reasoning_formats():
                found += _setups(style, None, name, has_tokens)
        elif name in tool_formats():
            reasoning = style.reasoning if isinstance(style, CallStyle) else None
            for partner in {None, reasoning} & {None, *reasoning_formats()}:
                found += _setups(style, name, partner, has_tokens)
    return tuple(found)


def _setups(style: Style, tool: str | None, reasoning: str | None, has_tokens: bool) -> list[Setup]:
    format = combine(tool, reasoning)
    fence = BY_REASONING_NAME.get(reasoning or "")
    vocabularies: list[TokenMarkers] = [NO_TOKENS]
    if has_tokens:
        texts = {*style.tokens, *(fence.tokens if fence is not None else ())}
        vocabularies = [
            find_tokens(format, dict.fromkeys(texts, is_special)) for is_special in (True, False)
        ]
    found = []
    for tokens in vocabularies:
        if has_tokens and not tokens.stand_ins:
            continue
        frames = compile_format(format, tokens).frames
        literals = {each for frame in frames.values() for each in frame.markers.literals}
        found.append(
            Setup(
                format=format,
                calls=None if isinstance(style, ReasoningStyle) else style,
                reasoning=fence,
                tokens=tokens,
                fences=tuple(sorted(each for each in literals if not SURROGATES.search(each))),
                markers=tuple(sorted(markers_of(format) - {""})),
                starts_open=Machine(format, tokens=tokens).is_reasoning,
            )
        )
    return found


@dataclass
class Example:
    """A conversation in print."""

    setup: Setup
    conversation: Conversation
    text: str
    options: dict[str, Any]

    def events(self, pieces: Sequence[str], *, is_cut: bool = False) -> list[StreamEvent]:
        return events_of(self.setup.format, pieces, is_cut=is_cut, **self.options)

    def machine(self) -> Machine:
        return Machine(self.setup.format, new_id=numbered_id, **self.options)


def make_example(style: Style, data: bytes, *, has_tokens: bool = False) -> Example:
    choices = Choices(data)
    setup = choices.one_of(setups(style, has_tokens))
    conversation = make_conversation(
        choices,
        setup.calls,
        reasons=setup.reasoning is not None or isinstance(style, MessageStyle),
        fences=setup.fences,
        markers=setup.markers,
        tokens=setup.tokens,
    )
    writer = Writer(choices, setup.tokens)
    options: dict[str, Any] = {
        "tools": tools_of(choices, setup.calls, conversation),
        "tokens": setup.tokens,
    }
    if setup.starts_open and not conversation.reasoning:
        options["start"] = "content"
    if isinstance(setup.calls, MessageStyle):
        setup.calls.write(writer, conversation)
    else:
        print_parts(writer, setup, conversation)
    text = writer.result()
    note(f"{setup.format.names or setup.format.reasoning_names}: {text!r}")
    return Example(setup, conversation, text, options)


def print_parts(writer: Writer, setup: Setup, conversation: Conversation) -> None:
    """Print reasoning in its fences, then texts and calls."""
    fence, style = setup.reasoning, setup.calls
    parts = conversation.parts
    if conversation.reasoning and fence is not None:
        if fence.open and (not setup.starts_open or writer.choices.chance(2)):
            writer.mark(fence.open).space(*fence.space)
        writer.text(conversation.reasoning)
        ends = setup.format.reasoning is not None and setup.format.reasoning.calls_end
        if not (ends and parts and isinstance(parts[0], list) and writer.choices.chance(3)):
            writer.space(*fence.space).mark(fence.close).space(*fence.space)
    for part in parts:
        if isinstance(part, str):
            open, close = "", ""
            if fence is not None and fence.wrap and conversation.reasoning:
                open, close = writer.choices.one_of((("", ""), fence.wrap))
            writer.mark(open).text(part).mark(close)
        else:
            assert isinstance(style, CallStyle)
            writer.space("", "\n", " ")
            style.write(writer, part)
            writer.space("", "\n")
    if fence is not None and conversation.reasoning and not conversation.calls:
        writer.mark(fence.after)


@cache
def _tokenizer() -> Tokenizer:
    path = Path(rillm.__file__).parent / "bundled" / "tokenizer.json"
    return Tokenizer.from_file(str(path))


def cut(text: str, seed: int) -> list[str]:
    """Cut into pieces: characters, tokens, lumps of tokens, pieces of any length, or not at all."""
    chance = random.Random(seed)
    kind = chance.randrange(8)
    if kind == 0:
        return list(text)
    if kind == 1:
        return [text]
    if kind < 5:
        ends = _token_ends(text)
        if kind == 4:
            ends = [end for end in ends if chance.random() < 0.3]
    else:
        longest = chance.choice((3, 9, 30))
        ends, end = [], 0
        while end < len(text):
            end += chance.randint(1, longest)
            ends.append(end)
    cuts = [0, *ends, len(text)]
    return [text[start:end] for start, end in zip(cuts, cuts[1:], strict=False) if end > start]


def _token_ends(text: str) -> list[int]:
    # A stand-in is a token of its own wherever it is; the tokenizer takes no surrogates.
    encoding = _tokenizer().encode(SURROGATES.sub("\x00", text), add_special_tokens=False)
    return sorted({end for _, end in encoding.offsets})


def check_fragments(events: Iterable[StreamEvent]) -> None:
    """The arguments are no complete JSON before their call is complete."""
    arguments, is_whole = "", False
    for event in events:
        assert not is_whole or isinstance(event, ToolCallEnd), arguments
        is_whole = False
        if isinstance(event, ToolCallBegin):
            arguments = ""
        elif isinstance(event, ToolCallArguments):
            arguments += event.fragment
            is_whole = arguments.rstrip().endswith("}") and is_json(arguments)
    assert not is_whole, arguments


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def check_no_markup(answer: Answer, example: Example) -> None:
    """No marker is in the text, unless two texts next to each other make one."""
    meant = "".join(example.conversation.texts) + example.conversation.reasoning
    for marker in example.setup.fences:
        if marker not in meant:
            assert marker not in answer.content
            assert marker not in answer.reasoning
    written = (answer.content, answer.reasoning, *(call.arguments for call in answer.calls))
    assert not any(SURROGATES.search(text) for text in written)


def check_beginning(before: Answer, whole: Answer) -> None:
    """What was known earlier is the beginning of what is known in the end."""
    assert whole.content.startswith(before.content)
    assert whole.reasoning.startswith(before.reasoning)
    assert len(before.calls) <= len(whole.calls)
    for early, late in zip(before.calls, whole.calls, strict=False):
        assert (early.name, early.id) == (late.name, late.id)
        assert late.arguments.startswith(early.arguments)
        assert late.is_complete >= early.is_complete


def families(*, has_tokens: bool = False) -> list[Any]:
    """The styles of which at least one format is there."""
    styles = (*CALL_STYLES, *REASONING_STYLES, *MESSAGE_STYLES)
    return [
        pytest.param(style, id=f"{type(style).__name__[:-5].lower()}-{style.names[0]}")
        for style in styles
        if setups(style, has_tokens)
    ]


def test_every_format_has_a_printer() -> None:
    calls = {name for style in (*CALL_STYLES, *MESSAGE_STYLES) for name in style.names}
    fences = {name for style in MESSAGE_STYLES for name in style.reasoning_names}
    assert {*tool_formats()} - DECLARED_BY_CHECKPOINTS <= calls
    known = {*fences, *BY_REASONING_NAME, *ONLY_CONTENT, *DECLARED_BY_CHECKPOINTS}
    assert {*reasoning_formats()} <= known


@pytest.mark.parametrize("style", families())
def test_what_is_printed_is_what_is_parsed(style: Style) -> None:
    @examples(1200 if setups(style, True) else 1500)
    @given(BYTES, SEEDS)
    def holds(data: bytes, seed: int) -> None:
        example = make_example(style, data)
        whole = fold(example.events([example.text]))
        check(whole, example.conversation)
        check_no_markup(whole, example)
        pieces = cut(example.text, seed)
        note(f"in pieces: {pieces}")
        events = example.events(pieces)
        assert fold(events) == whole
        check_fragments(events)

    holds()


@pytest.mark.parametrize("style", families())
def test_every_beginning_is_a_beginning_of_the_answer(style: Style) -> None:
    @examples(500)
    @given(BYTES, SEEDS, SEEDS)
    def holds(data: bytes, seed: int, end: int) -> None:
        example = make_example(style, data)
        whole = fold(example.events([example.text]))
        beginning = example.text[: end % (len(example.text) + 1)]
        pieces = cut(beginning, seed)
        note(f"in pieces: {pieces}")
        machine = example.machine()
        events = [event for piece in pieces for event in machine.feed(piece)]
        check_beginning(fold(events), whole)
        check_fragments(events)
        is_cut = bool(seed % 2)
        events += machine.finish(is_cut=is_cut)
        assert machine.faults == 0
        assert fold(example.events([beginning], is_cut=is_cut)) == fold(events)

    holds()


@pytest.mark.parametrize("style", families(has_tokens=True))
def test_markers_that_are_tokens_are_told_from_text_that_looks_like_them(style: Style) -> None:
    @examples(250)
    @given(BYTES, SEEDS)
    def holds(data: bytes, seed: int) -> None:
        example = make_example(style, data, has_tokens=True)
        whole = fold(example.events([example.text]))
        check(whole, example.conversation)
        check_no_markup(whole, example)
        events = example.events(cut(example.text, seed))
        assert fold(events) == whole
        check_fragments(events)

    holds()


@pytest.mark.parametrize("style", families(has_tokens=True))
def test_text_without_tokens_is_content(style: Style) -> None:
    @examples(50)
    @given(BYTES)
    def holds(data: bytes) -> None:
        choices = Choices(data)
        setup = choices.one_of(setups(style, True))
        whole = frozenset(setup.fences)
        markers = [each for each in setup.markers if each not in whole]
        text = without("A" + make_text(choices, markers, 10) + "z", setup.fences)
        options: dict[str, Any] = {"tokens": setup.tokens, "start": "content"}
        assert fold(events_of(setup.format, [text], **options)).content == text
        assert fold(events_of(setup.format, list(text), **options)).content == text

    holds()
