"""Items of a conversation: what the model is told of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillm.errors import InvalidRequestError, ItemNotFoundError
from rillm.server.responses.items import (
    chat_messages,
    item_id,
    read_items,
    references,
    response_of,
    seal,
)

RESPONSE = "resp_" + "0" * 31 + "1"


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text}],
    }


def called(call_id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}


def output(call_id: str, text: Any = "ok") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def reasoning(text: str) -> dict[str, Any]:
    return {
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}],
    }


def read(sent: Any, history: Any = (), found: Any = None) -> list[dict[str, Any]]:
    return read_items(
        sent,
        history=history,
        found=found or {},
        new_id=lambda kind, suffix: item_id(RESPONSE, kind, suffix),
    )


def told(*items: Any, instructions: str | None = None) -> list[dict[str, Any]]:
    return chat_messages(instructions, read(list(items)))


def tool_call(call_id: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def test_a_text_is_a_users_message_with_a_name() -> None:
    [item] = read("Hi")

    assert item == {
        "id": item["id"],
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "Hi"}],
    }
    assert response_of(item["id"]) == RESPONSE
    assert chat_messages(None, [item]) == [{"role": "user", "content": "Hi"}]


def test_what_a_model_wrote_in_one_turn_is_one_message() -> None:
    messages = told(
        user("Hi"),
        reasoning("hm"),
        assistant("One moment."),
        called("a"),
        called("b"),
        output("a"),
        output("b", [{"type": "input_text", "text": "x"}, {"type": "output_text", "text": "y"}]),
        reasoning("so"),
        assistant("Done."),
        user("Thanks"),
    )

    assert messages == [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "One moment.",
            "reasoning_content": "hm",
            "tool_calls": [tool_call("a"), tool_call("b")],
        },
        {"role": "tool", "tool_call_id": "a", "content": "ok"},
        {"role": "tool", "tool_call_id": "b", "content": "x\ny"},
        {"role": "assistant", "content": "Done.", "reasoning_content": "so"},
        {"role": "user", "content": "Thanks"},
    ]


def test_calls_with_their_outputs_between_are_turns_of_their_own() -> None:
    messages = told(user("Hi"), called("a"), output("a"), called("b"), output("b"))

    assert [message["role"] for message in messages] == [
        *("user", "assistant", "tool", "assistant", "tool")
    ]


def test_all_that_stands_before_the_first_turn_is_one_system_message() -> None:
    developer = {"role": "developer", "content": [{"type": "input_text", "text": "b"}]}
    later = {"role": "developer", "content": "d"}
    messages = told({"role": "system", "content": "c"}, user("Hi"), later, instructions="a")
    with_developer = told(developer, user("Hi"), instructions="a")

    assert messages == [
        {"role": "system", "content": "a\n\nc"},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "d"},
    ]
    assert with_developer[0] == {"role": "system", "content": "a\n\nb"}


def test_parts_of_a_user_stay_parts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]

    assert told({"role": "user", "content": parts}) == [
        {"role": "user", "content": [{"type": "text", "text": text} for text in "ab"]}
    ]


def test_a_refusal_is_what_the_model_said() -> None:
    parts = [{"type": "refusal", "refusal": "No."}]

    assert told(user("Hi"), {"role": "assistant", "content": parts})[1]["content"] == "No."


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (reasoning("hm"), "hm"),
        ({"type": "reasoning", "summary": [], "encrypted_content": seal("hm é")}, "hm é"),
        (reasoning("hm") | {"encrypted_content": "gAAAAB"}, "hm"),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "short"}]}, "short"),
        ({"type": "reasoning", "summary": [], "encrypted_content": "gAAAAB"}, None),
        ({"type": "reasoning", "summary": [], "encrypted_content": "rillm-1.????"}, None),
        ({"type": "reasoning", "summary": [], "content": None, "encrypted_content": None}, None),
    ],
)
def test_reasoning_is_its_text_or_what_was_sealed(item: Any, text: str | None) -> None:
    [_, turn] = told(user("Hi"), item)

    assert turn.get("reasoning_content") == text


def test_calls_of_other_kinds_are_calls() -> None:
    shell = {"type": "exec", "command": ["ls"], "env": {}}
    patch = {"type": "delete_file", "path": "a"}
    messages = told(
        user("Hi"),
        {"type": "custom_tool_call", "call_id": "a", "name": "patch", "input": "x\ny"},
        {"type": "custom_tool_call_output", "call_id": "a", "output": "ok"},
        {"type": "local_shell_call", "call_id": "b", "action": shell, "status": "completed"},
        {"type": "local_shell_call_output", "id": "b", "call_id": "b", "output": "{}"},
        {"type": "apply_patch_call", "call_id": "c", "operation": patch},
        {"type": "apply_patch_call_output", "call_id": "c", "output": "done"},
        {"type": "shell_call", "call_id": "d", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "d", "output": [{"stdout": "a"}]},
    )

    assert messages[1]["tool_calls"] == [tool_call("a", "patch", '{"input":"x\\ny"}')]
    assert messages[3]["tool_calls"][0]["function"]["name"] == "local_shell"
    assert messages[5]["tool_calls"][0]["function"]["name"] == "apply_patch"
    assert messages[8]["content"] == '[{"stdout":"a"}]'


def test_what_servers_with_tools_of_their_own_wrote_is_left_out() -> None:
    items = [{"type": "web_search_call", "id": "ws_1", "status": "completed"}]

    assert told(user("Hi"), *items) == [{"role": "user", "content": "Hi"}]


def test_a_reference_stands_for_what_it_refers_to() -> None:
    [hello] = read("Hi")
    sent = [{"type": "item_reference", "id": hello["id"]}, {"id": hello["id"]}]

    assert references(sent) == [hello["id"]] * 2
    assert references("Hi") == []
    assert read(sent, found={hello["id"]: hello}) == [hello] * 2
    with pytest.raises(ItemNotFoundError) as error:
        read([{"type": "item_reference", "id": "msg_1"}])
    assert error.value.param == "input[0].id"


def test_an_output_answers_a_call_of_the_history() -> None:
    history = read([called("a")])

    assert read([output("a")], history=history)[0]["call_id"] == "a"
    with pytest.raises(InvalidRequestError) as error:
        read([output("a")])
    assert error.value.param == "input[0].call_id"


def test_ids_that_were_sent_stay() -> None:
    assert read([{**called("a"), "id": "fc_mine"}])[0]["id"] == "fc_mine"


@given(st.text())
def test_only_ids_made_here_name_a_response(text: str) -> None:
    assert response_of(text) is None
    assert response_of(item_id(RESPONSE, "message", "o7")) == RESPONSE
    assert response_of(item_id(RESPONSE, "shell_call", "i0")) == RESPONSE


@given(
    st.lists(
        st.sampled_from(
            [user("u"), assistant("a"), reasoning("r"), called("c"), output("c"), user("v")]
        ),
        max_size=12,
    )
)
def test_nothing_is_lost_and_no_assistant_follows_itself(items: list[Any]) -> None:
    messages = chat_messages(None, read([called("c"), output("c"), *items]))

    roles = [message["role"] for message in messages]
    assert all(pair != ("assistant", "assistant") for pair in zip(roles, roles[1:], strict=False))
    said = [message for message in messages if message["role"] == "assistant"]
    assert sum(m.get("reasoning_content", "").count("r") for m in said) == items.count(
        reasoning("r")
    )
    assert sum(len(m.get("tool_calls", ())) for m in said) == 1 + items.count(called("c"))
    assert roles.count("tool") == 1 + items.count(output("c"))
    assert roles.count("user") == items.count(user("u")) + items.count(user("v"))
    assert sum(m["content"].count("a") for m in said) == items.count(assistant("a"))
