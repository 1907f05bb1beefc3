"""Tools: every form of choice, history and stream, and the deprecated functions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.gbnf_reader import Gbnf

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": PARAMETERS}}
TIME = {"type": "function", "function": {"name": "get_time"}}
NOTE = {"type": "custom", "custom": {"name": "note", "description": "Free text."}}
HALF = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}
LIST = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "[]"}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def call(server, text: str = "CALL", **fields: Any) -> Any:
    return server.chat(text, model="tools", **({"tools": [WEATHER]} | fields))


def test_a_call(server):
    choice = call(server).json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    [made] = choice["message"]["tool_calls"]
    assert made.keys() == {"id", "type", "function"}
    assert made["id"].startswith("call_")
    assert made["type"] == "function"
    assert made["function"]["name"] == "get_weather"
    assert json.loads(made["function"]["arguments"]) == {"city": "Paris"}


def test_a_streamed_call_has_its_header_once_then_fragments(server):
    chunks = call(server, stream=True).chunks
    role, header, *fragments, finish = [chunk["choices"][0] for chunk in chunks]
    assert role["delta"] == {"role": "assistant", "content": None, "refusal": None}
    [start] = header["delta"]["tool_calls"]
    assert (start["index"], start["type"]) == (0, "function")
    assert start["function"] == {"name": "get_weather", "arguments": ""}
    parts = [fragment["delta"]["tool_calls"][0] for fragment in fragments]
    assert all(part.keys() == {"index", "function"} for part in parts)
    assert json.loads("".join(part["function"]["arguments"] for part in parts)) == {"city": "Paris"}
    assert (finish["delta"], finish["finish_reason"]) == ({}, "tool_calls")


def test_two_calls_are_numbered(server):
    chunks = call(server, "CALL TWO", stream=True).chunks
    calls = [c for chunk in chunks for c in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [c["index"] for c in calls if "id" in c] == [0, 1]
    assert [c["index"] for c in calls] == sorted(c["index"] for c in calls)
    assert len({c["id"] for c in calls if "id" in c}) == 2


def test_a_named_tool_ends_with_stop_as_at_openai(server):
    choice = call(server, tool_choice=NAMED).json["choices"][0]
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "choice",
    ["required", {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}],
)
def test_required(server, choice):
    answer = call(server, tool_choice=choice, tools=[WEATHER, TIME]).json["choices"][0]
    assert answer["message"]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert answer["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(("choice", "often"), [("required", True), (NAMED, False)])
def test_a_named_tool_is_called_once(server, choice, often):
    grammar = Gbnf(call(server, "GRAMMAR", tool_choice=choice).json["choices"][0]["message"]["content"])
    one = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    assert grammar.accepts(one)
    assert grammar.accepts(one + "\n" + one) == often


@pytest.mark.parametrize("model", ["tools", "tiny"])
@pytest.mark.parametrize("choice", ["required", NAMED])
def test_who_must_call_is_constrained_to(serving, model, choice):
    call_text = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    script = {"rules": [{"when": {"constrained": True}, "answer": {"text": call_text}}], "default": {"text": "No."}}
    with serving(script) as own:
        [made] = own.chat(model=model, tools=[WEATHER], tool_choice=choice).json["choices"][0]["message"]["tool_calls"]
        assert made["function"]["name"] == "get_weather"
        assert (
            own.chat(model=model, tools=[WEATHER], tool_choice="none").json["choices"][0]["message"]["content"] == "No."
        )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": None, "tool_choice": NAMED}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "nope"}}}, "tool_choice"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "nope"}}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
         "tool_choice.allowed_tools.tools"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
         "tools[0].function.parameters"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"tools": None, "functions": [{"name": "f"}], "tool_choice": "auto"}, "tool_choice"),
        ({"tools": None, "functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call"),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": PARAMETERS}}]},
         "tools[0].function.parameters"),
    ],
)  # fmt: skip
def test_mistakes_name_the_field(server, fields, param):
    answer = call(server, **fields)
    assert answer.status == 400, answer.body
    assert answer.error["param"] == param


def test_auto_and_none_without_tools_ask_for_nothing(server):
    for choice in ("auto", "none"):
        assert server.chat(tool_choice=choice).status == 200


def test_none_does_not_call(server):
    choice = call(server, tool_choice="none").json["choices"][0]
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "stop"


def test_a_model_whose_template_knows_no_tools_calls_all_the_same(server):
    text = server.chat("PROMPT", tools=[WEATHER]).json["choices"][0]["message"]["content"]
    assert "get_weather" in text


def test_legacy_functions(server):
    fields = {"tools": None, "functions": [WEATHER["function"]]}
    choice = call(server, **fields).json["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"]["name"] == "get_weather"
    assert json.loads(choice["message"]["function_call"]["arguments"]) == {"city": "Paris"}
    assert "tool_calls" not in choice["message"]
    role, header, *fragments, finish = [c["choices"][0] for c in call(server, stream=True, **fields).chunks]
    assert role["delta"]["content"] is None
    assert header["delta"] == {"function_call": {"name": "get_weather", "arguments": ""}}
    arguments = "".join(fragment["delta"]["function_call"]["arguments"] for fragment in fragments)
    assert json.loads(arguments) == {"city": "Paris"}
    assert finish["finish_reason"] == "function_call"


def history(server, *messages: dict[str, Any], **fields: Any) -> Any:
    body = {"model": "tools", "messages": [{"role": "user", "content": "PROMPT"}, *messages], "tools": [WEATHER]}
    return server.post("/v1/chat/completions", body | fields)


def shown(answer: Any) -> tuple[object, bool]:
    """Of the echoed prompt: the arguments of its call (echoed, it is a call again), and whether the result is there."""
    message = answer.json["choices"][0]["message"]
    return json.loads(message["tool_calls"][0]["function"]["arguments"]), "tool\nsun" in message["content"]


MADE = {
    "role": "assistant",
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    ],
}


def test_a_conversation_with_results(server):
    answer = history(
        server, MADE, {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sun"}]}
    )
    assert shown(answer) == ({"city": "Oslo"}, True)


def test_a_legacy_conversation(server):
    made = {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
    }
    answer = history(server, made, {"role": "function", "name": "get_weather", "content": "sun"})
    assert shown(answer) == ({"city": "Rome"}, True)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "tool", "content": "x"}], "messages[1].tool_call_id"),
        ([{"role": "tool", "tool_call_id": "nope", "content": "x"}], "messages[1].tool_call_id"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[1].name"),
        ([{"role": "assistant"}], "messages[1].content"),
        ([{"role": "assistant", "audio": {"id": "a"}, "content": "x"}], "messages[1].audio"),
    ],
)  # fmt: skip
def test_histories_that_make_no_sense(server, messages, param):
    answer = history(server, *messages)
    assert answer.status == 400
    assert answer.error["param"] == param


@pytest.mark.parametrize("call", [HALF, LIST])
def test_a_call_without_an_object_of_arguments_is_text_and_reported(server, call):
    answer = history(server, {"role": "assistant", "tool_calls": [call]})
    assert answer.status == 200
    assert answer.headers["x-puna-ignored"] == "messages[1].tool_calls[0].function.arguments"


def test_custom_tools(serving):
    script = {"default": {"text": '<tool_call>\n{"name": "note", "arguments": {"input": "buy milk"}}\n</tool_call>'}}
    with serving(script) as own:
        choice = own.chat(model="tools", tools=[NOTE]).json["choices"][0]
        [made] = choice["message"]["tool_calls"]
        assert (made["type"], made["custom"]["name"]) == ("custom", "note")
        assert made["custom"]["input"] == "buy milk"
        chunks = own.chat(model="tools", tools=[NOTE], stream=True).chunks
        calls = [c for chunk in chunks for c in chunk["choices"][0]["delta"].get("tool_calls", [])]
        assert calls[0]["custom"] == {"name": "note", "input": ""}
        assert "".join(c["custom"]["input"] for c in calls) == "buy milk"


def test_a_call_that_cannot_be_read_is_text_with_a_reported_error(serving):
    with serving({"default": {"text": '<tool_call>\n{"name": "get_weather", "argum'}}) as own:
        choice = own.chat(model="tools", tools=[WEATHER]).json["choices"][0]
        assert "get_weather" in choice["message"]["content"]
        assert choice["tool_call_parse_error"]
        last = own.chat(model="tools", tools=[WEATHER], stream=True).chunks[-1]["choices"][0]
        assert last["tool_call_parse_error"] == choice["tool_call_parse_error"]


SETS = {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}}}


def test_what_a_loose_tool_says_and_is_not_enforced_is_reported(server):
    """Agents send such schemas; the rest of them is held to."""
    spec = {"name": "tag", "parameters": SETS}
    sent = {"model": "tools", "messages": [{"role": "user", "content": "hi"}]}
    path = "function.parameters/properties/tags/uniqueItems"
    answer = server.post("/v1/chat/completions", {**sent, "tools": [{"type": "function", "function": spec}]})
    assert (answer.status, answer.headers["x-puna-ignored"]) == (200, f"tools[0].{path}")
    answer = server.post("/v1/chat/completions", {**sent, "functions": [spec]})
    assert answer.headers["x-puna-ignored"] == "functions[0].parameters/properties/tags/uniqueItems"
    answer = server.post("/api/chat", {**sent, "tools": [{"type": "function", "function": spec}], "stream": False})
    assert answer.headers["x-puna-ignored"] == f"tools[0].{path}"


def test_a_strict_tool_is_enforced_whole_or_refused(server):
    strict = {**SETS, "required": ["tags"], "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "tag", "strict": True, "parameters": strict}}
    answer = server.chat(model="tools", tools=[tool])
    assert (answer.status, answer.error["code"]) == (400, "invalid_json_schema")
    assert answer.error["param"] == "tools[0].function.parameters"
    assert "#/properties/tags: uniqueItems" in answer.error["message"]


def test_a_response_format_is_enforced_whole_or_refused_strict_or_not(server):
    for strict in (False, True):
        schema = {**SETS, "required": ["tags"], "additionalProperties": False}
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": strict}}
        answer = server.chat(response_format=wanted)
        assert (answer.status, answer.error["code"]) == (400, "invalid_json_schema")
        assert answer.error["param"] == "response_format"
