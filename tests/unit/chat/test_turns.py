from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from puna.chat.calls import DEFAULT_SYNTAX
from puna.chat.turns import plainer, spelled_out, told, with_short_ids
from puna.template.shaping import arguments_json, tool_json, unreadable
from puna.types import ImagePart, Message, TextPart, Tool, ToolCall

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


def test_only_what_cannot_be_read_is_spelled_out() -> None:
    calls = (ToolCall("1", "f", '{"a": "b'), ToolCall("2", "g", '{"c": 1}'), ToolCall("3", "h", "[1]"))
    made = Message("assistant", tool_calls=calls)
    results = tuple(Message("tool", (TextPart(f"r{id_}"),), tool_call_id=id_) for id_ in "123")
    turns = spelled_out((USER, made, *results), DEFAULT_SYNTAX, unreadable_only=True)
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "tool", "user"]
    assert turns[1].tool_calls == (calls[1],)
    assert '"arguments": {"a": "b}' in turns[1].text
    assert turns[3] == results[1]
    assert "r1" in turns[2].text
    assert "r3" in turns[4].text


def test_short_ids_stay_with_their_results() -> None:
    calls = (ToolCall("call_1", "f", "{}"), ToolCall("call_2", "g", "{}"), ToolCall("abcDEF123", "g", "{}"))
    named = Message("tool", (TextPart("of g"),), name="g")
    conversation = (
        USER,
        Message("assistant", tool_calls=calls),
        named,
        Message("tool", (TextPart("the rest"),)),
        Message("tool", (TextPart("third"),), tool_call_id="abcDEF123"),
        Message("assistant", tool_calls=calls[:1]),
        Message("tool", (TextPart("again"),), tool_call_id="call_1"),
    )
    turns = with_short_ids(conversation)
    ids = [call.id for call in turns[1].tool_calls]
    assert [turn.tool_call_id for turn in turns[2:5]] == [ids[1], ids[0], "abcDEF123"]
    assert all(len(id_) == 9 and id_.isalnum() for id_ in ids)
    assert turns == with_short_ids(conversation)
    # The same id twice in a conversation is of two calls.
    assert turns[5].tool_calls[0].id == turns[6].tool_call_id != ids[0]


@given(st.text())
def test_no_arguments_are_a_reason_to_fail(text: str) -> None:
    assert unreadable(ToolCall("1", "f", text)) == isinstance(arguments_json(ToolCall("1", "f", text)), str)
    assert unreadable(ToolCall("1", "f", '{"a":' + "[" * 100_000))


def test_plainer_forms_of_a_conversation() -> None:
    calls = (ToolCall("1", "f", "{}"), ToolCall("2", "g", "{}"))
    made = Message("assistant", (TextPart("So."),), thinking="Hm.", tool_calls=calls)
    results = (
        Message("tool", (TextPart("r2"),), tool_call_id="2"),
        Message("tool", (TextPart("r1"),), tool_call_id="1"),
    )
    one_each, spelled = plainer((USER, made, *results, USER, USER), DEFAULT_SYNTAX)
    assert [turn.role for turn in one_each] == ["user", "assistant", "tool", "assistant", "tool", "user", "user"]
    assert [turn.text for turn in one_each[1:5]] == ["So.", "r1", "", "r2"]
    assert [turn.tool_calls for turn in one_each[1:5]] == [calls[:1], (), calls[1:], ()]
    assert [turn.role for turn in spelled] == ["user", "assistant", "user"]
    assert spelled[2].text.endswith("r1\n</tool_response>\n\nU\n\nU")


def test_nothing_is_plainer_than_plain() -> None:
    assert list(plainer((USER, Message.of("assistant", "A"), USER), DEFAULT_SYNTAX)) == []


def test_pictures_in_a_result_stay() -> None:
    result = Message("tool", (ImagePart(b"png"), TextPart("seen")))
    (turn,) = spelled_out((result,), DEFAULT_SYNTAX)
    assert turn.content[1:3] == result.content


def test_many_turns_are_joined_at_once() -> None:
    """One after the other they would take longer than a test may."""
    (spelled,) = plainer([Message.of("user", "x" * 100)] * 200_000, DEFAULT_SYNTAX)
    assert [len(turn.text) for turn in spelled] == [200_000 * 102 - 2]


def test_a_turn_of_many_calls_is_read_call_by_call() -> None:
    """In time that grows with their number, not with its square: 20,000 would take minutes."""
    calls = tuple(ToolCall(f"c{number}", "f", "{}") for number in range(20_000))
    results = [Message("tool", (TextPart("ok"),)) for _ in calls]
    messages = (Message.of("user", "q"), Message("assistant", tool_calls=calls), *results)
    short = with_short_ids(messages)
    assert [message.tool_call_id for message in short[2:]] == [call.id for call in short[1].tool_calls]
    _, called, answered = spelled_out(messages, DEFAULT_SYNTAX)
    assert len(called.content) == len(answered.content) == len(calls)


def test_an_answer_goes_to_its_call_or_to_the_first_of_its_name_or_the_first() -> None:
    calls = tuple(ToolCall(id_, name, "{}") for id_, name in (("a", "f"), ("b", "g"), ("c", "f"), ("d", "h")))
    answers = [("c", None), (None, "g"), ("x", "none"), (None, "f"), ("a", None)]
    results = [Message("tool", (TextPart("ok"),), name=name, tool_call_id=id_) for id_, name in answers]
    _, called, *found = with_short_ids([Message.of("user", "q"), Message("assistant", tool_calls=calls), *results])
    ids = [call.id for call in called.tool_calls]
    assert [message.tool_call_id for message in found] == [ids[2], ids[1], ids[0], ids[3], "a"]
