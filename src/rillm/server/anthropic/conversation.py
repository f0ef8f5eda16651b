"""A conversation in Anthropic's content blocks to messages as chat templates take them.

What is written depends on a message and those before it only, so a longer conversation begins
with the tokens of the shorter one, and its prefix is found in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from rillm.errors import InvalidRequestError
from rillm.server.anthropic.protocol import (
    Block,
    CountTokensRequest,
    DocumentBlock,
    ImageBlock,
    InputMessage,
    RedactedThinkingBlock,
    ResultBlock,
    TextBlock,
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)

TOOL_ID_PREFIX: Final = "toolu_"
"""Before the ids of calls on the wire; templates get them without, as the model's format wrote
them."""

StripText = Callable[[str], str]


def chat_messages(request: CountTokensRequest, strip: StripText) -> list[dict[str, Any]]:
    """The messages that a chat template renders.

    Messages of one role in a row become one turn, as in Anthropic's API. Texts of a turn are lines
    of one text, since templates that take parts put nothing between them. Results of tools go
    before the text beside them.

    A message of the role `system` within the conversation joins the user's turn it stands at, since
    most templates take only one such message, at the head: it follows the user's text, or where
    there are only results of tools, the last of those. So it neither changes the head of the
    prompt nor opens a turn of its own between a call and what follows.

    Args:
        request: decoded.
        strip: takes out of a system text what changes with every request.

    Returns:
        The system message, if any, and one or more messages for each turn.

    Raises:
        InvalidRequestError: a message is empty, or a block cannot be where it is.
    """
    if not request.messages:
        raise InvalidRequestError(
            "messages is empty, must hold at least one message", param="messages"
        )
    reader = _Reader(strip)
    reader.add_system(request.system)
    for position, message in enumerate(request.messages):
        is_last = position == len(request.messages) - 1
        reader.add(message, f"messages[{position}]", is_last=is_last)
    return reader.finish()


class _Turn:
    """Messages of one role in a row."""

    def __init__(self, role: Literal["user", "assistant"]) -> None:
        self.role = role
        self.texts: list[str] = []
        self.num_notes = 0
        """How many of `texts` came from system messages."""
        self.reasoning: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []

    def messages(self) -> list[dict[str, Any]]:
        if self.role == "assistant":
            return self._assistant()
        texts = self.texts
        if self.results and self.num_notes == len(texts):
            self.results[-1]["content"] += texts
            texts = []
        messages = [each | {"content": "\n".join(each["content"])} for each in self.results]
        if texts or not messages:
            messages.append({"role": "user", "content": "\n".join(texts)})
        return messages

    def _assistant(self) -> list[dict[str, Any]]:
        message: dict[str, Any] = {"role": "assistant", "content": "\n".join(self.texts)}
        if self.reasoning:
            message["reasoning_content"] = "\n".join(self.reasoning)
        if self.calls:
            message["tool_calls"] = self.calls
        return [message]


class _Reader:
    """Collects turns."""

    def __init__(self, strip: StripText) -> None:
        self._strip = strip
        self._system: list[str] = []
        self._turns: list[_Turn] = []
        self._tool_names: dict[str, str] = {}

    def add_system(self, system: str | Sequence[TextBlock] | None) -> None:
        texts = [system] if isinstance(system, str) else [each.text for each in system or ()]
        self._system += filter(None, map(self._strip, texts))

    def add(self, message: InputMessage, path: str, *, is_last: bool) -> None:
        content = message.content
        if isinstance(content, str):
            blocks: list[Block] = [TextBlock(content)] if content else []
        else:
            blocks = content
        if message.role == "system":
            texts = [self._text(each, f"{path}.content[{i}]") for i, each in enumerate(blocks)]
            self._add_note(texts)
        elif blocks:
            turn = self._turn(message.role)
            for position, block in enumerate(blocks):
                self._add_block(turn, block, f"{path}.content[{position}]")
        elif message.role == "user" or not is_last:
            raise InvalidRequestError(
                f"{path}.content is empty, must hold text or blocks", param=f"{path}.content"
            )

    def finish(self) -> list[dict[str, Any]]:
        if not self._turns:
            raise InvalidRequestError(
                "messages holds nothing of a user or an assistant, must hold at least one message",
                param="messages",
            )
        system = [{"role": "system", "content": "\n".join(self._system)}] if self._system else []
        return system + [message for turn in self._turns for message in turn.messages()]

    def _turn(self, role: Literal["user", "assistant"]) -> _Turn:
        if not self._turns or self._turns[-1].role != role:
            self._turns.append(_Turn(role))
        return self._turns[-1]

    def _add_note(self, texts: list[str]) -> None:
        texts = list(filter(None, map(self._strip, texts)))
        if not self._turns:
            self._system += texts
        elif texts:
            turn = self._turn("user")
            turn.texts += texts
            turn.num_notes += len(texts)

    def _add_block(self, turn: _Turn, block: Block, path: str) -> None:
        match block:
            case TextBlock(text):
                turn.texts.append(text)
            case ThinkingBlock(thinking) if turn.role == "assistant":
                if thinking:
                    turn.reasoning.append(thinking)
            case RedactedThinkingBlock() if turn.role == "assistant":
                pass
            case ToolUseBlock() if turn.role == "assistant":
                self._tool_names[block.id] = block.name
                turn.calls.append(_call(block))
            case ToolResultBlock() if turn.role == "user":
                turn.results.append(self._result(block, path))
            case _:
                raise _misplaced(block, turn.role, path)

    def _result(self, block: ToolResultBlock, path: str) -> dict[str, Any]:
        content = block.content or []
        parts: Sequence[ResultBlock] = [TextBlock(content)] if isinstance(content, str) else content
        texts = [self._text(each, f"{path}.content[{i}]") for i, each in enumerate(parts)]
        if block.is_error and not "".join(texts).lower().startswith("error"):
            texts = ["Error: " + "".join(texts[:1]), *texts[1:]]
        message = {
            "role": "tool",
            "tool_call_id": block.tool_use_id.removeprefix(TOOL_ID_PREFIX),
            "content": texts,
        }
        name = self._tool_names.get(block.tool_use_id)
        return message if name is None else message | {"name": name}

    @staticmethod
    def _text(block: Block | ResultBlock, path: str) -> str:
        """The text of a block where only text can be."""
        match block:
            case TextBlock(text):
                return text
            case ToolReferenceBlock(tool_name):
                return tool_name
            case _:
                raise _misplaced(block, "system", path)


def _call(block: ToolUseBlock) -> dict[str, Any]:
    function = {"name": block.name, "arguments": block.input}
    return {
        "id": block.id.removeprefix(TOOL_ID_PREFIX),
        "type": "function",
        "function": function,
    }


def _misplaced(block: Block | ResultBlock, role: str, path: str) -> InvalidRequestError:
    kind = block.__struct_config__.tag
    if isinstance(block, ImageBlock | DocumentBlock):
        reason = "must be 'text': this model reads text only"
    else:
        reason = f"which a message of the role {role!r} cannot hold"
    return InvalidRequestError(f"{path}.type is {kind!r}, {reason}", param=f"{path}.type")
