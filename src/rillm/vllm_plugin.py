"""rillm's formats as parsers of vLLM: for `--tool-parser-plugin` and `--reasoning-parser-plugin`.

Importing this module registers every tool format as tool parser `rillm_<name>`, and every
reasoning format as reasoning parser `rillm_<name>`. It runs inside vLLM, needs it, and needs
nothing else of rillm than its formats. Written for vLLM 0.32 and 0.33.

Parsers see text alone, in the stream and in the whole, so that both say the same; markers count
wherever the text has them. vLLM calls `finish_streaming` of parsers that declare
`engine_based_streaming`: it gives what was held back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from vllm.entrypoints.generate.base.protocol import (  # type: ignore[import-not-found]
    DeltaFunctionCall,
    DeltaMessage,
    DeltaToolCall,
    ExtractedToolCallInformation,
    FunctionCall,
    ToolCall,
)
from vllm.reasoning import (  # type: ignore[import-not-found]
    ReasoningParser,
    ReasoningParserManager,
)
from vllm.tool_parsers import (  # type: ignore[import-not-found]
    ToolParser,
    ToolParserManager,
)

from rillm.formats.description import Format
from rillm.formats.events import (
    ContentDelta,
    ReasoningDelta,
    StreamEvent,
    ToolCallArguments,
    ToolCallBegin,
)
from rillm.formats.machine import Machine
from rillm.formats.registry import combine, reasoning_formats, tool_formats

PREFIX: Final = "rillm_"
_PROMPT_END: Final = 1024
"""Tokens at the end of a prompt in which the fences of its last turn are looked for."""
_FENCE: Final = 16
"""Tokens before a delta in which a fence can begin."""


@dataclass(slots=True)
class _Call:
    """What events add to one call; no id and name if they came before."""

    id: str | None = None
    name: str | None = None
    arguments: str = ""


class _Fold:
    """Events put together: one delta, or a whole answer."""

    def __init__(self, events: Iterable[StreamEvent]) -> None:
        self.content = ""
        self.reasoning = ""
        self.calls: dict[int, _Call] = {}
        for event in events:
            match event:
                case ContentDelta(text):
                    self.content += text
                case ReasoningDelta(text):
                    self.reasoning += text
                case ToolCallBegin(index, call_id, name):
                    self.calls[index] = _Call(call_id, name)
                case ToolCallArguments(index, fragment):
                    self.calls.setdefault(index, _Call()).arguments += fragment

    def delta(self) -> Any:
        """The events as one `DeltaMessage`; None if there are none."""
        if not (self.content or self.reasoning or self.calls):
            return None
        return DeltaMessage(
            content=self.content or None,
            reasoning=self.reasoning or None,
            tool_calls=[
                DeltaToolCall(
                    index=index,
                    id=call.id,
                    type=None if call.name is None else "function",
                    function=DeltaFunctionCall(name=call.name, arguments=call.arguments),
                )
                for index, call in self.calls.items()
            ],
        )


def _with_special_tokens(request: Any) -> Any:
    """A request whose text holds the markers that are special tokens."""
    request.skip_special_tokens = False
    return request


class RillmToolParser(ToolParser):  # type: ignore[misc]
    """A tool format; a format that cannot be taken apart gives its reasoning, too."""

    engine_based_streaming = True
    format: ClassVar[Format]

    def __init__(self, tokenizer: Any, tools: Any = None, **_: Any) -> None:
        """Start a choice; as vLLM makes its parsers."""
        super().__init__(tokenizer, tools)
        self._machine: Machine | None = None

    def adjust_request(self, request: Any) -> Any:
        """Keep special tokens in the text, if there are tools to call."""
        request = super().adjust_request(request)
        has_calls = request.tools and request.tool_choice != "none"
        return _with_special_tokens(request) if has_calls or not self.format.mixes else request

    def extract_tool_calls(self, model_output: str, request: Any) -> Any:
        """Parse a whole output."""
        machine = self._new_machine(request)
        whole = _Fold(machine.feed(model_output) + machine.finish())
        calls = [
            ToolCall(id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments))
            for call in whole.calls.values()
        ]
        content = whole.content
        if not calls and whole.reasoning.strip() == model_output.strip():
            # No markup at all: the reasoning parser has taken it off already.
            content = model_output
        return ExtractedToolCallInformation(
            tools_called=bool(calls), tool_calls=calls, content=content or None
        )

    def extract_tool_calls_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
        request: Any,
    ) -> Any:
        """Parse a delta; only its text is read."""
        if self._machine is None:
            self._machine = self._new_machine(request)
        return self._delta(self._machine.feed(delta_text))

    def finish_streaming(self) -> Any:
        """What was held back, when nothing follows."""
        return None if self._machine is None else self._delta(self._machine.finish())

    def _new_machine(self, request: Any) -> Machine:
        tools = getattr(request, "tools", None) or self.tools
        return Machine(
            self.format,
            [tool if isinstance(tool, dict) else tool.model_dump() for tool in tools],
            parallel_tool_calls=getattr(request, "parallel_tool_calls", None) is not False,
        )

    def _delta(self, events: list[StreamEvent]) -> Any:
        # vLLM reads these; with nothing in them it finds nothing that was not streamed.
        for event in events:
            if isinstance(event, ToolCallBegin):
                self.current_tool_id = event.index
                self.current_tool_name_sent = True
                self.prev_tool_call_arr.append({"name": event.name, "arguments": ""})
                self.streamed_args_for_tool.append("")
        return _Fold(events).delta()


class RillmReasoningParser(ReasoningParser):  # type: ignore[misc]
    """A reasoning format; what follows reasoning is content, calls included.

    A format that cannot be taken apart gives its calls, too: without the functions' schemas,
    which vLLM shows to tool parsers only.
    """

    engine_based_streaming = True
    format: ClassVar[Format]

    def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        """Start a choice; as vLLM makes its parsers."""
        super().__init__(tokenizer, *args, **kwargs)
        switches = kwargs.get("chat_template_kwargs") or {}
        is_off = False in (switches.get("enable_thinking"), switches.get("thinking"))
        self._start: Literal["content"] | None = "content" if is_off and self.format.mixes else None
        self._machine = Machine(self.format, start=self._start)
        self._has_ended = False

    @property
    def reasoning_start_str(self) -> str | None:
        """The usual marker before reasoning."""
        return self._first("open")

    @property
    def reasoning_end_str(self) -> str | None:
        """The usual marker after reasoning."""
        return self._first("close")

    def adjust_request(self, request: Any) -> Any:
        """Keep special tokens in the text."""
        return _with_special_tokens(request)

    def adjust_initial_state_from_prompt(self, prompt_token_ids: Sequence[int]) -> None:
        """Start inside reasoning if the prompt has opened it."""
        if self.format.mixes and self._last_fence(prompt_token_ids[-_PROMPT_END:]) == "open":
            self._machine = Machine(self.format, start="reasoning")

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        """Whether the last turn in these tokens has closed its reasoning."""
        return self.format.mixes and self._last_fence(input_ids[-_PROMPT_END:]) == "close"

    def is_reasoning_end_streaming(
        self, input_ids: Sequence[int], delta_ids: Iterable[int]
    ) -> bool:
        """Whether the last of these tokens close reasoning."""
        length = sum(1 for _ in delta_ids) + _FENCE
        return self.format.mixes and self._last_fence(input_ids[-length:]) == "close"

    def has_engine_confirmed_reasoning_end(self) -> bool:
        """Whether the answer has begun; whitespace after the fence belongs to the fence."""
        return self._has_ended

    def extract_content_ids(self, input_ids: list[int]) -> list[int]:
        """The tokens after reasoning."""
        start = bisect_left(
            range(len(input_ids)), True, key=lambda start: not self._has_close(input_ids[start:])
        )
        return input_ids[start:] if start or self._has_ended else []

    def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
        """Parse a whole output; returns its reasoning, and the content or what calls are in."""
        machine = Machine(self.format, start=self._start)
        whole = _Fold(machine.feed(model_output) + machine.finish())
        # The tool parser of such a format reads the whole.
        has_calls = bool(whole.calls) and not self.format.mixes
        return whole.reasoning or None, (model_output if has_calls else whole.content) or None

    def extract_reasoning_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
    ) -> Any:
        """Parse a delta; only its text is read."""
        fold = _Fold(self._machine.feed(delta_text))
        if fold.content and self.format.mixes and not self._machine.is_reasoning:
            self._has_ended = True
        return fold.delta()

    def finish_streaming(self) -> Any:
        """What was held back, when nothing follows, or all else goes to the tool parser."""
        return _Fold(self._machine.finish()).delta()

    def _first(self, side: Literal["open", "close"]) -> str | None:
        fences = getattr(self.format.reasoning, side, ())
        return fences[0].strip() if fences else None

    def _decode(self, token_ids: Sequence[int]) -> str:
        text: str = self.model_tokenizer.decode(list(token_ids), skip_special_tokens=False)
        return text

    def _has_close(self, token_ids: Sequence[int]) -> bool:
        text = self._decode(token_ids)
        return any(marker in text for marker in getattr(self.format.reasoning, "close", ()))

    def _last_fence(self, token_ids: Sequence[int]) -> Literal["open", "close"] | None:
        """The last fence in the last turn of these tokens."""
        reasoning = self.format.reasoning
        if reasoning is None:
            return None
        text = self._decode(token_ids)
        turn, opened, closed = (
            max((text.rfind(marker) for marker in markers), default=-1)
            for markers in (self.format.turn, reasoning.open, reasoning.close)
        )
        if turn >= max(opened, closed):
            return None
        return "open" if opened > closed else "close"


def _is_fixed(format: Format) -> bool:
    """Whether the format is known without a checkpoint that describes it."""
    return bool(format.calls or format.reasoning or format.header)


def register() -> None:
    """Register all formats with vLLM's managers."""
    for name, whole in tool_formats().items():
        if _is_fixed(whole):
            parser = type(f"RillmTool_{name}", (RillmToolParser,), {"format": combine(name, None)})
            ToolParserManager.register_module(PREFIX + name, module=parser)
    for name, whole in reasoning_formats().items():
        if _is_fixed(whole):
            parser = type(
                f"RillmReasoning_{name}", (RillmReasoningParser,), {"format": combine(None, name)}
            )
            ReasoningParserManager.register_module(PREFIX + name, module=parser)


register()
