"""Items joined to turns: what a model said in one go is one message."""

from __future__ import annotations

from typing import Any

import pytest

from puna.errors import InvalidRequest, Unsupported
from puna.server.contract.shapes import Shape
from puna.server.responses.ids import ResponseIds, response_of
from puna.server.responses.items import InputItem
from puna.server.responses.pieces import Brought
from puna.server.responses.thought import opened, sealed
from puna.server.responses.turns import Placed, Turns, to_turns


class Items(Shape):
    items: list[InputItem]


def turns(*items: dict[str, Any], instructions: str | None = None) -> Turns:
    checked = Items.model_validate({"items": [*items]}).items
    return to_turns(instructions, [Placed(item, f"input[{at}]") for at, item in enumerate(checked)], Brought())


def shown(made: Turns) -> list[tuple[str, str | None, str, list[str]]]:
    return [
        (message.role, message.thinking, message.text, [call.name for call in message.tool_calls])
        for message in made.messages
    ]


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def call(name: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": f"call_{name}", "name": name, "arguments": "{}"}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([thought("t"), said("a"), call("f"), call("g")], [("assistant", "t", "a", ["f", "g"])]),
        ([said("a"), said("b")], [("assistant", None, "a", []), ("assistant", None, "b", [])]),
        ([call("f"), said("a")], [("assistant", None, "", ["f"]), ("assistant", None, "a", [])]),
        ([thought("t"), thought("u"), said("a")], [("assistant", "t", "", []), ("assistant", "u", "a", [])]),
        ([said("a"), thought("t"), call("f")], [("assistant", None, "a", []), ("assistant", "t", "", ["f"])]),
        ([thought(""), said("a")], [("assistant", None, "a", [])]),
    ],
)
def test_a_turn_is_thought_text_and_calls(items: list[dict[str, Any]], expected: list[Any]) -> None:
    assert shown(turns(*items)) == expected


def test_results_end_a_turn_and_are_named_by_their_calls() -> None:
    result = {"type": "function_call_output", "call_id": "call_f", "output": "r"}
    made = turns(call("f"), result, call("g"))
    assert [(message.role, message.name) for message in made.messages] == [
        ("assistant", None),
        ("tool", "f"),
        ("assistant", None),
    ]
    with pytest.raises(InvalidRequest):
        turns(result, call("f"))


def test_every_message_has_its_place_in_the_request() -> None:
    made = turns({"role": "user", "content": "x"}, thought("t"), said("a"), instructions="i")
    assert made.names == {"messages[0]": "instructions", "messages[1]": "input[0]", "messages[2]": "input[1]"}


def test_the_thought_is_what_is_there_of_it() -> None:
    seal = {"type": "reasoning", "encrypted_content": sealed("s"), "summary": [{"type": "summary_text", "text": "u"}]}
    assert shown(turns(seal)) == [("assistant", "s", "", [])]
    foreign = turns({**seal, "encrypted_content": "gAAA"})
    assert (shown(foreign), foreign.ignored) == ([("assistant", "u", "", [])], ("input[0].encrypted_content",))


def test_what_another_server_compacted_is_refused() -> None:
    assert shown(turns({"type": "compaction", "encrypted_content": sealed("so far")})) == [
        ("system", None, "so far", [])
    ]
    with pytest.raises(Unsupported):
        turns({"type": "compaction", "encrypted_content": "gAAA"})


@pytest.mark.parametrize("text", ["", "plain", "日本語 🙂", "puna1."])
def test_a_seal_opens(text: str) -> None:
    assert opened(sealed(text)) == text


@pytest.mark.parametrize("seal", ["", "x", "puna1.!", "puna1./w", "puna1._w"])
def test_what_is_no_seal_does_not(seal: str) -> None:
    assert opened(seal) is None


def test_an_item_says_which_response_it_is_of() -> None:
    ids = ResponseIds()
    made = {ids.next("msg"), ids.next("rs"), ids.next("msg")}
    assert len(made) == 3
    assert {response_of(one) for one in made} == {ids.whole("resp")}
    assert response_of("msg_1") is None
