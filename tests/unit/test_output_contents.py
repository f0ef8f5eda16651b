"""What outputs hold beside the text: ids, logprobs, the prompt's share, counters."""

from __future__ import annotations

from typing import Any

from output_states import PROMPT, delta, logprobs_of, new_state
from tiny_models import EOS_TOKEN_ID

from rillm.engine.messages import PromptInfo, RequestTimes, TokenLogprobs
from rillm.outputs import FlatLogprobs, LogprobsDict
from rillm.sampling_params import RequestOutputKind
from rillm.text.tokenizer import Tokenizer

DELTA, CUMULATIVE = RequestOutputKind.DELTA, RequestOutputKind.CUMULATIVE


def test_without_detokenizing_there_are_ids_and_no_text(tokenizer: Tokenizer) -> None:
    for state in (new_state(tokenizer, detokenize=False), new_state(None)):
        state.add(delta([65, 66, EOS_TOKEN_ID], reason="stop"))
        output = state.take()
        assert output is not None
        assert (output.outputs[0].text, output.outputs[0].token_ids) == ("", [65, 66, EOS_TOKEN_ID])


def test_earlier_cumulative_outputs_do_not_change_later(tokenizer: Tokenizer) -> None:
    for is_flat in (False, True):
        state = new_state(tokenizer, output_kind=CUMULATIVE, logprobs=1, flat_logprobs=is_flat)
        kept = []
        for character in "abc":
            ids = tokenizer.encode(character)
            state.add(delta(ids, logprobs=logprobs_of(ids)))
            output = state.take()
            assert output is not None
            kept.append(output.outputs[0])
        assert [choice.text for choice in kept] == ["a", "ab", "abc"]
        assert [len(choice.token_ids) for choice in kept] == [1, 2, 3]
        assert [len(choice.logprobs or []) for choice in kept] == [1, 2, 3]
        assert isinstance(kept[0].logprobs, FlatLogprobs) == is_flat


def one_position(tokenizer: Tokenizer, reported: TokenLogprobs, **params: Any) -> LogprobsDict:
    state = new_state(tokenizer, **params)
    state.add(delta([reported.token_ids[0]], logprobs=[reported]))
    output = state.take()
    assert output is not None
    assert output.outputs[0].logprobs is not None
    return output.outputs[0].logprobs[0]


def test_logprobs_hold_the_token_first_and_each_token_once(tokenizer: Tokenizer) -> None:
    a, b, c = tokenizer.encode("abc")
    outside = one_position(tokenizer, TokenLogprobs([a, b, c], [-3.0, -1.0, -2.0], 9), logprobs=2)
    assert [(i, p.logprob, p.rank, p.decoded_token) for i, p in outside.items()] == [
        (a, -3.0, 9, "a"),
        (b, -1.0, 1, "b"),
        (c, -2.0, 2, "c"),
    ]
    # Two tokens as probable as each other share the rank 1.
    inside = one_position(tokenizer, TokenLogprobs([c, b, c], [-1.0, -1.0, -1.0], 1), logprobs=2)
    assert [(i, p.rank) for i, p in inside.items()] == [(c, 1), (b, 1)]


def test_alternatives_chosen_by_the_request_have_no_made_up_rank(tokenizer: Tokenizer) -> None:
    a, b, c = tokenizer.encode("abc")
    position = one_position(
        tokenizer, TokenLogprobs([a, c, b], [-3.0, -2.0, -1.0], 5), logprob_token_ids=[c, b]
    )
    assert [(i, p.rank) for i, p in position.items()] == [(a, 5), (c, None), (b, None)]


def test_prompt_logprobs_come_with_the_first_delta_and_with_every_cumulative_output(
    tokenizer: Tokenizer,
) -> None:
    info = PromptInfo(4, [TokenLogprobs([8], [-0.5], 3)], [[-1.5]])
    for kind in (DELTA, CUMULATIVE):
        state = new_state(tokenizer, output_kind=kind, prompt_logprobs=0)
        state.add(delta([65], prompt=info))
        first = state.take()
        state.add(delta([66], reason="length"))
        last = state.take()
        assert first is not None
        assert last is not None
        assert first.prompt_logprobs is not None
        nothing, position = first.prompt_logprobs
        assert nothing is None
        assert position is not None
        assert [(i, p.logprob, p.rank) for i, p in position.items()] == [(8, -0.5, 3)]
        assert first.prompt_token_id_logprobs == [[-1.5]]
        assert (last.prompt_logprobs is None) == (kind is DELTA)
        assert (first.num_cached_tokens, last.num_cached_tokens) == (4, 4)


def test_outputs_name_the_request_and_its_prompt_and_count_its_tokens(tokenizer: Tokenizer) -> None:
    state = new_state(tokenizer, n=2, stop="b")
    state.add(delta(tokenizer.encode("ab"), 0, times=RequestTimes(1.0, 2.0, 3.0, 3.0, 0)))
    state.add(delta(tokenizer.encode("aba"), 1, times=RequestTimes(1.0, 2.0, 4.0, 4.0, 2)))
    output = state.take()
    assert output is not None
    assert (output.request_id, output.prompt, output.prompt_token_ids) == (
        "caller's id",
        PROMPT,
        [7, 8],
    )
    assert output.metrics is not None
    assert output.metrics.num_generation_tokens == 4
    assert output.metrics.num_preemptions == 2
    assert output.metrics.first_token_ts == 3.0
    assert output.metrics.last_token_ts == 4.0
    assert output.metrics.first_token_latency == 2.0
