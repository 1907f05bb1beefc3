"""Tools with schemas as agents write them: served, held as far as can be, told of the rest; never an error of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

LOOK_BEHIND = {"type": "string", "pattern": "(?<=x)y"}


def tool(name: str, parameters: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def of(value: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": value}, "required": ["a"], **more}


def calls(*names: str, arguments: Any) -> dict[str, Any]:
    return {"default": {"tool_calls": [{"name": name, "arguments": arguments} for name in names]}}


WRONG = {
    "pattern": (of(LOOK_BEHIND), "/properties/a/pattern"),
    "broken-pattern": (of({"type": "string", "pattern": "["}), "/properties/a/pattern"),
    "type": (of({"type": "str"}), "/properties/a/type"),
    "ref": (of({"$ref": "https://example.com/x.json"}), "/properties/a/$ref"),
    "missing-ref": (of({"$ref": "#/$defs/nope"}), "/properties/a/$ref"),
    "counts": (of({"type": "string", "minLength": "3", "maxLength": None}), "/properties/a/minLength"),
    "bounds": (of({"minimum": "0"}), "/properties/a/minimum"),
    "step": (of({"multipleOf": 0}), "/properties/a/multipleOf"),
    "properties": (of({"properties": []}), "/properties/a/properties"),
    "required": ({**of({}), "required": "a"}, "/required"),
    "names": (of({}, patternProperties={"(": {}}, additionalProperties=False), "/patternProperties"),
    "items": (of({"items": 5}), "/properties/a/items"),
    "schema": (of("string"), "/properties/a"),
    "unknown": (of({"type": "string", "minLenght": 3}), "/properties/a/minLenght"),
    "any-of": (of({"anyOf": "string"}), "/properties/a/anyOf"),
    "not-read-by-the-grammar": (
        of({"anyOf": [{"type": "string"}, {"type": "integer", "items": {"type": "str"}}]}),
        "/properties/a/anyOf/1/items/type",
    ),
    "enum": (of({"enum": "ab"}), "/properties/a/enum"),
    "enum-beside": (of({"enum": ["foo", "b"], **LOOK_BEHIND}), "/properties/a/pattern"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_loosened_is_loosened_when_the_tool_is_called(serving, name):
    parameters, path = WRONG[name]
    with serving(calls("act", arguments={"a": "foo"})) as own:
        for stream in (False, True):
            answer = own.chat(model="tools", tools=[tool("act", parameters)], stream=stream)
            assert answer.status == 200, answer.body
            assert f"tools[0].function.parameters{path}" in answer.headers["x-puna-ignored"].split(", ")
        [made] = own.chat(model="tools", tools=[tool("act", parameters)]).json["choices"][0]["message"]["tool_calls"]
        assert json.loads(made["function"]["arguments"]) == {"a": "foo"}
        native = own.post(
            "/api/chat",
            {
                "model": "tools",
                "messages": [{"role": "user", "content": "hi"}],
                "tools": [tool("act", parameters)],
                "stream": False,
            },
        )
        assert (native.status, native.json["message"]["tool_calls"][0]["function"]["arguments"]) == (200, {"a": "foo"})


@pytest.mark.parametrize("name", [name for name in WRONG if name != "pattern"])
def test_a_strict_tool_names_it(server, name):
    parameters = {"additionalProperties": False, **WRONG[name][0]}
    answer = server.chat(model="tools", tools=[tool("act", parameters, strict=True)])
    assert (answer.status, answer.error["param"]) == (400, "tools[0].function.parameters"), answer.body


IMPOSSIBLE = {
    "enum": of({"enum": []}),
    "bounds": of({"type": "integer", "minimum": 3, "maximum": 2}),
    "false": of(False),
    "not": of({"not": {}}),
    "array": {"type": "array"},
    "endless": of({"$ref": "#"}),
}


@pytest.mark.parametrize(
    ("name", "strict"), [*((name, False) for name in IMPOSSIBLE), ("enum", True), ("bounds", True)]
)
def test_a_tool_that_nothing_satisfies_is_left_out_and_told(serving, name, strict):
    more: dict[str, Any] = {"strict": True} if strict else {}
    parameters = {"additionalProperties": False, **IMPOSSIBLE[name]} if strict else IMPOSSIBLE[name]
    bad, good = tool("bad", parameters, **more), tool("good", of({"type": "string"}))
    with serving(calls("good", arguments={"a": "x"})) as own:
        answer = own.chat(model="tools", tools=[bad, good])
        assert (answer.status, answer.headers["x-puna-ignored"]) == (200, "tools[0]"), answer.body
        assert answer.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "good"
        named = {"type": "function", "function": {"name": "bad"}}
        answer = own.chat(model="tools", tools=[bad, good], tool_choice=named)
        assert (answer.status, answer.error["param"]) == (400, "tool_choice")
        only = own.chat(model="tools", tools=[bad])
        assert (only.status, only.headers["x-puna-ignored"]) == (200, "tools[0]")
        assert only.json["choices"][0]["finish_reason"] == "stop"
        assert own.chat(model="tools", tools=[bad], tool_choice="required").status == 400


def test_names_of_tools_that_openai_refuses_are_served_and_told(serving):
    name = "mcp.files/read"
    with serving(calls(name, arguments={"a": "x"})) as own:
        tools = [tool("fine", of({"type": "string"})), tool(name, of({"type": "string"}))]
        for stream in (False, True):
            answer = own.chat(model="tools", tools=tools, stream=stream)
            assert (answer.status, answer.headers["x-puna-nonstandard"]) == (200, "tools[1].function.name")
        [made] = own.chat(model="tools", tools=tools).json["choices"][0]["message"]["tool_calls"]
        assert made["function"]["name"] == name
        named = own.chat(model="tools", tools=tools, tool_choice={"type": "function", "function": {"name": name}})
        assert named.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == name
        functions = own.chat(model="tools", functions=[tools[1]["function"]])
        assert functions.headers["x-puna-nonstandard"] == "functions[0].name"
        assert "x-puna-nonstandard" not in own.chat(model="tools", tools=tools[:1]).headers


def test_more_tools_than_openai_takes_are_served_and_told(serving):
    with serving(calls("tool_150", arguments={})) as own:
        tools = [{"type": "function", "function": {"name": f"tool_{number}"}} for number in range(200)]
        some = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "tool_150"}}]}
        answer = own.chat(tools=tools, tool_choice={"type": "allowed_tools", "allowed_tools": some})
        assert (answer.status, answer.headers["x-puna-nonstandard"]) == (200, "tools")
        assert answer.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "tool_150"
        many = own.chat(tools=tools * 6)
        assert (many.status, many.error["param"]) == (400, "tools")


@pytest.mark.parametrize("name", ['a"b', "a b", "a\n", "<a>", "a" * 300, "a\\b", "{}"])
def test_a_name_that_no_call_can_have_is_refused_by_name(server, name):
    answer = server.chat(model="tools", tools=[tool(name, {})])
    assert (answer.status, answer.error["param"]) == (400, "tools[0].function.name"), answer.body
    native = server.post(
        "/api/chat",
        {"model": "tools", "messages": [{"role": "user", "content": "hi"}], "tools": [tool(name, {})], "stream": False},
    )
    assert native.status == 400, native.body


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_again_word_for_word_ends_the_answer(serving, stream):
    with serving(calls("act", "act", "act", arguments={"a": "x"})) as own:
        answer = own.chat(model="tools", tools=[tool("act", of({"type": "string"}))], stream=stream)
        if stream:
            choices = [chunk["choices"][0] for chunk in answer.chunks]
            made = [call for choice in choices for call in choice["delta"].get("tool_calls", []) if "id" in call]
        else:
            choices = answer.json["choices"]
            made = choices[0]["message"]["tool_calls"]
        assert (len(made), choices[-1]["finish_reason"]) == (1, "tool_calls")
