"""Outputs on their own: flat logprobs are a list of dicts, and deltas add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillm.outputs import (
    CompletionOutput,
    FlatLogprobs,
    Logprob,
    LogprobsDict,
    RequestOutput,
    RequestStateStats,
)

logprobs = st.builds(
    Logprob,
    st.floats(max_value=0, allow_nan=False),
    st.none() | st.integers(1, 9),
    st.none() | st.text(max_size=2),
)
positions = st.dictionaries(st.integers(0, 99), logprobs, max_size=4)


def flat(items: list[LogprobsDict]) -> FlatLogprobs:
    result = FlatLogprobs()
    result.extend(items)
    return result


@given(st.lists(positions, max_size=8), st.lists(positions, max_size=3), st.data())
def test_flat_logprobs_behave_as_a_list_of_dicts(
    items: list[LogprobsDict], more: list[LogprobsDict], data: st.DataObject
) -> None:
    result = flat(items)
    for position in more:
        result.append(position)
    expected = items + more
    assert len(result) == len(expected)
    assert list(result) == expected
    assert list(reversed(result)) == expected[::-1]
    index = data.draw(st.slices(len(expected)))
    part = result[index]
    assert isinstance(part, FlatLogprobs)
    assert list(part) == expected[index]
    for i in range(-len(expected), len(expected)):
        assert result[i] == expected[i]
        assert list(result[i].items()) == list(expected[i].items())


@pytest.mark.parametrize("index", [2, -3])
def test_a_position_that_does_not_exist_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError):
        flat([{1: Logprob(0.0)}, {}])[index]


def test_a_slice_is_a_copy() -> None:
    whole = flat([{1: Logprob(-1.0)}])
    part = whole[:]
    whole.append({2: Logprob(-2.0)})
    assert (len(whole), len(part)) == (2, 1)


def request_output(outputs: list[CompletionOutput], finished: bool = False) -> RequestOutput:
    return RequestOutput("r", "p", [1], outputs, finished)


@st.composite
def cut_choices(draw: st.DrawFn) -> tuple[list[CompletionOutput], list[RequestOutput]]:
    """Whole choices, and the same choices cut into deltas that interleave."""
    wholes, pieces = [], []
    is_flat = draw(st.booleans())
    for index in range(draw(st.integers(1, 3))):
        tokens = draw(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 9)), max_size=6))
        cuts = sorted(draw(st.lists(st.integers(0, len(tokens)), max_size=3)))
        whole = CompletionOutput(index, "", [], 0.0, FlatLogprobs() if is_flat else [])
        for start, end in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
            part = tokens[start:end]
            new = CompletionOutput(
                index,
                "".join(text for text, _ in part),
                [token_id for _, token_id in part],
                -float(end),
                FlatLogprobs() if is_flat else [],
            )
            assert new.logprobs is not None
            assert whole.logprobs is not None
            positions = [{token_id: Logprob(-1.0)} for _, token_id in part]
            new.logprobs.extend(positions)
            whole.logprobs.extend(positions)
            whole.text += new.text
            whole.token_ids += new.token_ids
            whole.cumulative_logprob = new.cumulative_logprob
            pieces.append(new)
        new.finish_reason = whole.finish_reason = "stop"
        new.stop_reason = whole.stop_reason = 7
        wholes.append(whole)
    order = draw(st.permutations(range(len(pieces))))
    # Interleave the choices, keeping each one's own order.
    turns = [pieces[i].index for i in order]
    queues = {whole.index: [p for p in pieces if p.index == whole.index] for whole in wholes}
    return wholes, [request_output([queues[index].pop(0)]) for index in turns]


@given(cut_choices())
def test_deltas_added_up_in_order_are_the_whole(
    case: tuple[list[CompletionOutput], list[RequestOutput]],
) -> None:
    wholes, deltas = case
    first, *rest = deltas
    for later in rest:
        first.add(later, aggregate=True)
    assert {choice.index for choice in first.outputs} == {whole.index for whole in wholes}
    for choice in first.outputs:
        whole = wholes[choice.index]
        assert (choice.text, choice.token_ids) == (whole.text, whole.token_ids)
        assert choice.cumulative_logprob == whole.cumulative_logprob
        assert list(choice.logprobs or []) == list(whole.logprobs or [])
        assert (choice.finish_reason, choice.stop_reason) == ("stop", 7)
        assert choice.finished()


def test_cumulative_outputs_replace_the_choices_they_repeat() -> None:
    first = request_output([CompletionOutput(0, "a", [1]), CompletionOutput(1, "x", [2])])
    stats = RequestStateStats(num_generation_tokens=3)
    later = request_output([CompletionOutput(1, "xy", [2, 3], finish_reason="stop")], True)
    later.metrics = stats
    first.add(later, aggregate=False)
    assert [(choice.text, choice.token_ids) for choice in first.outputs] == [
        ("a", [1]),
        ("xy", [2, 3]),
    ]
    assert [choice.finished() for choice in first.outputs] == [False, True]
    assert first.finished
    assert first.metrics is stats


def test_once_finished_stays_finished() -> None:
    first = request_output([], finished=True)
    first.add(request_output([], finished=False), aggregate=True)
    assert first.finished
