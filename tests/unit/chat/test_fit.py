from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.chat.fit import Cut, check_fit, kept_from, room, system_places
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


def tried(sizes: list[int], num_ctx: int) -> tuple[int, list[int]]:
    """The first message that is kept of these, the last of which fits; and which were tried."""
    last, tries = len(sizes) - 1, list[int]()
    cut, found = Cut(last, sizes[last], num_ctx), last
    while (first := cut.next) is not None:
        tries.append(first)
        if sum(sizes[first:]) < num_ctx:
            found = first
            cut.fits(first, sum(sizes[first:]))
        else:
            cut.misses(first)
    return found, tries


@given(st.lists(st.integers(0, 50), min_size=2, max_size=300), st.integers(51, 2000))
def test_as_many_messages_as_fit_are_found(sizes: list[int], num_ctx: int) -> None:
    found, tries = tried(sizes, num_ctx)
    fitting = [first for first in range(1, len(sizes)) if sum(sizes[first:]) < num_ctx]
    assert found == min(fitting)
    assert len(tries) == len(set(tries))
    assert len(tries) <= 2 * len(sizes).bit_length() + 6


def test_little_more_than_what_fits_is_looked_at() -> None:
    found, tries = tried([6] * 100_000, 4096)
    assert found == 100_000 - 682
    assert min(tries) >= 100_000 - 2 * 682
    assert len(tries) <= 15
