"""How many tokens a step takes."""

from __future__ import annotations

from puna.engine.cpu.pace import FIRST, GOAL, MOST, Pace
from puna.engine.cpu.plan import SMALLEST


def test_alone_a_prompt_has_all_there_is() -> None:
    assert Pace().budget(0) == MOST


def test_beside_answers_a_step_takes_about_its_goal() -> None:
    pace = Pace()
    assert pace.budget(1) == FIRST
    for _ in range(30):
        pace.took(256, 256 / 2000)
    assert pace.budget(4) == int(2000 * GOAL)


def test_a_slow_machine_still_moves_every_prompt() -> None:
    pace = Pace()
    pace.took(100, 100.0)
    assert pace.budget(20) == SMALLEST + 20


def test_a_fast_machine_keeps_to_the_most() -> None:
    pace = Pace(most=300)
    pace.took(300, 0.001)
    assert pace.budget(3) == 300
    assert pace.budget(0) == 300


def test_steps_of_few_tokens_tell_nothing() -> None:
    pace = Pace()
    pace.took(16, 0.03)
    assert pace.budget(16) == FIRST


def test_a_rate_found_too_low_is_found_again() -> None:
    pace = Pace()
    pace.took(64, 10.0)
    for _ in range(20):
        pace.took(pace.budget(16) * 3 // 4, 0.05)
    assert pace.budget(16) > SMALLEST + 16
