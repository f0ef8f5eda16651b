"""The tools of a Responses request as chat has them.

Callers run functions and custom tools, so both can be offered: a custom tool is, to the model, a
function with one string. What a server would run itself is left out, as other servers do: agents
offer it to everybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rillm.errors import InvalidRequestError

CUSTOM_INPUT: Final = "input"
"""The one argument of a custom tool."""

_MODES: Final = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class ChatTools:
    """What a chat request says about tools."""

    offered: list[dict[str, Any]] | None = None
    """None where there are none that a caller runs."""
    choice: str | dict[str, Any] | None = None
    custom: frozenset[str] = frozenset()
    """Names of those that are custom tools."""


def read_chat_tools(
    tools: Sequence[Mapping[str, Any]] | None, choice: str | Mapping[str, Any] | None
) -> ChatTools:
    """Translate `tools` and `tool_choice`.

    Raises:
        InvalidRequestError: one of them is not acceptable; `param` names it.
    """
    offered: dict[str, dict[str, Any]] = {}
    custom = set()
    for i, tool in enumerate(tools or ()):
        path = f"tools[{i}]"
        kind = tool.get("type")
        if not isinstance(kind, str):
            raise InvalidRequestError(f"{path}.type must be a string", param=f"{path}.type")
        if kind not in ("function", "custom"):
            continue
        name = _name(tool, path)
        if kind == "custom":
            custom.add(name)
        function = _custom(tool, name) if kind == "custom" else _function(tool, name, path)
        offered[name] = {"type": "function", "function": function}
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        offered, choice = _allowed(choice, offered)
    return ChatTools(
        list(offered.values()) or None, _choice(choice, offered), frozenset(custom & offered.keys())
    )


def _name(tool: Mapping[str, Any], path: str) -> str:
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequestError(f"{path}.name must be a non-empty string", param=f"{path}.name")
    return name


def _function(tool: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    if not isinstance(tool.get("parameters"), dict | None):
        raise InvalidRequestError(
            f"{path}.parameters must be a JSON schema, an object", param=f"{path}.parameters"
        )
    # What says no more than its absence is not for the prompt.
    keys = ("description", "parameters", "strict")
    return {"name": name} | {key: tool[key] for key in keys if tool.get(key)}


def _custom(tool: Mapping[str, Any], name: str) -> dict[str, Any]:
    format = tool.get("format")
    description = tool.get("description")
    texts = [description] if isinstance(description, str) else []
    if isinstance(format, Mapping) and isinstance(format.get("definition"), str):
        # The model cannot be held to it, but it can be told.
        texts.append(f"The input follows this grammar:\n{format['definition']}")
    return {
        "name": name,
        "description": "\n\n".join(texts),
        "parameters": {
            "type": "object",
            "properties": {CUSTOM_INPUT: {"type": "string"}},
            "required": [CUSTOM_INPUT],
        },
    }


def _allowed(
    choice: Mapping[str, Any], offered: Mapping[str, dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], str]:
    """The part of the tools that a choice allows, and how they may be called."""
    mode, tools = choice.get("mode", "auto"), choice.get("tools")
    if mode not in ("auto", "required"):
        raise InvalidRequestError(
            f"tool_choice.mode is {mode!r}, must be 'auto' or 'required'", param="tool_choice.mode"
        )
    if not isinstance(tools, list) or not all(isinstance(each, dict) for each in tools):
        raise InvalidRequestError(
            "tool_choice.tools must be a list of objects", param="tool_choice.tools"
        )
    names = {each["name"] for each in tools if isinstance(each.get("name"), str)}
    return {name: tool for name, tool in offered.items() if name in names}, mode


def _choice(
    choice: str | Mapping[str, Any] | None, offered: Mapping[str, Any]
) -> str | dict[str, Any] | None:
    """A choice as chat has it; what it may be is checked where that is checked for chat."""
    if isinstance(choice, str):
        if choice not in _MODES:
            raise InvalidRequestError(
                f"tool_choice is {choice!r}, must be one of {', '.join(_MODES)}, or an object",
                param="tool_choice",
            )
        return choice
    if choice is None:
        return None
    kind, name = choice.get("type"), choice.get("name")
    if kind not in ("function", "custom") or not isinstance(name, str) or name not in offered:
        raise InvalidRequestError(
            f"tool_choice is a {kind!r} named {name!r}, must be one of the functions and custom "
            f"tools: {', '.join(offered) or 'none are offered'}",
            param="tool_choice",
        )
    return {"type": "function", "function": {"name": name}}
