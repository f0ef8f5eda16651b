"""What requests of every protocol say about tools, templates and biases, checked in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rillm.errors import InvalidRequestError
from rillm.structured_outputs import MAX_NESTING, json_depth_exceeds

MAX_LOGIT_BIAS = 100.0
"""Larger ones are clamped, as the OpenAI API does."""

_MAX_DIGITS = 20
_CHOICES = ("auto", "none", "required")
_TEMPLATE_ARGUMENTS = frozenset(
    {
        "self",
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "chat_template",
        "escape_special_tokens",
    }
)
"""Names a request may not smuggle in as template variables."""


def function_tools(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The functions among the tools of a request.

    Tools of other types are left out: clients send what other servers run themselves.

    Raises:
        InvalidRequestError: a tool is malformed; `param` is its path.
    """
    return [tool for i, tool in enumerate(tools) if _is_function(tool, f"tools[{i}]")]


def _is_function(tool: Mapping[str, Any], path: str) -> bool:
    kind = tool.get("type")
    if not isinstance(kind, str):
        raise InvalidRequestError(f"{path}.type must be 'function'", param=f"{path}.type")
    if kind != "function":
        return False
    function = tool.get("function")
    if not isinstance(function, dict):
        raise InvalidRequestError(f"{path}.function must be an object", param=f"{path}.function")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequestError(
            f"{path}.function.name must be a non-empty string", param=f"{path}.function.name"
        )
    if not isinstance(function.get("parameters", {}), dict | None):
        raise InvalidRequestError(
            f"{path}.function.parameters must be a JSON schema, an object",
            param=f"{path}.function.parameters",
        )
    if json_depth_exceeds(function, MAX_NESTING):
        raise InvalidRequestError(
            f"{path}.function.parameters is nested too deeply, must be at most {MAX_NESTING} "
            "levels deep",
            param=f"{path}.function.parameters",
        )
    return True


def tool_choice(
    choice: str | Mapping[str, Any] | None, functions: Sequence[Mapping[str, Any]]
) -> tuple[Literal["auto", "none", "required"], str | None]:
    """What may be called, and the only function that may be, if one is named.

    Args:
        choice: `none`, `auto`, `required`, or an object that names a function.
        functions: those offered.

    Raises:
        InvalidRequestError: the choice is none of these, or asks for a call where none can be.
    """
    match choice:
        case None | "auto":
            return "auto", None
        case "none":
            return "none", None
        case "required":
            if not functions:
                raise InvalidRequestError(
                    "tool_choice is 'required', must be 'none', 'auto' or absent without functions",
                    param="tool_choice",
                )
            return "required", None
    if not isinstance(choice, Mapping) or choice.get("type") != "function":
        raise InvalidRequestError(
            f"tool_choice is {choice!r}, must be one of {', '.join(_CHOICES)}, or name a function",
            param="tool_choice",
        )
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, Mapping) else None
    offered = [each["function"]["name"] for each in functions]
    if name not in offered:
        raise InvalidRequestError(
            f"tool_choice names the function {name!r}, must be one of {', '.join(offered)}",
            param="tool_choice",
        )
    return "required", name


def check_template_names(variables: Mapping[str, Any] | None) -> None:
    """Refuse template variables with the names of what has fields of its own.

    Raises:
        InvalidRequestError: there is one.
    """
    reserved = _TEMPLATE_ARGUMENTS.intersection(variables or ())
    if reserved:
        raise InvalidRequestError(
            f"chat_template_kwargs holds {min(reserved)!r}, which is not for templates to take",
            param="chat_template_kwargs",
        )


def effort_variables(effort: str | None) -> dict[str, Any]:
    """What an effort of reasoning is to chat templates.

    Templates with levels of reasoning read `reasoning_effort`; those that only know on and off
    read `enable_thinking` or `thinking`.

    Args:
        effort: `none` asks for no reasoning at all; None: nothing was said.
    """
    if effort is None:
        return {}
    return {"reasoning_effort": effort, **thinking_variables(effort != "none")}


def thinking_variables(is_on: bool) -> dict[str, Any]:
    """The names under which chat templates read whether to reason."""
    return {"enable_thinking": is_on, "thinking": is_on}


def clamped_logit_bias(biases: Mapping[str, float] | None) -> dict[int, float] | None:
    """Biases by token id, none larger than `MAX_LOGIT_BIAS`.

    Raises:
        InvalidRequestError: a key is not a token id.
    """
    if biases is None:
        return None
    by_id: dict[int, float] = {}
    for key, bias in biases.items():
        # No vocabulary needs more digits, and Python refuses to read very long ones.
        if not (key.isascii() and key.isdecimal() and len(key) < _MAX_DIGITS):
            raise InvalidRequestError(
                f"logit_bias has the key {key!r}, must be a token id such as '17'",
                param="logit_bias",
            )
        by_id[int(key)] = max(-MAX_LOGIT_BIAS, min(MAX_LOGIT_BIAS, bias))
    return by_id
