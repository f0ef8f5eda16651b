"""A plug-in that builds on a parser of vLLM's own."""

from vllm.tool_parsers.hermes_tool_parser import Hermes2ProToolParser

Hermes = Hermes2ProToolParser
