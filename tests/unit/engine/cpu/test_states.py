"""States: who gets which, and what is kept of those that are over."""

from __future__ import annotations

from puna.engine.cpu.states import States


def test_each_sequence_has_one_to_itself() -> None:
    states = States(3)
    opened = [states.open([1, 2, 3], 0) for _ in range(3)]
    assert sorted(state.number for state in opened) == [0, 1, 2]
    assert {state.absorbed for state in opened} == {0}


def test_what_is_left_is_found_by_its_tokens() -> None:
    states = States(2)
    state = states.open([1, 2, 3], 0)
    state.absorbed = 4
    states.close(state, [1, 2, 3, 4, 5])
    turn = [1, 2, 3, 4, 5, 6, 7]
    other = states.open([1, 2, 3, 9, 5, 6], 5)
    assert other.number != state.number, "another text"
    states.close(other, [])
    short = states.open(turn, 3)
    assert short.absorbed == 0, "it has absorbed a token that is not in the cache"
    states.close(short, turn)
    again = states.open(turn, 5)
    assert (again.number, again.absorbed) == (state.number, 4)
    assert states.open(turn, 5).absorbed == 0, "nobody else has it now"


def test_the_longest_is_taken_and_the_oldest_goes_first() -> None:
    states = States(3)
    opened = [states.open([], 0) for _ in range(3)]
    for length, state in zip((2, 5, 3), opened, strict=True):
        state.absorbed = length
        states.close(state, [1, 2, 3, 4, 5])
    assert states.open([1, 2, 3, 4, 5, 6], 6).absorbed == 5
    assert states.open([7], 0).number == opened[0].number
    assert states.open([7], 0).number == opened[2].number
