"""A parser that fails where the text has an exclamation mark."""

from streaming_plugin import CallTagsParser
from vllm.tool_parsers import ToolParserManager


@ToolParserManager.register_module("raises_midway")
class RaisesMidwayParser(CallTagsParser):
    def extract_tool_calls_streaming(self, previous_text, current_text, delta_text, *rest):
        if "!" in current_text:
            raise KeyError("!")
        return super().extract_tool_calls_streaming(previous_text, current_text, delta_text, *rest)
