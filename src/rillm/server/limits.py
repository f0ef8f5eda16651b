"""What a request may ask for, given the engine that serves it."""

from __future__ import annotations

from rillm.errors import InvalidRequestError
from rillm.server.protocol import GenerationRequest
from rillm.server.serving_engine import ServingEngine


def check_alternatives(name: str, count: int | None, engine: ServingEngine) -> None:
    """Refuse a number of alternatives per token that the engine would not report.

    Args:
        name: the field it was sent in.
        count: -1 is the whole vocabulary; None: none was sent.
        engine: the one that would report them.

    Raises:
        InvalidRequestError: it is below -1 or above the engine's `max_logprobs`.
    """
    if count is None:
        return
    most = engine.max_logprobs
    number = engine.model_config.vocab_size if count == -1 else count
    if not 0 <= number <= most:
        raise InvalidRequestError(
            f"{name} is {count}, must be from 0 to {most}, or -1 for the whole vocabulary of "
            f"{engine.model_config.vocab_size} where that is not more",
            param=name,
        )


def check_max_tokens(name: str, value: int | None, engine: ServingEngine) -> None:
    """Refuse an output that no prompt would leave room for.

    Args:
        name: the field it was sent in.
        value: most tokens to generate; None: none was sent.
        engine: the one whose context it has to fit.

    Raises:
        InvalidRequestError: it is below 1 or above the model's context.
    """
    if value is not None and not 1 <= value <= engine.max_model_len:
        raise InvalidRequestError(
            f"{name} is {value}, must be from 1 to {engine.max_model_len}: this model's maximum "
            f"context length is {engine.max_model_len} tokens",
            param=name,
        )


def truncated(
    token_ids: list[int], request: GenerationRequest, max_tokens: int | None, max_model_len: int
) -> list[int]:
    """Cut a prompt to the length that its request allows.

    Args:
        token_ids: the whole prompt.
        request: says to what length, and on which side.
        max_tokens: most tokens that will follow; None: as many as there is room for.
        max_model_len: longest prompt plus output, in tokens.

    Raises:
        InvalidRequestError: `truncate_prompt_tokens` is neither -1 nor a length.
    """
    name = "truncate_prompt_tokens"
    length = request.truncate_prompt_tokens
    if length is None:
        return token_ids
    if length == -1:
        length = max(1, max_model_len - (max_tokens or 1))
    elif not 1 <= length <= max_model_len:
        raise InvalidRequestError(
            f"{name} is {length}, must be from 1 to {max_model_len}, or -1 for what the output "
            "leaves",
            param=name,
        )
    if len(token_ids) <= length:
        return token_ids
    return token_ids[:length] if request.truncation_side == "right" else token_ids[-length:]
