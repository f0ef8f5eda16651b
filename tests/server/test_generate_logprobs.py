"""The token endpoint's logprobs, of prompt and output, and what else it says of a prompt."""

from __future__ import annotations

import base64
import io

import numpy as np
from generate_script import GENERATE, REQUEST, STREAM, OutputsEngine, output, with_logprobs
from scripted_engine import BUNDLED_TOKENIZER, call, delta

from rillm.outputs import Logprob, LogprobsDict, PromptLogprobs


async def test_prompt_logprobs_and_transfer_params_are_told_whenever_they_come() -> None:
    positions: PromptLogprobs = [None, {11: Logprob(float("-inf"), 7, "x"), 3: Logprob(-1.0, 1)}]
    engine = OutputsEngine(
        output(delta(0, "", [1])),
        output(
            delta(0, "", [2], "stop"),
            prompt_logprobs=positions,
            kv_transfer_params={"remote_block_ids": [4]},
        ),
    )
    body = REQUEST | {"sampling_params": {"prompt_logprobs": 1}, "return_token_ids": True}

    answer = (await call(engine, GENERATE, body)).json()

    assert answer["prompt_logprobs"] == [
        None,
        {
            "11": {"logprob": -9999.0, "rank": 7, "decoded_token": "x"},
            "3": {"logprob": -1.0, "rank": 1, "decoded_token": None},
        },
    ]
    assert answer["prompt_token_ids"] == [97, 11]
    assert answer["kv_transfer_params"] == {"remote_block_ids": [4]}


async def test_scores_of_chosen_ids_are_a_numpy_file() -> None:
    scores = [[-0.5, -1.5], [-2.5]]
    engine = OutputsEngine(output(delta(0, "", [2], "stop"), scores=scores))
    sampling = {"prompt_logprob_token_ids": [[4, 5], [6, -1]]}
    body = {"token_ids": [1, 2, 3], "sampling_params": sampling}

    answer = (await call(engine, GENERATE, body)).json()

    array = np.load(io.BytesIO(base64.b64decode(answer["prompt_token_id_logprobs"])))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array([[-0.5, -1.5], [-2.5, np.nan]], np.float32))


async def test_streamed_logprobs_have_an_entry_for_each_token() -> None:
    rows: list[LogprobsDict] = [{1: Logprob(-1.0, 1)}]
    finish = delta(0, "", [], "stop")
    finish.logprobs = []
    engine = OutputsEngine(output(with_logprobs([1, 2], rows)), output(finish))

    events = (await call(engine, GENERATE, STREAM | {"sampling_params": {"logprobs": 0}})).events()

    first = {"token_id": 1, "logprob": -1.0, "rank": 1}
    missing = {"token_id": 2, "logprob": -9999.0, "rank": None, "top_logprobs": []}
    assert [event["choices"][0]["logprobs"] for event in events[:-1]] == [
        {"content": [first | {"top_logprobs": [first]}, missing]},
        {"content": []},
    ]


async def test_logprobs_of_text_have_the_shape_of_chat() -> None:
    token_id, other = (BUNDLED_TOKENIZER.encode(text)[0] for text in "ab")
    row = {token_id: Logprob(-2.0, 2), other: Logprob(-0.5, 1)}
    engine = OutputsEngine(
        output(with_logprobs([token_id], [row])), output(delta(0, "", [], "stop"))
    )
    sampling = {"sampling_params": {"logprobs": 1}, "output_mode": "text"}

    answer = (await call(engine, GENERATE, REQUEST | sampling)).json()

    top = {"token": "b", "logprob": -0.5, "bytes": [98]}
    assert answer["choices"][0]["logprobs"] == {
        "content": [{"token": "a", "logprob": -2.0, "bytes": [97], "top_logprobs": [top]}]
    }


async def test_logprobs_of_chosen_ids_are_all_told() -> None:
    token_id, *others = (BUNDLED_TOKENIZER.encode(text)[0] for text in "abc")
    row = {token_id: Logprob(-2.0, 2)} | {each: Logprob(-3.0) for each in others}
    engine = OutputsEngine(
        output(with_logprobs([token_id], [row])), output(delta(0, "", [], "stop"))
    )
    body = REQUEST | {"sampling_params": {"logprob_token_ids": others}}

    by_id = (await call(engine, GENERATE, body)).json()["choices"][0]["logprobs"]
    by_text = (await call(engine, GENERATE, body | {"output_mode": "text"})).json()

    [told] = by_id["content"]
    assert [each["token_id"] for each in told["top_logprobs"]] == [token_id, *others]
    [told] = by_text["choices"][0]["logprobs"]["content"]
    assert [each["token"] for each in told["top_logprobs"]] == ["a", "b", "c"]
