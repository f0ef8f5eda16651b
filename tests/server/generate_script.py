"""Requests of the token endpoint, what answers look like, and an engine that plays outputs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from scripted_engine import ScriptedEngine, delta

from rillm.input_processor import TokensPrompt
from rillm.outputs import CompletionOutput, LogprobsDict, PromptLogprobs, RequestOutput
from rillm.sampling_params import SamplingParams

GENERATE = "/inference/v1/generate"
REQUEST: dict[str, Any] = {"token_ids": [97, 11], "sampling_params": {"temperature": 0}}
STREAM = REQUEST | {"stream": True}
ABC = [("x-request-id", "abc")]
WITHOUT_DETAILS = {"prompt_tokens_details": None, "completion_tokens_details": None}


def choice(index: int = 0, **values: Any) -> dict[str, Any]:
    return {
        "index": index,
        "finish_reason": None,
        "stop_reason": None,
        "token_ids": [],
        "routed_experts": None,
        "sampling_mask": None,
        "weight_versions": None,
        "logprobs": None,
    } | values


def chunk(*choices: dict[str, Any], usage: Any = None, mode: str = "tokens") -> dict[str, Any]:
    return {
        "request_id": "generate-tokens-abc",
        "usage": usage,
        "output_mode": mode,
        "choices": list(choices),
    }


def counts(prompt: int, completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
    }


def output(
    *choices: CompletionOutput,
    cached: int | None = None,
    prompt_logprobs: PromptLogprobs | None = None,
    scores: list[list[float]] | None = None,
    kv_transfer_params: dict[str, Any] | None = None,
) -> RequestOutput:
    return RequestOutput(
        request_id="r",
        prompt=None,
        prompt_token_ids=[],
        outputs=list(choices),
        finished=False,
        prompt_logprobs=prompt_logprobs,
        prompt_token_id_logprobs=scores,
        num_cached_tokens=cached,
        kv_transfer_params=kv_transfer_params,
    )


class OutputsEngine(ScriptedEngine):
    """Plays whole outputs, with what they say about the prompt."""

    def __init__(self, *outputs: RequestOutput) -> None:
        super().__init__()
        self._outputs = outputs

    async def generate(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        self.seen.append((prompt, sampling_params, request_id, priority))
        for each in self._outputs:
            yield each


def ids_step(*token_ids: int, index: int = 0, finish: str | None = None) -> list[CompletionOutput]:
    return [delta(index, "", token_ids, finish)]


def with_logprobs(token_ids: Sequence[int], rows: list[LogprobsDict]) -> CompletionOutput:
    return CompletionOutput(index=0, text="", token_ids=list(token_ids), logprobs=rows)
