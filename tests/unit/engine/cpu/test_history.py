"""Tokens in one buffer."""

from __future__ import annotations

import ctypes

import pytest

from puna.engine.cpu.history import History


def as_the_library_reads(history: History) -> list[int]:
    return list((ctypes.c_int32 * len(history)).from_address(history.address))


def test_tokens_are_appended_in_place() -> None:
    history = History([5, 6], room=100)
    address = history.address
    for token in range(98):
        history.append(token)
    assert history.address == address
    assert history.tokens() == as_the_library_reads(history) == [5, 6, *range(98)]
    assert history.tokens(1, 4) == [6, 0, 1]
    assert history.tokens(99) == [97]


def test_it_grows_beyond_its_room() -> None:
    history = History([])
    history.extend(range(1_000))
    assert history.tokens() == as_the_library_reads(history) == list(range(1_000))


def test_guesses_are_taken_back() -> None:
    history = History([1, 2, 3])
    history.extend([4, 5])
    history.truncate(4)
    assert history.tokens() == [1, 2, 3, 4]
    with pytest.raises(ValueError):
        history.truncate(5)
