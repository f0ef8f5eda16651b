"""rillm's formats inside vLLM: what its server would send is what rillm itself sends.

Runs where `RILLM_VLLM_PYTHON` names the interpreter of an environment that has vLLM.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from formats.folding import events_of, fold

import rillm
from rillm.formats.description import Format
from rillm.formats.registry import all_formats, combine, tool_formats

PYTHON = os.environ.get("RILLM_VLLM_PYTHON", "")
VECTORS = Path(__file__).parent / "vectors"
TOOLS = json.loads((VECTORS / "tools.json").read_text(encoding="utf-8"))
SIZES = (1, 5, 10_000)

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="RILLM_VLLM_PYTHON is not set"),
    pytest.mark.timeout(600),
]

HERMES = '<tool_call>\n{"name": "tide", "arguments": {"port": "Brest"}}\n</tool_call>'
GLM = "<tool_call>tide\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>"
KIMI = next(each.example for each in all_formats() if "kimi_k3" in each.names)
HARMONY = next(each.example for each in all_formats() if "openai" in each.names)
OPEN = "<|im_start|>user\n<think>no</think><|im_end|>\n<|im_start|>assistant\n<think>\n"
SHUT = OPEN + "\n</think>\n\n"
BARE = "<|im_start|>assistant\n"

COMPOSED: list[tuple[str | None, str, str, str]] = [
    ("hermes", "qwen3", OPEN, f"look\n</think>\n\nI ask. {HERMES}\n{HERMES}"),
    ("hermes", "qwen3", OPEN, f"look\n</think>\n\n{HERMES}"),
    ("hermes", "qwen3", OPEN, "look\n</think>\n\n3 < 5"),
    ("hermes", "qwen3", OPEN, "only thoughts <"),
    ("hermes", "qwen3", BARE, "<think>\nlook\n</think>\n\nHi <"),
    ("glm45", "glm45", OPEN, f"look</think>\n{GLM}"),
    (None, "qwen3", OPEN, "look\n</think>\n\nHi <tool_call>"),
    ("kimi_k3", "kimi_k3", "", "look<|close|>think<|sep|><|open|>response<|sep|>Hi"),
    ("kimi_k3", "kimi_k3", "", KIMI),
    ("openai", "openai_gptoss", "", HARMONY),
    (None, "muse", "", " to=self<|message|>look<|eom|><|start|>assistant to=user<|message|>Hi"),
]
"""Tool half, reasoning half, prompt, output."""


def _is_fixed(format: Format) -> bool:
    """Whether no checkpoint has to describe it."""
    return any((format.calls, format.reasoning, format.header))


def _vector_cases() -> list[dict[str, Any]]:
    """The vectors of tool halves that vLLM can have: tools, a whole output, no start of its own."""
    cases = []
    for path in sorted(VECTORS.glob("*.toml")):
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        name = data["tool"][0] if isinstance(data.get("tool"), list) else data.get("tool")
        if not name or not _is_fixed(tool_formats()[name]):
            continue
        for case in data["case"]:
            tools = case.get("tools", TOOLS)
            if tools and not {"start", "is_cut"} & case.keys():
                whole = {"tool": name, "reasoning": None, "prompt": "", "tools": tools}
                cases.append(whole | {"text": case["text"]})
    return cases


def _cases() -> list[dict[str, Any]]:
    composed = [
        {"tool": tool, "reasoning": reasoning, "prompt": prompt, "text": text, "tools": TOOLS}
        for tool, reasoning, prompt, text in COMPOSED
    ]
    return [
        case | {"size": size}
        for case in _vector_cases() + composed
        for size in SIZES
        if case["text"]
    ]


CASES = _cases() if PYTHON else []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "cases.json").write_text(json.dumps(CASES), encoding="utf-8")
    package = Path(rillm.__file__).parent
    arguments = (package / "bundled" / "tokenizer.json", folder / "cases.json", folder / "out.json")
    subprocess.run(
        [PYTHON, str(Path(__file__).with_name("vllm_side.py")), *map(str, arguments)],
        check=True,
        env=os.environ | {"PYTHONPATH": str(package.parent), "VLLM_LOGGING_LEVEL": "ERROR"},
        timeout=500,
    )
    found: dict[str, Any] = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return found


def _expected(case: dict[str, Any]) -> dict[str, Any]:
    format = combine(case["tool"], case["reasoning"])
    start = {OPEN: "reasoning", SHUT: "content"}.get(case["prompt"])
    answer = fold(events_of(format, [case["text"]], case["tools"] or (), start=start))
    return {
        "content": answer.content,
        "reasoning": answer.reasoning,
        "calls": [[each.name, each.arguments] for each in answer.calls],
    }


def test_every_format_is_registered(results: dict[str, Any]) -> None:
    formats = [each for each in all_formats() if _is_fixed(each)]
    assert results["tool"] == sorted(f"rillm_{name}" for each in formats for name in each.names)
    names = [name for each in formats for name in each.reasoning_names]
    assert results["reasoning"] == sorted(f"rillm_{name}" for name in names)


def test_the_stream_is_what_rillm_streams(results: dict[str, Any]) -> None:
    wrong = [
        (case, got["stream"], expected)
        for case, got in zip(CASES, results["cases"], strict=True)
        if got["stream"] != (expected := _expected(case))
    ]
    assert not wrong


def test_the_whole_is_what_was_streamed(results: dict[str, Any]) -> None:
    for case, got in zip(CASES, results["cases"], strict=True):
        whole, streamed = got["whole"], got["stream"]
        if case["prompt"] in (OPEN, SHUT):
            # Here vLLM shows the prompt to parsers of streams only.
            continue
        if not case["reasoning"]:
            # A tool parser has no way to return reasoning; text without markup is content.
            is_plain = streamed["reasoning"].strip() == case["text"].strip()
            content = case["text"] if is_plain else streamed["content"]
            streamed = {**streamed, "content": content, "reasoning": ""}
        if streamed["calls"] and not streamed["content"].strip():
            # vLLM itself drops blank content beside calls.
            streamed = {**streamed, "content": ""}
        assert whole == streamed, case


def test_special_tokens_stay_in_the_text(results: dict[str, Any]) -> None:
    assert all(each["special_tokens"] for each in results["cases"])


def test_a_parser_of_vllm_itself_crosses_the_bridge(results: dict[str, Any]) -> None:
    for events in results["bridge"]:
        content = "".join(event[1] for event in events if event[0] == "ContentDelta")
        names = [event[3] for event in events if event[0] == "ToolCallBegin"]
        ended = [event[1] for event in events if event[0] == "ToolCallEnd"]
        arguments = ["", ""]
        for event in events:
            if event[0] == "ToolCallArguments":
                arguments[event[1]] += event[2]
        assert (content.strip(), names, ended) == ("Hi", ["tide", "moon"], [0, 1])
        assert arguments == ['{"port": "Brest"}', "{}"]
