"""How many tokens a step takes, and what a further one costs."""

from __future__ import annotations

import pytest

from puna.engine.cpu.pace import ALONE, FIRST, FURTHER, GUESSES, LONGEST, MOST, Pace
from puna.engine.cpu.plan import SMALLEST


def paced(rate: float, most: int | None = None) -> Pace:
    pace = Pace(most)
    for _ in range(30):
        pace.took(100, 100 / rate)
    return pace


def test_before_anything_is_known_a_step_is_small() -> None:
    assert Pace().budget(0) == Pace().budget(1) == FIRST


def test_alone_a_prompt_has_all_there_is() -> None:
    assert paced(3000).budget(0) == MOST


def test_on_a_slow_machine_a_prompt_alone_leaves_room_for_newcomers() -> None:
    assert paced(400).budget(0) == int(400 * ALONE)


def test_beside_answers_a_step_takes_about_its_goal() -> None:
    assert paced(2000).budget(4) == int(2000 * LONGEST)


def test_beside_answers_a_prompt_is_ended_in_a_step_that_is_not_much_longer() -> None:
    pace = paced(400)
    assert pace.budget(15, 60) == 75 > int(400 * LONGEST)
    assert pace.budget(15, 90) == int(400 * LONGEST)
    assert paced(2000).budget(4, 60) == int(2000 * LONGEST)


def test_a_slow_machine_still_moves_every_prompt() -> None:
    assert paced(1).budget(20) == SMALLEST + 20


def test_a_fast_machine_keeps_to_the_most() -> None:
    pace = paced(1e6, most=300)
    assert pace.budget(3) == pace.budget(0) == 300


def test_guesses_make_no_step_much_longer_than_its_goal() -> None:
    pace = paced(1000)
    assert pace.room(60, 4) == int(1000 * LONGEST) - 60
    assert pace.room(4, 4) == GUESSES
    assert pace.room(100, 4) == SMALLEST
    assert pace.room(MOST - 3, 4) == 3
    assert pace.room(MOST + 3, 4) == 0


def test_steps_of_few_tokens_tell_nothing_of_prompts() -> None:
    pace = Pace()
    pace.took(SMALLEST - 1, 0.03)
    assert pace.budget(4) == FIRST


def test_a_rate_found_too_low_is_found_again() -> None:
    pace = Pace()
    pace.took(64, 10.0)
    for _ in range(20):
        pace.took(pace.budget(16) * 3 // 4, 0.01)
    assert pace.budget(16) > SMALLEST + 16


def test_before_anything_is_known_a_row_has_a_price() -> None:
    assert Pace().price(1, 1) == pytest.approx(FURTHER / (1 + FURTHER))


@pytest.mark.parametrize(("base", "row"), [(1.8e-3, 0.1e-3), (20e-3, 0.6e-3), (1e-3, 1e-3)])
def test_the_price_of_a_row_is_learnt(base: float, row: float) -> None:
    """In tokens: what the row takes, over what a step takes that brings each answer one."""
    pace = Pace()
    for rows in [1, 5, 1, 9, 3, 1] * 10:
        pace.took(rows, base + row * rows)
    assert pace.price(1, 1) == pytest.approx(row / (base + row), rel=0.1)
    assert pace.price(16, 16) == pytest.approx(16 * row / (base + 16 * row), rel=0.1)


def test_a_step_that_was_held_up_changes_little() -> None:
    pace = Pace()
    for rows in [1, 5, 1, 9, 3, 1] * 10:
        pace.took(rows, 2e-3 + 0.1e-3 * rows)
    before = pace.price(1, 1)
    pace.took(9, 1.0)
    assert pace.price(1, 1) < 3 * before
    assert pace.price(1, 1) > 0


def test_no_row_is_free_whatever_was_seen() -> None:
    pace = Pace()
    for rows in [1, 8] * 20:
        pace.took(rows, 2e-3 - 0.1e-3 * rows)
    assert 0 < pace.price(1, 1) < FURTHER


def test_beside_a_prompt_a_row_costs_as_much_as_any_of_it() -> None:
    assert paced(3000).price(250, 5) == 5 / 250
