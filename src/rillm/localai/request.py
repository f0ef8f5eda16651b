"""PredictOptions to what the engine is asked for; everything is checked here.

In proto3 a number that was not sent is zero. Zero counts as "not sent" where it would mean
nothing; a temperature of zero is greedy, and a seed of zero is a seed, since LocalAI always sends
both.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from rillm.errors import InvalidRequestError
from rillm.localai.backend_pb2 import Message, PredictOptions
from rillm.localai.model import LoadedModel
from rillm.output_formats import ToolOptions
from rillm.request_options import (
    check_template_names,
    clamped_logit_bias,
    effort_variables,
    function_tools,
    thinking_variables,
    tool_choice,
)
from rillm.sampling_params import RequestOutputKind, SamplingParams
from rillm.streams import Generation
from rillm.structured_outputs import StructuredOutputsParams
from rillm.text.tokenizer import Tokenizer
from rillm.tool_constraints import constrained, is_constrained

_MEDIA = ("Images", "Videos", "Audios")


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictCall:
    """A request that has passed all checks which need no engine."""

    generation: Generation
    has_tools: bool
    """Whether calls are read from the answer."""
    top_logprobs: int | None
    """Alternatives to list for each token; None: no logprobs."""


def read_predict_options(options: PredictOptions, model: LoadedModel) -> PredictCall:
    """Check and render a request; takes as long as its prompt is long.

    Raises:
        InvalidRequestError: a field is not acceptable; the message names it.
    """
    for name in _MEDIA:
        if number := len(getattr(options, name)):
            raise InvalidRequestError(
                f"{name} holds {number}, must be empty: this model reads text only", param=name
            )
    tools = _tools(options)
    token_ids = _prompt_token_ids(options, tools, model.tokenizer)
    params = _sampling_params(options)
    # LocalAI's own grammar is for LocalAI's own way to read calls.
    if (
        tools is not None
        and params.structured_outputs is None
        and is_constrained(tools, model.formats)
    ):
        params = constrained(params, token_ids, tools, model.formats)
    generation = Generation(
        prompt_token_ids=token_ids,
        sampling_params=params,
        request_id=f"localai-{uuid.uuid4().hex}",
        format=model.formats.for_prompt(token_ids, tools),
    )
    return PredictCall(
        generation=generation,
        has_tools=tools is not None and tools.choice != "none",
        top_logprobs=params.logprobs,
    )


def _tools(options: PredictOptions) -> ToolOptions | None:
    if not options.Tools.strip():
        return None
    tools = function_tools(_decoded("Tools", options.Tools, list[dict[str, Any]] | None) or [])
    if not tools:
        return None
    choice, function = tool_choice(_tool_choice(options.ToolChoice), tools)
    return ToolOptions(tools=tools, choice=choice, function=function, request={"tools": tools})


def _tool_choice(text: str) -> str | dict[str, Any] | None:
    """The choice, which comes as JSON or as a bare word."""
    text = text.strip()
    if not text.startswith(("{", '"')):
        return text or None
    choice: str | dict[str, Any] = _decoded("ToolChoice", text, str | dict[str, Any])
    return choice


def _prompt_token_ids(
    options: PredictOptions, tools: ToolOptions | None, tokenizer: Tokenizer
) -> list[int]:
    if options.Prompt or not (options.UseTokenizerTemplate and options.Messages):
        return tokenizer.encode(options.Prompt)
    messages = [_message(each, i) for i, each in enumerate(options.Messages)]
    return tokenizer.encode_chat(
        messages,
        tools=None if tools is None else tools.tools,
        **_template_variables(options.Metadata),
    )


def _message(message: Message, index: int) -> dict[str, Any]:
    """A message as templates know it; what LocalAI left empty is absent, but for the content."""
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if value := getattr(message, name):
            plain[name] = value
    if message.tool_calls:
        path = f"Messages[{index}].tool_calls"
        if calls := _decoded(path, message.tool_calls, list[dict[str, Any]] | None):
            plain["tool_calls"] = calls
    return plain


def _template_variables(metadata: Mapping[str, str]) -> dict[str, Any]:
    named: dict[str, Any] = _decoded(
        "Metadata.chat_template_kwargs",
        metadata.get("chat_template_kwargs") or "{}",
        dict[str, Any],
    )
    check_template_names(named)
    variables = effort_variables(metadata.get("reasoning_effort") or None)
    thinking = metadata.get("enable_thinking", "").strip().lower()
    if thinking in ("true", "false"):
        variables |= thinking_variables(thinking == "true")
    return variables | named


def _sampling_params(options: PredictOptions) -> SamplingParams:
    biases = None
    if options.LogitBias.strip():
        biases = _decoded("LogitBias", options.LogitBias, dict[str, float] | None)
    return SamplingParams(
        temperature=options.Temperature,
        top_p=options.TopP or 1.0,
        top_k=max(options.TopK, 0),
        min_p=options.MinP,
        repetition_penalty=options.Penalty or 1.0,
        presence_penalty=options.PresencePenalty,
        frequency_penalty=options.FrequencyPenalty,
        seed=options.Seed,
        stop=[each for each in options.StopPrompts if each] or None,
        ignore_eos=options.IgnoreEOS,
        max_tokens=options.Tokens if options.Tokens > 0 else None,
        logprobs=max(options.Logprobs, options.TopLogprobs) or None,
        logit_bias=clamped_logit_bias(biases),
        structured_outputs=_structured_outputs(options.Grammar),
        output_kind=RequestOutputKind.DELTA,
    )


def _structured_outputs(grammar: str) -> StructuredOutputsParams | None:
    """What the answer has to look like: a JSON schema, or a grammar.

    LocalAI makes GBNF of what clients say of the form of an answer.
    """
    if not grammar.strip():
        return None
    if grammar.lstrip().startswith("{"):
        return StructuredOutputsParams(json=grammar)
    return StructuredOutputsParams(grammar=grammar)


def _decoded(name: str, text: str, type: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=type)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequestError(f"{name} is not the JSON it must be: {error}", param=name) from (
            None
        )


def embedding_prompt(options: PredictOptions) -> str | list[int]:
    """What to embed: token ids where they were sent, else text.

    Raises:
        InvalidRequestError: neither was sent.
    """
    if options.EmbeddingTokens:
        return list(options.EmbeddingTokens)
    if not options.Embeddings:
        raise InvalidRequestError(
            "Embeddings is empty, must hold the text to embed", param="Embeddings"
        )
    return options.Embeddings
