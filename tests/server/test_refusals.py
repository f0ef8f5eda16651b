"""What is refused: status, type and the name of the field."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from running_server import RunningServer

TOOLS = [{"type": "function", "function": {"name": "f"}}]
HELLO = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def post(
    server: RunningServer, path: str, body: bytes, content_type: str = "application/json"
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("POST", path, body, {"Content-Type": content_type})
        response = connection.getresponse()
        return response.status, json.load(response)
    finally:
        connection.close()


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"n": 0}, "n"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"n": 1000, "temperature": 1}, "n"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop_token_ids": [2048]}, "stop_token_ids"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"9999": 1}}, "logit_bias"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"bad_words": [""]}, "bad_words"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "logprobs"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [*HELLO, {"role": "user", "content": 3}]}, "messages[1].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "prompt"),
        ({"tools": []}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "maybe"}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice",
        ),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"guided_json": {}}, "guided_json"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"add_generation_prompt": True, "continue_final_message": True}, "continue_final_message"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"self": 1}}, "chat_template_kwargs"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"cache_salt": "a@b"}, "cache_salt"),
        ({"request_id": "a b"}, "request_id"),
    ],
)
def test_chat_names_the_field_it_refuses(
    server: RunningServer, fields: dict[str, Any], param: str, is_stream: bool
) -> None:
    body = {"messages": HELLO, "stream": is_stream} | fields

    status, answer = post(server, CHAT, json.dumps(body).encode())

    error = answer["error"]
    assert (status, error["code"]) == (400, 400)
    assert (error["type"], error["param"]) == ("BadRequestError", param)
    assert error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"prompt": ["a"] * 1025}, "prompt"),
        ({"prompt": [5000]}, "prompt_token_ids"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_completions_name_the_field_they_refuse(
    server: RunningServer, fields: dict[str, Any], param: str
) -> None:
    status, answer = post(server, COMPLETIONS, json.dumps(fields).encode())

    error = answer["error"]
    assert (status, error["type"], error["param"]) == (400, "BadRequestError", param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"\xff", None),
        (b'{"messages": [{"role": "\xff"}]}', None),
        (b"{}", "messages"),
        (b'{"messages": {}}', "messages"),
        (b'{"messages": ["hello"]}', "messages[0]"),
        (b'{"messages": [], "temperature": "hot"}', "temperature"),
        (b'{"messages": [], "n": 1.5}', "n"),
        (b'{"messages": [], "n": 1e999}', "n"),
        (b'{"messages": [], "seed": 18446744073709551616}', "seed"),
        (b'{"messages": [], "stream": "yes"}', "stream"),
        (b'{"messages": [], "stop": [1]}', "stop[0]"),
        (
            b'{"messages": [], "stream_options": {"include_usage": 1}}',
            "stream_options.include_usage",
        ),
        (b"[" * 100_000, None),
        (b'{"guided_json": ' + b"[" * 100_000, None),
        (b'{"user": ' + b"[" * 100_000, None),
    ],
)
def test_wrong_json_is_a_bad_request_with_the_path(
    server: RunningServer, body: bytes, param: str | None
) -> None:
    status, answer = post(server, CHAT, body)

    error = answer["error"]
    assert (status, error["type"], error["param"]) == (400, "Bad Request", param)
    assert error["message"].startswith("1 validation error")


def test_other_content_types_are_refused(server: RunningServer) -> None:
    status, answer = post(server, CHAT, b'{"messages": []}', "text/plain")

    assert (status, answer["error"]["type"]) == (400, "Bad Request")
    assert answer["error"]["param"] == "Content-Type"


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [("/v1/nothing", 404, "Not Found"), ("/v1/models", 405, "Method Not Allowed")],
)
def test_unknown_routes_and_methods_have_the_same_shape(
    server: RunningServer, path: str, status: int, kind: str
) -> None:
    assert post(server, path, b"{}") == (
        status,
        {"error": {"message": kind, "type": kind, "param": None, "code": status}},
    )


def test_nothing_refused_stays_in_the_engine(server: RunningServer) -> None:
    post(server, CHAT, json.dumps({"messages": HELLO, "temperature": 9}).encode())

    assert server.llm.get_num_unfinished_requests() == 0
