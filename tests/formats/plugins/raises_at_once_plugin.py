"""A parser whose streaming method always fails; the other one works."""

from vllm.tool_parsers import ToolParser, ToolParserManager
from whole_plugin import CallLineParser


@ToolParserManager.register_module("raises_at_once")
class RaisesAtOnceParser(CallLineParser):
    def extract_tool_calls_streaming(self, *args, **kwargs):
        raise IndexError("list index out of range")


@ToolParserManager.register_module("refuses")
class RefusingParser(ToolParser):
    def __init__(self, tokenizer):
        raise RuntimeError("the tokenizer lacks a token")
