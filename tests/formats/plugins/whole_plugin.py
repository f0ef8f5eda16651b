"""A parser without a streaming method, with the newer imports and `tools`."""

import json

from vllm.entrypoints.generate.base.protocol import (
    ExtractedToolCallInformation,
    FunctionCall,
    ToolCall,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.tokenizers import TokenizerLike
from vllm.tool_parsers.abstract_tool_parser import Tool, ToolParser, ToolParserManager


@ToolParserManager.register_module("call_line")
class CallLineParser(ToolParser):
    def __init__(self, tokenizer: TokenizerLike, tools: list[Tool] | None = None):
        super().__init__(tokenizer, tools)

    def extract_tool_calls(
        self, model_output: str, request: ChatCompletionRequest
    ) -> ExtractedToolCallInformation:
        offered = {tool.function.name for tool in self.tools}
        content, _, line = model_output.partition("CALL ")
        if not line:
            return ExtractedToolCallInformation(tools_called=False, tool_calls=[], content=None)
        written = json.loads(line)
        assert written["name"] in offered
        function = FunctionCall(
            name=written["name"], arguments=json.dumps(written["arguments"], ensure_ascii=False)
        )
        return ExtractedToolCallInformation(
            tools_called=True, tool_calls=[ToolCall(function=function)], content=content
        )
