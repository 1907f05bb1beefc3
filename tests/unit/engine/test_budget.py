"""How fast slots may be written that nobody needs yet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from puna.engine.llama.budget import BURST, RATE, REST, SHARE, SaveBudget


def test_at_first_all_may_be_written() -> None:
    assert SaveBudget().wait(100.0, 100.0) == 0


def test_what_writing_took_is_waited_for_unless_there_is_a_rest() -> None:
    budget = SaveBudget()
    budget.spend(100.0, 10, 0.5)
    assert budget.wait(100.0, 100.0) == REST
    assert budget.wait(100.5, 100.5) == REST
    assert budget.wait(100.5, 100.0) == REST / 2
    assert budget.wait(101.0, 100.0) == 0
    assert budget.wait(100.0 + 0.5 / SHARE, 100.0 + 0.5 / SHARE) == 0


def test_over_what_may_be_written_at_once_a_rest_does_not_help() -> None:
    budget = SaveBudget()
    budget.spend(100.0, BURST + 3 * RATE, 0.0)
    assert budget.wait(100.0, 0.0) == 3
    assert budget.wait(102.0, 0.0) == 1
    assert budget.wait(103.0, 0.0) == 0


@given(st.lists(st.tuples(st.integers(1, BURST), st.floats(0, 10)), min_size=1, max_size=50))
def test_on_the_average_no_more_is_written_than_is_said(sizes: list[tuple[int, float]]) -> None:
    """Whoever waits as long as told, and rests in between."""
    budget, now, written = SaveBudget(), 1000.0, 0
    for size, pause in sizes:
        now += pause
        now += budget.wait(now, 0.0)
        assert budget.wait(now, 0.0) <= 1e-6
        budget.spend(now, size, 0.01)
        written += size
        assert written - size <= BURST + RATE * (now - 1000.0) + 1
