"""A tool parser as people write them for vLLM: `<call:NAME>JSON</call>`, streamed."""

import re
from collections.abc import Sequence

from vllm.entrypoints.openai.protocol import (
    ChatCompletionRequest,
    DeltaFunctionCall,
    DeltaMessage,
    DeltaToolCall,
    ExtractedToolCallInformation,
    FunctionCall,
    ToolCall,
)
from vllm.entrypoints.openai.tool_parsers.abstract_tool_parser import (
    ToolParser,
    ToolParserManager,
)
from vllm.logger import init_logger
from vllm.transformers_utils.tokenizer import AnyTokenizer
from vllm.utils import random_uuid

logger = init_logger(__name__)

START, END = "<call:", "</call>"


@ToolParserManager.register_module(["call_tags", "call_tags_alias"])
class CallTagsParser(ToolParser):
    def __init__(self, tokenizer: AnyTokenizer):
        super().__init__(tokenizer)
        self.newline_id = self.vocab.get("\n")
        self.pattern = re.compile(r"<call:(\w+)>(.*?)</call>", re.DOTALL)
        self.position = 0
        self.seen_ids: list[int] = []

    def adjust_request(self, request: ChatCompletionRequest) -> ChatCompletionRequest:
        if request.tools and request.tool_choice != "none":
            request.skip_special_tokens = False
        return request

    def extract_tool_calls(
        self, model_output: str, request: ChatCompletionRequest
    ) -> ExtractedToolCallInformation:
        found = self.pattern.findall(model_output)
        if not found:
            return ExtractedToolCallInformation(
                tools_called=False, tool_calls=[], content=model_output
            )
        calls = [
            ToolCall(type="function", function=FunctionCall(name=name, arguments=arguments))
            for name, arguments in found
        ]
        content = model_output[: model_output.index(START)]
        return ExtractedToolCallInformation(
            tools_called=True, tool_calls=calls, content=content or None
        )

    def extract_tool_calls_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
        request: ChatCompletionRequest,
    ) -> DeltaMessage | None:
        assert current_text == previous_text + delta_text
        assert list(current_token_ids) == [*previous_token_ids, *delta_token_ids]
        self.seen_ids += delta_token_ids
        content, calls = "", []
        while True:
            text = current_text[self.position :]
            if self.current_tool_name_sent:
                end = text.find(END)
                shown = text[: end if end >= 0 else _safe(text, END)]
                if shown:
                    calls.append(self._delta(DeltaFunctionCall(arguments=shown)))
                self.position += len(shown)
                if end < 0:
                    break
                self.position += len(END)
                self.current_tool_name_sent = False
                continue
            start = text.find(START)
            content += text[: start if start >= 0 else _safe(text, START)]
            self.position += start if start >= 0 else _safe(text, START)
            name_end = text.find(">", start)
            if start < 0 or name_end < 0:
                break
            self.current_tool_id += 1
            self.current_tool_name_sent = True
            name = text[start + len(START) : name_end]
            self.position += name_end + 1 - start
            calls.append(self._delta(DeltaFunctionCall(name=name), f"plug-{random_uuid()}"))
        if not content and not calls:
            return None
        return DeltaMessage(content=content or None, tool_calls=calls)

    def _delta(self, function: DeltaFunctionCall, call_id: str | None = None) -> DeltaToolCall:
        return DeltaToolCall(
            index=self.current_tool_id,
            type="function",
            id=call_id,
            function=function.model_dump(exclude_none=True),
        )


def _safe(text: str, marker: str) -> int:
    """How much of `text` is certainly no part of the marker."""
    for length in range(len(marker) - 1, 0, -1):
        if text.endswith(marker[:length]):
            return len(text) - length
    return len(text)
