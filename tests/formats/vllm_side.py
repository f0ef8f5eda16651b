"""Runs in an environment with vLLM: parses texts with `rillm.vllm_plugin` as vLLM would.

Usage: vllm_side.py TOKENIZER_FILE CASES.json RESULTS.json. A case has `text`, `tools`, `tool` and
`reasoning` (names, or null), `prompt` and `size` (characters in a delta). Its result has what was
folded from the deltas, and from the whole.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser.parser_manager import ParserManager
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager

import rillm
from rillm.parsers.plugin import load_plugin

PLUGINS = Path(__file__).parent / "plugins"
BRIDGED = """Hi <tool_call>
{"name": "tide", "arguments": {"port": "Brest"}}
</tool_call>
<tool_call>
{"name": "moon", "arguments": {}}
</tool_call>"""


def main(tokenizer_file: str, cases_file: str, results_file: str) -> None:
    # The two ways in which the flags name a plug-in.
    ToolParserManager.import_tool_parser("rillm.vllm_plugin")
    plugin_file = Path(rillm.__file__).parent / "vllm_plugin.py"
    ReasoningParserManager.import_reasoning_parser(str(plugin_file))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=tokenizer_file)
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    results = {
        "tool": [each for each in ToolParserManager.list_registered() if "rillm_" in each],
        "reasoning": [
            each for each in ReasoningParserManager.list_registered() if "rillm_" in each
        ],
        "cases": [run(case, tokenizer) for case in cases],
        "bridge": [run_bridge(size, tokenizer) for size in (1, 7, 1000)],
    }
    Path(results_file).write_text(json.dumps(results), encoding="utf-8")


def run(case: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    request = ChatCompletionRequest(
        model="m",
        messages=[{"role": "user", "content": "?"}],
        tools=case["tools"],
        tool_choice="auto",
    )
    parser_class = ParserManager.get_parser(
        tool_parser_name=case["tool"] and f"rillm_{case['tool']}",
        reasoning_parser_name=case["reasoning"] and f"rillm_{case['reasoning']}",
        enable_auto_tools=True,
        tokenizer=tokenizer,
    )
    assert parser_class is not None
    adjusted = parser_class(tokenizer, request.tools).adjust_request(request)
    text, size = case["text"], case["size"]
    parser = parser_class(tokenizer, request.tools)
    prompt_ids = tokenizer.encode(case["prompt"])
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    messages = [
        parser.parse_delta(
            piece, tokenizer.encode(piece), request, prompt_ids, finished=number == len(pieces)
        )
        for number, piece in enumerate(pieces, start=1)
    ]
    parser = parser_class(tokenizer, request.tools)
    reasoning, content, calls = parser.parse(text, request, enable_auto_tools=True)
    return {
        "special_tokens": not adjusted.skip_special_tokens,
        "stream": fold([each for each in messages if each is not None]),
        "whole": {
            "content": content or "",
            "reasoning": reasoning or "",
            "calls": [[call.name, call.arguments] for call in calls or ()],
        },
    }


def run_bridge(size: int, tokenizer: Any) -> list[list[Any]]:
    """What the bridge makes of a parser of vLLM's own: its events, as lists."""
    plugin = load_plugin(str(PLUGINS / "needs_vllm_plugin.py"), "hermes", tokenizer)
    bridge = plugin.choice(plugin.request({"messages": []}))
    pieces = [BRIDGED[i : i + size] for i in range(0, len(BRIDGED), size)]
    events = [event for piece in pieces for event in bridge.feed(piece, tokenizer.encode(piece))]
    assert bridge.faults == 0
    events += bridge.finish()
    return [[type(event).__name__, *dataclasses.astuple(event)] for event in events]


def fold(messages: list[Any]) -> dict[str, Any]:
    content = "".join(each.content or "" for each in messages)
    reasoning = "".join(each.reasoning or "" for each in messages)
    calls: list[list[str]] = []
    for delta in (call for each in messages for call in each.tool_calls):
        if delta.index == len(calls):
            assert delta.id
            assert delta.type == "function"
            calls.append([delta.function.name, ""])
        else:
            assert delta.index == len(calls) - 1
            assert delta.id is None
            assert delta.function.name is None
        calls[-1][1] += delta.function.arguments or ""
    return {"content": content, "reasoning": reasoning, "calls": calls}


if __name__ == "__main__":
    main(*sys.argv[1:])
