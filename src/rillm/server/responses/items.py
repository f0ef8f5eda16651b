"""Items of a conversation: checked, named, and told to the model as chat messages.

An item's id holds the id of the response it belongs to, so that a reference to an item is found
without an index of all items.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from rillm.errors import InvalidRequestError, ItemNotFoundError
from rillm.server.responses.tools import CUSTOM_INPUT

Item = dict[str, Any]
"""An item as the protocol has it, JSON types only."""

RESPONSE_PREFIX: Final = "resp_"
PREFIXES: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
ACTIONS: Final = {
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
}
"""Calls of tools that callers run under a type of their own, and where their arguments are."""
SKIPPED: Final = frozenset(
    {
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "computer_call",
        "computer_call_output",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "tool_search_call",
        "tool_search_output",
        "additional_tools",
        "compaction",
        "compaction_trigger",
        "program",
        "program_output",
    }
)
"""What servers with tools of their own have put into a conversation: no model here wrote it."""

_OUTPUTS: Final = (
    "function_call_output",
    "custom_tool_call_output",
    *(f"{kind}_output" for kind in ACTIONS),
)
_ROLES: Final = ("user", "assistant", "system", "developer")
_TEXT_PARTS: Final = ("input_text", "output_text", "text")
_SEAL: Final = "rillm-1."
_RESPONSE_ID: Final = re.compile(RESPONSE_PREFIX + "[0-9a-f]{32}")
_ITEM_ID: Final = re.compile(r"[a-z]+_(?P<response>[0-9a-f]{32})\w*")


def new_response_id() -> str:
    """A random id: whoever knows it can have the response."""
    return RESPONSE_PREFIX + uuid.uuid4().hex


def is_response_id(id: str) -> bool:
    """Whether an id is one that could have been made here."""
    return _RESPONSE_ID.fullmatch(id) is not None


def response_of(item_id: str) -> str | None:
    """The id of the response an item belongs to; None where the id was not made here."""
    found = _ITEM_ID.fullmatch(item_id)
    return None if found is None else RESPONSE_PREFIX + found["response"]


def item_id(response_id: str, kind: str, suffix: str) -> str:
    """An id for an item.

    Args:
        response_id: of the response it belongs to.
        kind: the item's type.
        suffix: unlike that of the response's other items.
    """
    return f"{PREFIXES.get(kind, 'item')}_{response_id.removeprefix(RESPONSE_PREFIX)}{suffix}"


def seal(reasoning: str) -> str:
    """Reasoning as a caller that keeps no state hands it back: opaque, but no secret."""
    return _SEAL + base64.urlsafe_b64encode(reasoning.encode()).decode()


def references(sent: str | Sequence[Item]) -> list[str]:
    """The ids of the items that a request refers to."""
    items = [] if isinstance(sent, str) else sent
    return [str(item.get("id")) for item in items if _kind(item) == "item_reference"]


def read_items(
    sent: str | Sequence[Item],
    *,
    history: Sequence[Item],
    found: Mapping[str, Item],
    new_id: Callable[[str, str], str],
) -> list[Item]:
    """Check the items of a request.

    Args:
        sent: a user's text, or items.
        history: items that go before them.
        found: the items that `references` names, as far as they are kept.
        new_id: makes an id of an item's type and a suffix.

    Returns:
        New items, each with a type and an id; references replaced by what they refer to.

    Raises:
        InvalidRequestError: an item is not acceptable; `param` is its path.
        ItemNotFoundError: an item refers to one that is not kept.
    """
    if isinstance(sent, str):
        sent = [{"role": "user", "content": sent}]
    calls = {item["call_id"] for item in history if "call_id" in item}
    items = []
    for i, each in enumerate(sent):
        path = f"input[{i}]"
        if (kind := _kind(each)) == "item_reference":
            _check_text(each, "id", path)
            if each["id"] not in found:
                raise ItemNotFoundError(
                    f"{path}.id is {each['id']!r}: no such item is kept", param=f"{path}.id"
                )
            item = found[each["id"]]
        else:
            item = _checked(each, kind, path)
            if not isinstance(item.get("id"), str):
                item = {"id": new_id(kind, f"i{i}")} | item
        if item["type"] in _OUTPUTS and item["call_id"] not in calls:
            raise InvalidRequestError(
                f"{path}.call_id is {item['call_id']!r}: no call of that id goes before it",
                param=f"{path}.call_id",
            )
        if "call_id" in item:
            calls.add(item["call_id"])
        items.append(item)
    return items


def _kind(item: Item) -> str:
    """An item's type; messages and references may leave it out."""
    kind = item.get("type")
    if kind is None:
        return "message" if "role" in item else "item_reference" if list(item) == ["id"] else ""
    return kind if isinstance(kind, str) else ""


def _checked(item: Item, kind: str, path: str) -> Item:
    item = {"type": kind} | {key: value for key, value in item.items() if value is not None}
    if kind == "message":
        return item | {"content": _content(item, path)}
    if kind in ("function_call", "custom_tool_call"):
        arguments = "arguments" if kind == "function_call" else "input"
        for name in ("call_id", "name", arguments):
            _check_text(item, name, path)
    elif kind in _OUTPUTS:
        _check_text(item, "call_id", path)
        _output_text(item, path)
    elif kind in ACTIONS:
        _check_text(item, "call_id", path)
        if not isinstance(item.get(ACTIONS[kind]), dict):
            name = f"{path}.{ACTIONS[kind]}"
            raise InvalidRequestError(f"{name} must be an object", param=name)
    elif kind == "reasoning":
        _reasoning(item, path)
    elif kind not in SKIPPED:
        raise InvalidRequestError(
            f"{path}.type is {item['type']!r}, must be a type of item that this server knows",
            param=f"{path}.type",
        )
    return item


def _content(item: Item, path: str) -> list[Item]:
    """The parts of a message."""
    if item.get("role") not in _ROLES:
        raise InvalidRequestError(
            f"{path}.role is {item.get('role')!r}, must be one of {', '.join(_ROLES)}",
            param=f"{path}.role",
        )
    content = item.get("content")
    if isinstance(content, str):
        if item["role"] == "assistant":
            return [{"type": "output_text", "text": content, "annotations": []}]
        return [{"type": "input_text", "text": content}]
    _part_texts(content, f"{path}.content")
    assert isinstance(content, list)
    return content


def _part_texts(content: Any, path: str) -> list[str]:
    """The texts of a list of parts."""
    if not isinstance(content, list):
        raise InvalidRequestError(f"{path} must be a string or a list of parts", param=path)
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in (*_TEXT_PARTS, "refusal"):
            raise InvalidRequestError(
                f"{path}[{i}].type is {kind!r}, must be one of "
                f"{', '.join(_TEXT_PARTS)}, refusal: this model reads text only",
                param=f"{path}[{i}].type",
            )
        name = "refusal" if kind == "refusal" else "text"
        _check_text(part, name, f"{path}[{i}]")
        texts.append(part[name])
    return texts


def _check_text(item: Item, name: str, path: str) -> None:
    if not isinstance(item.get(name), str):
        raise InvalidRequestError(f"{path}.{name} must be a string", param=f"{path}.{name}")


def _output_text(item: Item, path: str) -> str:
    """What came of a call, as text."""
    output = item.get("output")
    if isinstance(output, str):
        return output
    if item["type"] == "shell_call_output":
        return msgspec.json.encode(output).decode()
    return "\n".join(_part_texts(output, f"{path}.output"))


def _reasoning(item: Item, path: str) -> str:
    """The text of a reasoning item: its own, else what was sealed here, else its summary."""
    texts = {}
    for name in ("content", "summary"):
        parts = item.get(name, [])
        if not isinstance(parts, list) or not all(
            isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts
        ):
            raise InvalidRequestError(
                f"{path}.{name} must be a list of parts with a text", param=f"{path}.{name}"
            )
        texts[name] = "\n".join(part["text"] for part in parts)
    return texts["content"] or _unseal(item.get("encrypted_content")) or texts["summary"]


def _unseal(sealed: object) -> str:
    """The reasoning in what `seal` made; empty for what others have encrypted."""
    if not isinstance(sealed, str) or not sealed.startswith(_SEAL):
        return ""
    try:
        return base64.urlsafe_b64decode(sealed.removeprefix(_SEAL)).decode()
    except ValueError:
        return ""


def chat_messages(instructions: str | None, items: Iterable[Item]) -> list[dict[str, Any]]:
    """The conversation as chat messages.

    What a model wrote in one turn becomes one assistant message: its reasoning, its text and its
    calls. What stands before the first turn, by whichever role, becomes one system message, since
    templates take no other there.

    Args:
        instructions: go first.
        items: checked.
    """
    turns = _Turns()
    if instructions is not None:
        turns.say("system", [instructions])
    for item in items:
        turns.add(item)
    return turns.messages


class _Turns:
    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def add(self, item: Item) -> None:
        kind = item["type"]
        if kind == "message":
            texts = _part_texts(item["content"], "content")
            if item["role"] == "assistant":
                self._write("content", "".join(texts))
            else:
                self.say("user" if item["role"] == "user" else "system", texts)
        elif kind == "reasoning":
            self._write("reasoning_content", _reasoning(item, "input"))
        elif kind == "function_call":
            self._call(item["call_id"], item["name"], item["arguments"])
        elif kind == "custom_tool_call":
            self._call(item["call_id"], item["name"], _json({CUSTOM_INPUT: item["input"]}))
        elif kind in ACTIONS:
            name = kind.removesuffix("_call")
            self._call(item["call_id"], name, _json(item[ACTIONS[kind]]))
        elif kind in _OUTPUTS:
            self.messages.append(
                {
                    "role": "tool",
                    "tool_call_id": item["call_id"],
                    "content": _output_text(item, "input"),
                }
            )

    def say(self, role: str, texts: list[str]) -> None:
        last = self.messages[-1] if self.messages else None
        if role == "system" and len(self.messages) == 1 and last and last["role"] == role:
            last["content"] = "\n\n".join([last["content"], *texts])
        elif role == "system" or len(texts) == 1:
            self.messages.append({"role": role, "content": "\n\n".join(texts)})
        else:
            parts = [{"type": "text", "text": text} for text in texts]
            self.messages.append({"role": role, "content": parts})

    def _write(self, name: str, text: str) -> None:
        turn = self._turn()
        if text:
            turn[name] = f"{turn[name]}\n{text}" if turn.get(name) else text

    def _call(self, call_id: str, name: str, arguments: str) -> None:
        function = {"name": name, "arguments": arguments}
        call = {"id": call_id, "type": "function", "function": function}
        self._turn().setdefault("tool_calls", []).append(call)

    def _turn(self) -> dict[str, Any]:
        """The assistant's message that is being written."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": ""})
        return self.messages[-1]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
