from __future__ import annotations

import pytest

from puna.chat.fit import check_fit, kept_from, room, system_places
from puna.errors import ContextLengthExceeded
from puna.types import Message


def test_a_prompt_leaves_room_for_a_token() -> None:
    check_fit(99, 100)
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 100 tokens") as caught:
        check_fit(100, 100, param="prompt", what="prompt")
    assert (caught.value.tokens, caught.value.limit, caught.value.param) == (100, 100, "prompt")


def test_old_turns_go_but_system_messages_stay() -> None:
    messages = [
        Message.of("system", "s"),
        Message.of("user", "1"),
        Message.of("assistant", "2"),
        Message.of("user", "3"),
    ]
    assert [message.text for message in kept_from(messages, 0, system_places(messages))] == ["s", "1", "2", "3"]
    assert [message.text for message in kept_from(messages, 2, system_places(messages))] == ["s", "2", "3"]
    assert [message.text for message in kept_from(messages, 3, system_places(messages))] == ["s", "3"]


@pytest.mark.parametrize(("wanted", "expected"), [(None, 90), (-1, 90), (-2, 90), (0, 0), (5, 5), (500, 90)])
def test_room(wanted: int | None, expected: int) -> None:
    assert room(10, 100, wanted) == expected
