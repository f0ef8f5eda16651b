"""What a conversation in content blocks is to the engine: what chat makes of the same one."""

from __future__ import annotations

from typing import Any

import pytest
from messages_script import COUNT, FORMATS, HELLO, MESSAGES, TIDE_TOOL
from scripted_engine import BUNDLED_TOKENIZER, ScriptedEngine, call, call_app, delta, new_app

from rillm.errors import ConfigError
from rillm.server.options import HttpOptions

CHAT = "/v1/chat/completions"
FUNCTION = {
    "type": "function",
    "function": {
        "name": "tide",
        "description": "When the tide is high.",
        "parameters": TIDE_TOOL["input_schema"],
    },
}
BILLING = "x-anthropic-billing-header: cc_version=2.1.100.7b4; cc_entrypoint=cli; cch=eb6c6;"
OTHER_BILLING = BILLING.replace("eb6c6", "74943")


def text(content: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": content, **fields}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def use(id: str, port: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{id}", "name": "tide", "input": {"port": port}}


def result(id: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": f"toolu_{id}", "content": content, **fields}


def calls(*ids_and_ports: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "id": id,
            "type": "function",
            "function": {"name": "tide", "arguments": f'{{"port": "{port}"}}'},
        }
        for id, port in ids_and_ports
    ]


async def prompt_ids(path: str, options: HttpOptions | None = None, **fields: Any) -> list[int]:
    """What the engine gets to continue."""
    engine = ScriptedEngine([delta(0, "a", finish="stop")])
    engine.formats = FORMATS
    body = {"max_tokens": 9} | fields
    answer = await call_app(new_app(engine, options), path, body)
    assert answer.status == 200, answer.body
    return engine.seen[0][0]["prompt_token_ids"]


async def prompt(options: HttpOptions | None = None, **fields: Any) -> str:
    token_ids = await prompt_ids(MESSAGES, options, **fields)
    return BUNDLED_TOKENIZER.decode(token_ids, skip_special_tokens=False)


SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": ({"messages": HELLO}, {"messages": HELLO}),
    "blocks": (
        {"messages": [user(text("a", cache_control={"type": "ephemeral"}), text("b"))]},
        {"messages": [{"role": "user", "content": "a\nb"}]},
    ),
    "system": (
        {"messages": HELLO, "system": "Be brief."},
        {"messages": [{"role": "system", "content": "Be brief."}, *HELLO]},
    ),
    "system blocks": (
        {"messages": HELLO, "system": [text("Be brief."), text("Be kind.")]},
        {"messages": [{"role": "system", "content": "Be brief.\nBe kind."}, *HELLO]},
    ),
    "an answer": (
        {"messages": [*HELLO, {"role": "assistant", "content": "Hello."}, *HELLO]},
        {"messages": [*HELLO, {"role": "assistant", "content": "Hello."}, *HELLO]},
    ),
    "tools and several results, text beside them": (
        {
            "tools": [TIDE_TOOL],
            "messages": [
                *HELLO,
                assistant(text("Let me see."), use("1", "Brest"), use("2", "Dover")),
                user(text("Quick!"), result("1", "noon"), result("2", [text("one"), text("two")])),
            ],
        },
        {
            "tools": [FUNCTION],
            "messages": [
                *HELLO,
                {
                    "role": "assistant",
                    "content": "Let me see.",
                    "tool_calls": calls(("1", "Brest"), ("2", "Dover")),
                },
                {"role": "tool", "tool_call_id": "1", "content": "noon"},
                {"role": "tool", "tool_call_id": "2", "content": "one\ntwo"},
                {"role": "user", "content": "Quick!"},
            ],
        },
    ),
    "failed results": (
        {
            "messages": [
                *HELLO,
                assistant(use("1", "Brest"), use("2", "Dover"), use("3", "Calais")),
                user(
                    result("1", "no such port", is_error=True),
                    result("2", "Error: fog", is_error=True),
                    {"type": "tool_result", "tool_use_id": "toolu_3"},
                ),
            ]
        },
        {
            "messages": [
                *HELLO,
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": calls(("1", "Brest"), ("2", "Dover"), ("3", "Calais")),
                },
                {"role": "tool", "tool_call_id": "1", "content": "Error: no such port"},
                {"role": "tool", "tool_call_id": "2", "content": "Error: fog"},
                {"role": "tool", "tool_call_id": "3", "content": ""},
            ]
        },
    ),
    "roles in a row": (
        {"messages": [user(text("a")), user(text("b")), assistant(text("c")), user(text("d"))]},
        {
            "messages": [
                {"role": "user", "content": "a\nb"},
                {"role": "assistant", "content": "c"},
                {"role": "user", "content": "d"},
            ]
        },
    ),
    "reasoning goes back": (
        {
            "messages": [
                *HELLO,
                assistant(
                    {"type": "thinking", "thinking": "so", "signature": "anything"},
                    {"type": "redacted_thinking", "data": "AAAA"},
                    text("Well,"),
                ),
            ]
        },
        {
            "messages": [
                *HELLO,
                {"role": "assistant", "reasoning_content": "so", "content": "Well,"},
            ],
            "continue_final_message": True,
        },
    ),
    "an empty last answer is none": (
        {"messages": [*HELLO, {"role": "assistant", "content": ""}]},
        {"messages": HELLO},
    ),
    "thinking on": (
        {"messages": HELLO, "thinking": {"type": "enabled", "budget_tokens": 4096}},
        {"messages": HELLO, "chat_template_kwargs": {"enable_thinking": True}},
    ),
    "thinking off": (
        {
            "messages": HELLO,
            "thinking": {"type": "disabled"},
            "output_config": {"effort": "high"},
        },
        {"messages": HELLO, "reasoning_effort": "none"},
    ),
    "the request's own variables win": (
        {
            "messages": HELLO,
            "thinking": {"type": "adaptive"},
            "chat_template_kwargs": {"enable_thinking": False},
        },
        {"messages": HELLO},
    ),
    "system messages at the head": (
        {"system": "One.", "messages": [{"role": "system", "content": "Two."}, *HELLO]},
        {"messages": [{"role": "system", "content": "One.\nTwo."}, *HELLO]},
    ),
    "system messages after the user and after an answer": (
        {
            "messages": [
                *HELLO,
                {"role": "system", "content": [text("Note."), text("Note 2.")]},
                assistant(text("c")),
                {"role": "system", "content": "Note 3."},
                user(text("d")),
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "Hi\nNote.\nNote 2."},
                {"role": "assistant", "content": "c"},
                {"role": "user", "content": "Note 3.\nd"},
            ]
        },
    ),
    "system messages beside results": (
        {
            "messages": [
                *HELLO,
                assistant(use("1", "Brest")),
                {"role": "system", "content": "Before."},
                user(result("1", "noon")),
                {"role": "system", "content": "After."},
            ]
        },
        {
            "messages": [
                *HELLO,
                {"role": "assistant", "content": "", "tool_calls": calls(("1", "Brest"))},
                {"role": "tool", "tool_call_id": "1", "content": "noon\nBefore.\nAfter."},
            ]
        },
    ),
    "tools of Anthropic are left out": (
        {
            "messages": HELLO,
            "tools": [
                {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
                {"type": "bash_20250124", "name": "bash"},
                {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
                {"type": "computer_20250124", "name": "computer", "display_width_px": 1024},
                {"type": "mcp_toolset", "mcp_server_name": "x"},
                TIDE_TOOL | {"type": "custom", "cache_control": {"type": "ephemeral"}},
            ],
        },
        {"messages": HELLO, "tools": [FUNCTION]},
    ),
    "only tools of Anthropic": (
        {
            "messages": HELLO,
            "tools": [{"type": "web_search_20250305", "name": "web_search"}],
            "tool_choice": {"type": "tool", "name": "web_search"},
        },
        {"messages": HELLO},
    ),
    "no tools": ({"messages": HELLO, "tools": []}, {"messages": HELLO}),
    "tool references": (
        {
            "messages": [
                *HELLO,
                assistant(use("1", "Brest")),
                user(result("1", [{"type": "tool_reference", "tool_name": "tide"}])),
            ]
        },
        {
            "messages": [
                *HELLO,
                {"role": "assistant", "content": "", "tool_calls": calls(("1", "Brest"))},
                {"role": "tool", "tool_call_id": "1", "content": "tide"},
            ]
        },
    ),
}


@pytest.mark.parametrize("name", SAME)
async def test_the_prompt_is_that_of_chat(name: str) -> None:
    fields, chat = SAME[name]

    token_ids = await prompt_ids(MESSAGES, **fields)

    assert token_ids == await prompt_ids(CHAT, **chat)
    counted = await call(with_formats(), COUNT, fields)
    assert counted.json() == {"input_tokens": len(token_ids)}


def with_formats() -> ScriptedEngine:
    engine = ScriptedEngine()
    engine.formats = FORMATS
    return engine


async def test_an_answer_that_was_begun_is_gone_on_with() -> None:
    shown = await prompt(messages=[*HELLO, {"role": "assistant", "content": "The best is ("}])

    assert shown.endswith("The best is (")


@pytest.mark.parametrize(
    ("choice", "chat"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "tide"}, {"type": "function", "function": {"name": "tide"}}),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto"),
    ],
)
async def test_tool_choices_are_those_of_chat(choice: Any, chat: Any) -> None:
    token_ids = await prompt_ids(MESSAGES, messages=HELLO, tools=[TIDE_TOOL], tool_choice=choice)

    assert token_ids == await prompt_ids(CHAT, messages=HELLO, tools=[FUNCTION], tool_choice=chat)


@pytest.mark.parametrize("as_block", [False, True])
async def test_a_line_that_changes_with_every_request_does_not_reach_the_prompt(
    as_block: bool,
) -> None:
    rest = "You are an agent.\nSay x-anthropic-billing-header: as often as you like."

    def system(line: str) -> Any:
        return [text(line), text(rest)] if as_block else f"{line}\n{rest}"

    prompts = [await prompt(messages=HELLO, system=system(line)) for line in (BILLING, "")]
    prompts.append(await prompt(messages=HELLO, system=system(OTHER_BILLING)))
    assert prompts[0] == prompts[2]
    assert "cch=" not in prompts[0]
    assert rest in prompts[0]
    if as_block:
        assert prompts[0] == prompts[1]


async def test_budgets_in_system_messages_do_not_reach_the_prompt() -> None:
    def turns(tokens: int) -> list[Any]:
        budget = f"<total_tokens>{tokens} tokens left</total_tokens>"
        return [*HELLO, {"role": "system", "content": budget}]

    assert await prompt(messages=turns(10), system=f"Be brief.\n{turns(10)[1]['content']}") == (
        await prompt(messages=turns(9), system=f"Be brief.\n{turns(9)[1]['content']}")
    )
    assert "total_tokens" in await prompt(messages=[user(text(turns(8)[1]["content"]))])


async def test_which_lines_are_taken_out_is_an_option() -> None:
    kept = HttpOptions(strip_system_line=())
    own = HttpOptions(strip_system_line=("nonce=[0-9]+", "seed: .*"))

    assert BILLING in await prompt(kept, messages=HELLO, system=BILLING)
    system = f"nonce=12\n{BILLING}\n  seed: 4\nnonce=x\nBe brief."
    shown = await prompt(own, messages=HELLO, system=system)
    assert f"system\n{BILLING}\nnonce=x\nBe brief." in shown
    with pytest.raises(ConfigError, match="strip_system_line"):
        HttpOptions(strip_system_line=("(",))


async def test_a_longer_conversation_begins_with_the_shorter_one() -> None:
    turns = [
        user(text("a")),
        {"role": "system", "content": "Note."},
        assistant(text("b"), use("1", "Brest")),
        user(result("1", "noon")),
        {"role": "system", "content": "Note."},
        assistant(text("c")),
        user(text("d")),
    ]
    ends = [2, 5, 7]
    prompts = [await prompt(messages=turns[:end], tools=[TIDE_TOOL]) for end in ends]

    for shorter, longer in zip(prompts, prompts[1:], strict=False):
        assert longer.startswith(shorter.rpartition("<|im_start|>assistant")[0])
