"""Fences of reasoning, and families that frame every message."""

from __future__ import annotations

import json
from typing import Final

from formats.printing import (
    Call,
    Conversation,
    MessageStyle,
    ReasoningStyle,
    Writer,
)
from formats.printing_json import write_object
from formats.printing_tags import raw, write_tags


def _think(*names: str, tokens: bool = True, **options: object) -> ReasoningStyle:
    marks = ("<think>", "</think>")
    return ReasoningStyle(
        names=names,
        open=marks[0],
        close=marks[1],
        tokens=marks if tokens else (),
        **options,  # type: ignore[arg-type]
    )


REASONING: Final = (
    _think("deepseek_r1", "step5", "deepseek_v3", "holo2", "poolside_v1"),
    _think("hy_v3", "hy_v4"),
    _think("deepseek_v4", "deepseek_v41", tokens=False),
    _think("qwen3", "mimo", "step3p5", "nemotron_v3", "granite_thinking_parser", "minicpmv"),
    _think("glm45", "glm47", "ling3"),
    _think("kimi_k2"),
    _think("ernie45", wrap=("<response>\n", "\n</response>\n")),
    _think("step3"),
    _think("olmo3", tokens=False),
    ReasoningStyle(names=("seed_oss",), open="<seed:think>", close="</seed:think>"),
    ReasoningStyle(names=("minimax_m2",), open="", close="</think>", tokens=("</think>",)),
    ReasoningStyle(names=("minimax_m3",), open="<mm:think>", close="</mm:think>"),
    ReasoningStyle(
        names=("gemma4",),
        open="<|channel>thought\n",
        close="<channel|>",
        tokens=("<|channel>", "<channel|>"),
    ),
    ReasoningStyle(
        names=("plamo3",),
        open="<|plamo:begin_think:plamo|>",
        close="<|plamo:end_think:plamo|>",
    ),
    ReasoningStyle(
        names=("hunyuan_a13b",),
        open="<think>\n",
        close="\n</think>\n<answer>\n",
        after="\n</answer>",
        space=("",),
    ),
    ReasoningStyle(
        names=("granite",), open="Here is my thought process:", close="Here is my response:"
    ),
    ReasoningStyle(
        names=("mistral",), open="[THINK]", close="[/THINK]", tokens=("[THINK]", "[/THINK]")
    ),
    ReasoningStyle(names=("k2_horizon",), open="<ifm|think>", close="</ifm|think>"),
)


def _harmony(writer: Writer, conversation: Conversation) -> None:
    choices = writer.choices
    is_first = True

    def start() -> None:
        nonlocal is_first
        if not is_first:
            writer.mark("<|start|>assistant")
        is_first = False

    if conversation.reasoning:
        start()
        writer.mark("<|channel|>analysis<|message|>").text(conversation.reasoning).mark("<|end|>")
    for part in conversation.parts:
        if isinstance(part, str):
            start()
            channel = choices.one_of(("final", "commentary"))
            writer.mark(f"<|channel|>{channel}<|message|>").text(part).mark("<|end|>", "<|return|>")
            continue
        for call in part:
            start()
            recipient = f" to=functions.{call.name}"
            kind = choices.one_of((" <|constrain|>json", "<|constrain|>json", " json", ""))
            if choices.chance(3):
                writer.mark(f"{recipient}<|channel|>commentary{kind}<|message|>")
            else:
                writer.mark(f"<|channel|>commentary{recipient}{kind}<|message|>")
            writer.quoted_json(writer.arguments(call))
            writer.mark("<|call|>", "<|end|>")


def _inkling(writer: Writer, conversation: Conversation) -> None:
    is_first = True

    def block(kind: str) -> None:
        nonlocal is_first
        if not is_first:
            writer.mark("<|message_model|>")
        is_first = False
        writer.mark(kind)

    if conversation.reasoning:
        block("<|content_thinking|>")
        writer.text(conversation.reasoning).mark("<|end_message|>")
    for part in conversation.parts:
        if isinstance(part, str):
            block("<|content_text|>")
            writer.text(part).mark("<|end_message|>")
            continue
        for call in part:
            block("<|content_invoke_tool_json|>")
            write_object(writer, call, arguments=("args", "arguments", "parameters"))
            writer.mark("<|end_message|>")


def _cohere(writer: Writer, conversation: Conversation) -> None:
    if conversation.reasoning:
        writer.mark("<|START_THINKING|>").space("", "\n").text(conversation.reasoning)
        writer.mark("<|END_THINKING|>")
    number = 0
    for part in conversation.parts:
        if isinstance(part, str):
            writer.mark("<|START_RESPONSE|>").space("", "\n").text(part)
            writer.mark("<|END_RESPONSE|>")
            continue
        writer.mark("<|START_ACTION|>").text("[").space("\n", "")
        for i, call in enumerate(part):
            call.id = str(number)
            number += 1
            writer.text(",\n" if i else "")
            writer.quoted_json(
                f'{{"tool_call_id": "{call.id}", "tool_name": {json.dumps(call.name)}, '
                f'"parameters": {writer.arguments(call)}}}'
            )
        writer.space("\n", "").text("]").mark("<|END_ACTION|>")


def _k3_tag(name: str) -> str:
    return f"<|open|>{name}<|sep|>"


def _k3_end(name: str) -> str:
    return f"<|close|>{name}<|sep|>"


_K3_TYPES: Final = {bool: "boolean", int: "number", float: "number", str: "string"}
_K3_CONTAINERS: Final = {type(None): "null", list: "array", dict: "object"}


def _kimi_k3(writer: Writer, conversation: Conversation) -> None:
    if conversation.reasoning:
        writer.mark(_k3_tag("think")).text(conversation.reasoning).mark(_k3_end("think"))
    number = 1
    for part in conversation.parts:
        if isinstance(part, str):
            writer.mark(_k3_tag("response")).text(part).mark(_k3_end("response"))
            continue
        writer.mark(_k3_tag("tools"))
        for call in part:
            writer.mark('<|open|>call tool="').text(call.name).mark(f'" index="{number}"<|sep|>')
            number += 1
            for key, value in call.arguments.items():
                kind = {**_K3_TYPES, **_K3_CONTAINERS}[type(value)]
                writer.mark('<|open|>argument key="').text(key).mark(f'" type="{kind}"<|sep|>')
                writer.text(raw(value)).mark(_k3_end("argument"))
            writer.mark(_k3_end("call"))
        writer.mark(_k3_end("tools"))
    if writer.choices.chance(2):
        writer.mark(_k3_end("message"))


def _muse(content: str) -> object:
    def write(writer: Writer, conversation: Conversation) -> None:
        is_first = True

        def message(recipient: str) -> None:
            nonlocal is_first
            if not is_first:
                writer.mark("<|start|>assistant")
            is_first = False
            writer.mark(f" to={recipient}<|message|>")

        def calls_of(calls: list[Call]) -> None:
            writer.mark("<atem:function_calls>").space("\n", "")
            for call in calls:
                write_tags(
                    writer,
                    call,
                    name=('<atem:invoke name="', '">'),
                    key=('<atem:parameter name="', '">'),
                    close=("</atem:parameter>", "</atem:invoke>"),
                )
                writer.space("\n", "")
            writer.mark("</atem:function_calls>")

        if conversation.reasoning:
            message("self")
            writer.text(conversation.reasoning).mark("<|eom|>")
        for part in conversation.parts:
            if isinstance(part, str):
                message(content)
                writer.text(part)
            else:
                message(f"{part[0].name}.{part[0].name}")
                calls_of(part)
            writer.mark("<|eom|>")

    return write


_ATEM_STOPS: Final = (
    "</atem:parameter>",
    "<atem:parameter",
    "</atem:invoke>",
    "<atem:invoke",
    "</atem:function_calls>",
    "<|eom|>",
    "<|eot|>",
    "<|message|>",
    "<|start|>",
)

MESSAGES: Final = (
    MessageStyle(
        names=("openai",),
        reasoning_names=("openai_gptoss",),
        tokens=(
            "<|start|>",
            "<|channel|>",
            "<|message|>",
            "<|end|>",
            "<|call|>",
            "<|return|>",
            "<|constrain|>",
        ),
        write=_harmony,
    ),
    MessageStyle(
        names=("inkling",),
        reasoning_names=("inkling",),
        tokens=(
            "<|message_model|>",
            "<|content_thinking|>",
            "<|content_text|>",
            "<|content_invoke_tool_json|>",
            "<|end_message|>",
        ),
        write=_inkling,
    ),
    MessageStyle(
        names=("cohere_command3", "cohere_command4"),
        reasoning_names=("cohere_command3", "cohere_command4"),
        tokens=(
            "<|START_THINKING|>",
            "<|END_THINKING|>",
            "<|START_RESPONSE|>",
            "<|END_RESPONSE|>",
            "<|START_ACTION|>",
            "<|END_ACTION|>",
        ),
        write=_cohere,
    ),
    MessageStyle(
        names=("kimi_k3",),
        reasoning_names=("kimi_k3",),
        tokens=("<|open|>", "<|close|>", "<|sep|>"),
        values="typed",
        stops=("<|close|>", "<|open|>", "<|sep|>"),
        write=_kimi_k3,
    ),
    MessageStyle(
        names=("muse", "musespark1x"),
        reasoning_names=("muse", "musespark1x"),
        tokens=("<|start|>", "<|message|>", "<|eom|>", "<|eot|>"),
        values="typed",
        stops=_ATEM_STOPS,
        write=_muse("user"),  # type: ignore[arg-type]
    ),
    MessageStyle(
        names=("muse_glimmer",),
        reasoning_names=("muse_glimmer",),
        tokens=("<|start|>", "<|message|>", "<|eom|>", "<|eot|>"),
        values="typed",
        stops=_ATEM_STOPS,
        write=_muse("user"),  # type: ignore[arg-type]
    ),
)
