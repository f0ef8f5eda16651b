"""The bodies of POST .../derender, and what is refused of them.

Source: vLLM 0.33's render server. What is kept between two chunks of a stream is ours.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from rillm.errors import InvalidRequestError
from rillm.sampling_params import MAX_SEQUENCES
from rillm.server.context import TextContext
from rillm.server.protocol import (
    MAX_PROMPTS,
    ChatCompletionRequest,
    CompletionRequest,
    GenerationRequest,
)
from rillm.token_wire import Answer, Choice

TokenIds = list[Annotated[int, Meta(ge=0)]]
Count = Annotated[int, Meta(ge=0)]


class StreamState(msgspec.Struct, kw_only=True):
    """What one choice's stream has been told so far. Callers send it back as they got it."""

    role_sent: bool = False
    output_token_ids: TokenIds = []
    """All tokens where their text is parsed, else the last few of prompt and output."""
    num_tokens: Count = 0
    reasoning_tokens: Count = 0
    logprob_text_offset: Count = 0
    """Characters before the next token, for logprobs of completions."""


class DerenderRequest(msgspec.Struct, kw_only=True):
    """What both routes share."""

    model: str | None = None
    id: str | None = None
    """Of the answer; None: the one that the token endpoint gave."""
    created: int | None = None
    """Seconds since the epoch; None: when the token endpoint answered, or now."""
    stream: bool = False
    """True: one chunk in, one chunk out. False: whole answers."""
    generate_chunk: Answer | None = None
    stream_state: StreamState | None = None
    """Of this choice, from the answer before; None for its first chunk."""


class ChatDerenderRequest(DerenderRequest, kw_only=True):
    """The body of POST /v1/chat/completions/derender."""

    generate_response: Answer | None = None
    prompt_tokens: Count = 0
    """0: what the answer says, or as many as there are `prompt_token_ids`."""
    prompt_token_ids: TokenIds | None = None
    """The prompt, or its end."""
    chat_request: ChatCompletionRequest | None = None


class CompletionDerenderRequest(DerenderRequest, kw_only=True):
    """The body of POST /v1/completions/derender."""

    generate_responses: list[Answer] | None = None
    """One for each prompt."""
    prompt_tokens: Count | list[Count] = 0
    """One for each prompt; a single number for a stream."""
    prompt_token_ids: list[Count | TokenIds] | None = None
    """One list for each prompt; a single list for a stream."""
    completion_request: CompletionRequest | None = None


def check_chat_context(request: ChatDerenderRequest, context: TextContext) -> None:
    """Check that there is what the model's formats need to be read.

    Raises:
        InvalidRequestError: it is missing.
    """
    formats = context.formats
    if formats is None or not (formats.reads_calls or formats.format.has_markup):
        return
    for name in ("chat_request", "prompt_token_ids"):
        if getattr(request, name) is None:
            raise InvalidRequestError(
                f"{name} is absent, must be there: this model's output is parsed", param=name
            )


def single_chunk(request: DerenderRequest, context: TextContext) -> Answer:
    """The chunk of a stream, checked.

    Raises:
        InvalidRequestError: there is none, or it is not acceptable.
    """
    chunk = request.generate_chunk
    if chunk is None:
        raise InvalidRequestError(
            "generate_chunk is absent, must be there with stream: true", param="generate_chunk"
        )
    if len(chunk.choices) > 1:
        raise InvalidRequestError(
            f"generate_chunk has {len(chunk.choices)} choices, must have at most one choice",
            param="generate_chunk",
        )
    check_answer(chunk, "generate_chunk", context)
    state = request.stream_state
    if state is not None:
        check_ids(state.output_token_ids, "stream_state", context)
        if len(state.output_token_ids) > context.engine.max_model_len:
            raise InvalidRequestError(
                f"stream_state holds more than max_model_len ({context.engine.max_model_len}) "
                "tokens",
                param="stream_state",
            )
    return chunk


def refuse_in_stream(request: GenerationRequest, echo: bool | None, name: str) -> None:
    """Refuse what one chunk after the other cannot be given.

    Raises:
        InvalidRequestError: there are stop strings, or an echo.
    """
    if request.stop:
        raise InvalidRequestError(
            "stop must be absent with stream: true: let the engine find stop strings",
            param=f"{name}.stop",
        )
    if echo:
        raise InvalidRequestError(
            "echo must be false with stream: true: the prompt is known beforehand",
            param=f"{name}.echo",
        )


def check_whole(answer: Answer, name: str, context: TextContext) -> None:
    """Check a whole answer of the token endpoint.

    Raises:
        InvalidRequestError: it is not acceptable; `name` is where it was sent.
    """
    check_answer(answer, name, context)
    indices = [choice.index for choice in answer.choices]
    if not indices or sorted(indices) != list(range(len(indices))):
        raise InvalidRequestError(
            f"{name}.choices has the indices {indices[:8]}, must have each from 0 on once",
            param=name,
        )
    answer.choices.sort(key=lambda choice: choice.index)
    for choice in answer.choices:
        if not choice.token_ids:
            raise InvalidRequestError(
                f"{name}.choices[{choice.index}].token_ids is empty, must hold at least one token",
                param=name,
            )
        choice.finish_reason = choice.finish_reason or "stop"


def check_answer(answer: Answer, name: str, context: TextContext) -> None:
    """Check what a whole answer and a chunk have in common.

    Raises:
        InvalidRequestError: it is not acceptable; `name` is where it was sent.
    """
    if answer.error is not None:
        raise InvalidRequestError(
            f"{name} holds an error, must be an answer: relay errors as they are", param=name
        )
    if answer.output_mode != "tokens":
        raise InvalidRequestError(
            f"{name} has output_mode={answer.output_mode}, must be of output_mode=tokens",
            param=name,
        )
    if len(answer.choices) > MAX_SEQUENCES:
        raise InvalidRequestError(
            f"{name} has {len(answer.choices)} choices, at most {MAX_SEQUENCES}", param=name
        )
    for choice in answer.choices:
        _check_choice(choice, name, context)


def check_ids(token_ids: list[int], name: str, context: TextContext) -> None:
    """Check that token ids are of the vocabulary.

    Raises:
        InvalidRequestError: one is not.
    """
    vocab_size = context.engine.model_config.vocab_size
    if token_ids and not 0 <= min(token_ids) <= max(token_ids) < vocab_size:
        raise InvalidRequestError(
            f"{name} holds a token id which is out of vocabulary: must be from 0 to "
            f"{vocab_size - 1}",
            param=name,
        )


def check_prompts(
    request: CompletionDerenderRequest, context: TextContext
) -> tuple[list[int], list[list[int]]]:
    """The prompts' lengths and ids, an item for each of `generate_responses`.

    Raises:
        InvalidRequestError: there are more or fewer than answers.
    """
    answers = request.generate_responses or []
    if not 1 <= len(answers) <= MAX_PROMPTS:
        raise InvalidRequestError(
            f"generate_responses count is {len(answers)}, must be from 1 to {MAX_PROMPTS}",
            param="generate_responses",
        )
    counts, ids = request.prompt_tokens, request.prompt_token_ids
    lengths = counts if isinstance(counts, list) else [counts] * len(answers)
    prompts = [[]] * len(answers) if ids is None else [i for i in ids if isinstance(i, list)]
    for name, items in (("prompt_tokens", lengths), ("prompt_token_ids", prompts)):
        if len(items) != len(answers):
            raise InvalidRequestError(
                f"{name} has {len(items)} items, must have one for each of the {len(answers)} "
                "generate_responses",
                param=name,
            )
    for prompt in prompts:
        check_ids(prompt, "prompt_token_ids", context)
    return lengths, prompts


def _check_choice(choice: Choice, name: str, context: TextContext) -> None:
    token_ids = choice.token_ids or []
    length = context.engine.max_model_len
    if choice.index < 0:
        raise InvalidRequestError(f"{name} has a choice {choice.index}, at least 0", param=name)
    if len(token_ids) > length:
        raise InvalidRequestError(
            f"{name} has a choice of {len(token_ids)} tokens, at most max_model_len ({length})",
            param=name,
        )
    check_ids(token_ids, name, context)
    content = [] if choice.logprobs is None else choice.logprobs.content
    most = context.engine.max_logprobs
    for position in content:
        # The sampled token may be one more.
        if len(position.top_logprobs) > most + 1:
            raise InvalidRequestError(
                f"{name} has {len(position.top_logprobs)} top_logprobs, at most {most} "
                "(max_logprobs)",
                param=name,
            )
        listed = [each.token_id for each in position.top_logprobs]
        check_ids([position.token_id, *listed], name, context)
