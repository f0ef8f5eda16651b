"""Everything that passes between the engine client and the engine core.

One frame a step in each direction: `Commands` to the core, `StepOutputs` back. Structs are
encoded as msgpack arrays, so field order is the wire format.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from rillm.engine.config import EngineConfig, EngineInfo

FinishReason = Literal["stop", "length", "abort", "error", "repetition"]


class TokenSamplingParams(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """Sampling params with everything textual or left open resolved to numbers and token ids."""

    seed: int
    """64-bit; every draw depends on (seed, choice, position) and on nothing else."""
    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    """0 means greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    eos_token_id: int | None = None
    """Ends a sequence with no stop reason; None when it is to be ignored."""
    stop_token_ids: list[int] = []
    """End a sequence, with the id as stop reason."""
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[list[int]] | None = None
    """Token sequences never to complete."""
    num_logprobs: int | None = None
    """Best alternatives to report; None: no logprobs at all."""
    logprob_token_ids: list[int] | None = None
    """Alternatives to report instead of the best ones."""
    num_prompt_logprobs: int | None = None
    prompt_logprob_token_ids: list[list[int]] | None = None
    prompt_logprob_start: int = 0
    repetition_detection: tuple[int, int, int] | None = None
    """Shortest pattern, longest pattern, least count."""
    grammar: str | None = None
    """What the output has to fit, in llguidance's notation; checked."""


class EngineRequest(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """One request, immutable. `n` choices share one prefill."""

    request_id: int
    """Given by the client, never used twice."""
    prompt_token_ids: list[int]
    params: TokenSamplingParams
    n: int = 1
    priority: int = 0
    """Lower runs earlier."""
    cache_salt: str | None = None
    """Prefix cache blocks are shared only between requests of the same salt."""
    read_prefix_cache: bool = True
    pools: bool = False
    """Report the mean hidden state of the prompt; needs `read_prefix_cache` to be False."""
    client: str = ""
    """Whose request it is; those of equal priority share the engine fairly between clients, and
    run in order of arrival within each."""


class Start(msgspec.Struct, array_like=True, tag="start"):
    """First frame to the core."""

    config: EngineConfig


class TokenLogprobs(msgspec.Struct, array_like=True):
    """Logprobs at one position."""

    token_ids: list[int]
    """The token itself, then the alternatives, best first."""
    logprobs: list[float]
    rank: int
    """Of the token itself, 1 for the most probable."""


class RequestTimes(msgspec.Struct, array_like=True):
    """Monotonic seconds of the core, sent with a choice's first and last delta."""

    queued: float
    scheduled: float
    first_token: float
    last_token: float
    num_preemptions: int


class Replay(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A request that another core has begun, and how far it came."""

    request: EngineRequest
    outputs: dict[int, list[int]]
    """Tokens delivered of each choice that is still open."""
    times: RequestTimes | None = None
    """Of the first token, once there was one."""
    suspects: list[int] = []
    """Choices to be run alone until they have got a token."""


class Commands(msgspec.Struct, array_like=True, tag="commands"):
    """What the client has to say before the next step."""

    requests: list[EngineRequest] = []
    aborts: list[tuple[int, int | None]] = []
    """(request id, choice), None for all choices. Unknown ones may have finished meanwhile."""
    reset_prefix_cache: bool = False
    replays: list[Replay] = []
    """Older than `requests`, in order of arrival."""


class PromptInfo(msgspec.Struct, array_like=True):
    """What the prefill found, with a request's first delta."""

    num_cached_tokens: int
    logprobs: list[TokenLogprobs] | None = None
    """One for each prompt token but the first."""
    token_id_logprobs: list[list[float]] | None = None
    embedding: list[float] | None = None
    """Mean over the prompt of the model's last hidden state."""


class TokenDelta(msgspec.Struct, array_like=True):
    """New tokens of one choice."""

    request_id: int
    choice: int
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    """The member of `stop_token_ids` that ended the choice."""
    logprobs: list[TokenLogprobs] | None = None
    prompt: PromptInfo | None = None
    times: RequestTimes | None = None
    error: str | None = None
    """What went wrong, with finish reason `error`."""


class StepStats(msgspec.Struct, array_like=True):
    """Counters of the engine after one step."""

    num_running: int = 0
    num_waiting: int = 0
    num_free_blocks: int = 0
    """Blocks no sequence holds, cached ones included."""
    num_preemptions: int = 0
    """Since the start."""


class StepOutputs(msgspec.Struct, array_like=True, tag="outputs"):
    """Everything one step produced."""

    deltas: list[TokenDelta]
    stats: StepStats


class Ready(msgspec.Struct, array_like=True, tag="ready"):
    """The model is loaded."""

    info: EngineInfo


class Failed(msgspec.Struct, array_like=True, tag="failed"):
    """The core cannot go on; it exits after sending this."""

    message: str
    is_config_error: bool
    """The operator can change a setting and try again."""


ToCore = Start | Commands
FromCore = Ready | Failed | StepOutputs
