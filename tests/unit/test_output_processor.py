"""From token deltas to outputs: however tokens and reads are grouped, the result is the same."""

from __future__ import annotations

import codecs
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from output_states import delta, logprobs_of, new_state
from tiny_models import EOS_TOKEN, EOS_TOKEN_ID

from rillm.engine.messages import FinishReason, PromptInfo
from rillm.output_processor import RequestState
from rillm.outputs import CompletionOutput, RequestOutput
from rillm.sampling_params import RequestOutputKind
from rillm.text.tokenizer import Tokenizer

DELTA, CUMULATIVE, FINAL_ONLY = (
    RequestOutputKind.DELTA,
    RequestOutputKind.CUMULATIVE,
    RequestOutputKind.FINAL_ONLY,
)


class Reader:
    """Reads a state as a stream's consumer does, and merges what it gets."""

    def __init__(self, state: RequestState, kind: RequestOutputKind) -> None:
        self.state = state
        self.kind = kind
        self.outputs: list[RequestOutput] = []
        self.choices: dict[int, CompletionOutput] = {}

    def read(self) -> None:
        output = self.state.take()
        if output is None:
            return
        assert output.outputs, "an output without choices"
        assert not any(earlier.finished for earlier in self.outputs)
        self.outputs.append(output)
        for choice in output.outputs:
            before = self.choices.get(choice.index)
            assert before is None or not before.finished(), "a choice after its end"
            if before is not None and self.kind is DELTA:
                choice.text = before.text + choice.text
                choice.token_ids = before.token_ids + choice.token_ids
                if before.logprobs is not None:
                    assert choice.logprobs is not None
                    choice.logprobs = [*before.logprobs, *choice.logprobs]
            self.choices[choice.index] = choice


@st.composite
def texts_of_choices(draw: st.DrawFn) -> list[list[int]]:
    """Bytes of each choice: text of several scripts, some of it cut or malformed."""
    pieces = st.sampled_from(["a", "b", "ab", " ", "é", "你", "👍", "STOP", "ST"])
    result = []
    for _ in range(draw(st.integers(1, 3))):
        data = bytearray("".join(draw(st.lists(pieces, max_size=8))).encode())
        if draw(st.booleans()):
            data.insert(draw(st.integers(0, len(data))), draw(st.integers(0, 255)))
        result.append(list(data))
    return result


def ids_of(data: list[int], tokenizer: Tokenizer) -> list[int]:
    table = {tokenizer.token_bytes(i): i for i in range(256)}
    return [table[bytes([byte])] for byte in data]


def expected_choice(
    data: list[int], params: dict[str, Any], finish: FinishReason
) -> tuple[str, int, str, str | None]:
    """Text, number of tokens, finish and stop reason, found by looking at the whole text."""
    min_tokens = params.get("min_tokens", 0)
    stop = params.get("stop") or []
    for end in range(min_tokens + 1, len(data) + 1):
        text = decode_certain(data[:end])
        # What was text before the stop strings began to count is no part of one.
        start = len(decode_certain(data[:min_tokens]))
        found = first_match(text[start:], stop)
        if found is not None:
            at, string = found
            kept = at + (len(string) if params.get("include_stop_str_in_output") else 0)
            return text[: start + kept], end, "stop", string
    return bytes(data).decode(errors="replace"), len(data), finish, None


def decode_certain(data: list[int]) -> str:
    """Decode without the incomplete character at the end, if there is one."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(data))


def first_match(text: str, stop: list[str]) -> tuple[int, str] | None:
    """The stop string that ends first in a text; of several, the one listed first."""
    for end in range(len(text) + 1):
        for string in stop:
            if text[:end].endswith(string):
                return end - len(string), string
    return None


@settings(max_examples=120)
@given(
    choices=texts_of_choices(),
    params=st.fixed_dictionaries(
        {},
        optional={
            "stop": st.lists(st.sampled_from(["STOP", "b", "ab", "你", " a"]), max_size=2),
            "include_stop_str_in_output": st.booleans(),
            "min_tokens": st.integers(0, 3),
            "flat_logprobs": st.booleans(),
            "stream_interval": st.integers(1, 4),
        },
    ),
    kind=st.sampled_from(list(RequestOutputKind)),
    data=st.data(),
)
def test_any_grouping_of_tokens_and_any_reading_gives_the_same_result(
    tokenizer: Tokenizer,
    choices: list[list[int]],
    params: dict[str, Any],
    kind: RequestOutputKind,
    data: st.DataObject,
) -> None:
    state = new_state(tokenizer, **params, n=len(choices), output_kind=kind, logprobs=1)
    reader = Reader(state, kind)
    queues = {i: ids_of(choice, tokenizer) for i, choice in enumerate(choices)}
    stopped: set[int] = set()
    while queues:
        choice = data.draw(st.sampled_from(sorted(queues)))
        # What is likely comes first, and moves on: nearly endless runs take long to draw.
        count = data.draw(st.sampled_from([1, 2, 3, 4, 0]))
        ids, queues[choice] = queues[choice][:count], queues[choice][count:]
        is_last = not queues[choice]
        reason: FinishReason | None = "length" if is_last else None
        must_abort = state.add(
            delta(ids, choice, reason, logprobs=logprobs_of(ids), prompt=PromptInfo(0))
        )
        if must_abort:
            assert choice not in stopped
            stopped.add(choice)
            assert not is_last
        if is_last:
            del queues[choice]
        if data.draw(st.booleans()):
            reader.read()
    reader.read()
    assert state.take() is None
    assert state.is_finished
    assert [output.finished for output in reader.outputs] == [False] * (len(reader.outputs) - 1) + [
        True
    ]
    if kind is FINAL_ONLY:
        assert len(reader.outputs) == 1
        assert [choice.index for choice in reader.outputs[0].outputs] == list(range(len(choices)))
    for index, whole in reader.choices.items():
        text, count, *end = expected_choice(choices[index], params, "length")
        ids = ids_of(choices[index], tokenizer)[:count]
        assert whole.text == text
        assert whole.token_ids == ids
        assert [whole.finish_reason, whole.stop_reason] == end
        assert [next(iter(position)) for position in whole.logprobs or []] == ids
        assert whole.cumulative_logprob == -sum(ids)
    assert set(reader.choices) == set(range(len(choices)))


# ---- stop strings ------------------------------------------------------------------------------


def finished_choice(
    tokenizer: Tokenizer, pieces: list[str], reason: FinishReason | None = None, **params: Any
) -> CompletionOutput:
    """Feed pieces of text as deltas and read at the end."""
    state = new_state(tokenizer, output_kind=DELTA, **params)
    for i, piece in enumerate(pieces):
        is_last = i == len(pieces) - 1
        state.add(delta(tokenizer.encode(piece), reason=reason if is_last else None))
    output = state.take()
    assert output is not None
    return output.outputs[0]


@pytest.mark.parametrize("pieces", [["abSTOPcd"], ["a", "bS", "TO", "Pc", "d"], [*"abSTOPcd"]])
@pytest.mark.parametrize(("include", "text"), [(False, "ab"), (True, "abSTOP")])
def test_a_stop_string_ends_text_and_ids_where_it_completes(
    tokenizer: Tokenizer, pieces: list[str], include: bool, text: str
) -> None:
    choice = finished_choice(
        tokenizer, pieces, stop="STOP", include_stop_str_in_output=include, logprobs=None
    )
    assert (choice.text, choice.finish_reason, choice.stop_reason) == (text, "stop", "STOP")
    assert choice.token_ids == tokenizer.encode("abSTOP")


def test_the_engine_is_told_to_stop_exactly_once_and_only_if_it_does_not_know(
    tokenizer: Tokenizer,
) -> None:
    state = new_state(tokenizer, stop="b")
    assert not state.add(delta(tokenizer.encode("a")))
    assert state.add(delta(tokenizer.encode("bc")))
    assert not state.add(delta(tokenizer.encode("b")))
    state = new_state(tokenizer, stop="b")
    assert not state.add(delta(tokenizer.encode("b"), reason="length"))
    output = state.take()
    assert output is not None
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", "b")


def test_text_that_may_become_a_stop_string_is_withheld_and_released_at_the_end(
    tokenizer: Tokenizer,
) -> None:
    state = new_state(tokenizer, stop="STOP", output_kind=DELTA)
    state.add(delta(tokenizer.encode("aST")))
    first = state.take()
    state.add(delta([], reason="length"))
    last = state.take()
    assert first is not None
    assert last is not None
    assert (first.outputs[0].text, first.outputs[0].token_ids) == ("a", tokenizer.encode("aST"))
    assert (last.outputs[0].text, last.outputs[0].token_ids) == ("ST", [])


def test_stop_strings_do_not_count_below_min_tokens(tokenizer: Tokenizer) -> None:
    choice = finished_choice(tokenizer, ["b", "ab", "ab"], stop="b", min_tokens=3)
    assert (choice.text, choice.stop_reason) == ("baba", "b")


# ---- stop tokens -------------------------------------------------------------------------------


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("includes", [True, False])
def test_the_text_of_a_stop_token_is_hidden_but_its_id_stays(
    tokenizer: Tokenizer, skips: bool, includes: bool
) -> None:
    state = new_state(tokenizer, skip_special_tokens=skips, include_stop_str_in_output=includes)
    state.add(delta([*tokenizer.encode("ab"), EOS_TOKEN_ID], reason="stop"))
    output = state.take()
    assert output is not None
    (choice,) = output.outputs
    assert choice.text == ("ab" + EOS_TOKEN if includes and not skips else "ab")
    assert choice.token_ids == [*tokenizer.encode("ab"), EOS_TOKEN_ID]
    assert (choice.finish_reason, choice.stop_reason) == ("stop", None)


def test_a_stop_token_id_is_the_stop_reason(tokenizer: Tokenizer) -> None:
    state = new_state(tokenizer)
    state.add(delta(tokenizer.encode("ab"), reason="stop", stop_token_id=66))
    output = state.take()
    assert output is not None
    assert (output.outputs[0].text, output.outputs[0].stop_reason) == ("a", 66)


def test_a_repetition_says_so_as_its_stop_reason(tokenizer: Tokenizer) -> None:
    choice = finished_choice(tokenizer, ["aaa"], reason="repetition")
    assert choice.text == "aaa"
    assert (choice.finish_reason, choice.stop_reason) == ("repetition", "repetition_detected")


# ---- finishing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(RequestOutputKind))
def test_a_finish_without_new_tokens_is_delivered_once(
    tokenizer: Tokenizer, kind: RequestOutputKind
) -> None:
    state = new_state(tokenizer, output_kind=kind)
    reader = Reader(state, kind)
    state.add(delta(tokenizer.encode("a")))
    reader.read()
    state.add(delta([], reason="length"))
    reader.read()
    reader.read()
    assert len(reader.outputs) == (1 if kind is FINAL_ONLY else 2)
    assert reader.choices[0].finish_reason == "length"
    assert (reader.choices[0].text, reader.outputs[-1].finished) == ("a", True)


@pytest.mark.parametrize("kind", list(RequestOutputKind))
def test_an_abort_ends_the_open_choices_and_releases_what_was_withheld(
    tokenizer: Tokenizer, kind: RequestOutputKind
) -> None:
    state = new_state(tokenizer, n=3, stop="STOP", output_kind=kind)
    reader = Reader(state, kind)
    state.add(delta(tokenizer.encode("aST"), choice=0))
    state.add(delta(tokenizer.encode("bSTOP"), choice=1))
    reader.read()
    state.abort()
    reader.read()
    state.abort()
    reader.read()
    found = {i: (choice.text, choice.finish_reason) for i, choice in reader.choices.items()}
    assert found == {0: ("aST", "abort"), 1: ("b", "stop"), 2: ("", "abort")}
    assert state.is_finished
    assert not state.add(delta(tokenizer.encode("x"), choice=0))
    assert state.take() is None


def test_an_output_holds_only_the_choices_that_changed(tokenizer: Tokenizer) -> None:
    state = new_state(tokenizer, n=3, output_kind=CUMULATIVE)
    state.add(delta(tokenizer.encode("a"), choice=2))
    state.add(delta(tokenizer.encode("b"), choice=0))
    output = state.take()
    assert output is not None
    assert [(choice.index, choice.text) for choice in output.outputs] == [(0, "b"), (2, "a")]
    assert state.take() is None


@pytest.mark.parametrize("setting", ["stream_interval", "engine_stream_interval"])
def test_a_stream_interval_spaces_outputs_but_not_the_first_and_the_last(
    tokenizer: Tokenizer, setting: str
) -> None:
    state = new_state(tokenizer, output_kind=DELTA, **{setting: 3})
    texts = []
    for i, character in enumerate("abcdefgh"):
        state.add(delta(tokenizer.encode(character), reason="length" if i == 7 else None))
        output = state.take()
        if output is not None:
            texts.append(output.outputs[0].text)
    assert texts == ["a", "bcd", "efg", "h"]
