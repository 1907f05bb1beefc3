import pytest

from puna.errors import ModelFileError
from puna.model.messages import messages_from_json, messages_to_json
from puna.types import ImagePart, JsonValue, Message, TextPart, ToolCall

SHAPE: JsonValue = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "See", "images": ["AAEC"]},
    {
        "role": "assistant",
        "content": "",
        "thinking": "hm",
        "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": {"a": "é"}}}],
    },
    {"role": "tool", "content": "2", "tool_name": "f", "tool_call_id": "call_1"},
]


def test_round_trip() -> None:
    messages = messages_from_json(SHAPE)
    assert messages == (
        Message.of("system", "Be brief."),
        Message("user", (TextPart("See"), ImagePart(b"\0\1\2"))),
        Message("assistant", thinking="hm", tool_calls=(ToolCall("call_1", "f", '{"a": "é"}'),)),
        Message("tool", (TextPart("2"),), name="f", tool_call_id="call_1"),
    )
    assert messages_to_json(messages) == SHAPE


@pytest.mark.parametrize(
    "value",
    [
        *({}, [1], [{"role": "robot", "content": ""}], [{"role": "user", "content": 1}]),
        [{"role": "user", "content": "", "images": ["§"]}],
        [{"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}],
    ],
)
def test_refused(value: JsonValue) -> None:
    with pytest.raises(ModelFileError):
        messages_from_json(value)
