"""The tokenizer over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_engine import BUNDLED_TOKENIZER, ScriptedEngine, call, call_app, new_app

from rillm.server.options import HttpOptions

MESSAGES = [{"role": "user", "content": "Où est la mer?"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


async def tokenize(body: dict[str, Any]) -> Any:
    answer = await call(ScriptedEngine(), "/tokenize", body)
    assert answer.status == 200, answer.body
    return answer.json()


@pytest.mark.parametrize("text", ["The sea", "", "Łódź 🌊", "x" * 20000, "<|im_end|>"])
async def test_text_becomes_tokens_and_text_again(text: str) -> None:
    answer = await tokenize({"prompt": text, "return_token_strs": True})

    expected = BUNDLED_TOKENIZER.encode(text)
    names = [BUNDLED_TOKENIZER.token_text(token_id) for token_id in expected]
    assert answer == {
        "count": len(expected),
        "max_model_len": 2048,
        "tokens": expected,
        "token_strs": names,
    }
    back = await call(ScriptedEngine(), "/detokenize", {"tokens": expected})
    assert back.json() == {"prompt": text}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": TOOLS},
        {"add_generation_prompt": False},
        {"continue_final_message": True},
        {"chat_template_kwargs": {"enable_thinking": True}},
    ],
)
async def test_conversation_becomes_the_prompt_of_chat(fields: dict[str, Any]) -> None:
    request = {"messages": MESSAGES} | fields
    rendered = await call(ScriptedEngine(), "/v1/chat/completions/render", request | NO_CALLS)

    answer = await tokenize(request)
    bracketed = await tokenize(request | {"add_special_tokens": True})

    assert answer["tokens"] == rendered.json()["token_ids"]
    assert answer["token_strs"] is None
    text = BUNDLED_TOKENIZER.decode(answer["tokens"], skip_special_tokens=False)
    assert bracketed["tokens"] == BUNDLED_TOKENIZER.encode(text)


NO_CALLS = {"tool_choice": "none"}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, 400, "prompt"),
        ("/tokenize", {"prompt": 3}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "model": "nobody"}, 404, "model"),
        ("/tokenize", {"messages": []}, 400, "messages"),
        ("/tokenize", {"messages": [{"role": "robot"}]}, 400, "messages[0].role"),
        ("/tokenize", {"messages": MESSAGES, "chat_template": "{{ 1 }}"}, 400, "chat_template"),
        (
            "/tokenize",
            {"messages": MESSAGES, "add_generation_prompt": True, "continue_final_message": True},
            400,
            "continue_final_message",
        ),
        ("/tokenize", {"prompt": "\ud800"}, 400, None),
        ("/detokenize", {}, 400, "tokens"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": [10**12]}, 400, "tokens"),
        ("/detokenize", {"tokens": [1], "model": "nobody"}, 404, "model"),
    ],
)
async def test_what_is_refused(path: str, body: Any, status: int, param: str | None) -> None:
    answer = await call(ScriptedEngine(), path, body)

    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (status, status)
    assert error["param"] == param


async def test_tokenizer_tells_its_files_only_when_asked_to() -> None:
    path = "/tokenizer_info"
    hidden = await call(ScriptedEngine(), path, b"", method="GET")
    options = HttpOptions(enable_tokenizer_info_endpoint=True)
    shown = await call_app(new_app(ScriptedEngine(), options), path, b"", method="GET")

    assert hidden.status == 404
    info = shown.json()
    assert info["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert info["eos_token"] == "<|im_end|>"
    assert info["chat_template"] == BUNDLED_TOKENIZER.chat_templates["default"]
