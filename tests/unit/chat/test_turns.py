from __future__ import annotations

from puna.chat.calls import DEFAULT_SYNTAX
from puna.chat.turns import arguments_json, spelled_out, told, tool_json
from puna.types import Message, TextPart, Tool, ToolCall

USER = Message.of("user", "U")


def test_instructions_end_the_system_message() -> None:
    assert told((USER,), "Do.") == (Message.of("system", "Do."), USER)
    assert [message.text for message in told((Message.of("system", "S"), USER), "Do.")] == ["S\n\nDo.", "U"]


def test_calls_and_results_spelled_out() -> None:
    call = Message("assistant", (TextPart("So."),), tool_calls=(ToolCall("1", "f", '{"a": "é"}'),))
    results = (Message.of("tool", "1"), Message.of("tool", "2"))
    turns = spelled_out((USER, call, *results, USER), DEFAULT_SYNTAX)
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "user"]
    assert turns[1].text == 'So.\n<tool_call>\n{"name": "f", "arguments": {"a": "é"}}\n</tool_call>'
    assert turns[1].tool_calls == ()
    assert turns[2].text == "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>"


def test_arguments_that_are_no_object_stay_text() -> None:
    assert arguments_json(ToolCall("1", "f", "")) == {}
    assert arguments_json(ToolCall("1", "f", "[1]")) == "[1]"
    assert arguments_json(ToolCall("1", "f", "{")) == "{"
    assert arguments_json(ToolCall("1", "f", "free", "custom")) == {"input": "free"}


def test_a_tool_without_parameters_takes_any_object() -> None:
    assert tool_json(Tool("f"))["function"] == {
        "name": "f",
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    }
