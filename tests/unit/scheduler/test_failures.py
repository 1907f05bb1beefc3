"""How long a model rests whose runners ended."""

from __future__ import annotations

import pytest

from puna.scheduler.failures import FREE, LONGEST_REST, WINDOW, rest


def test_twice_it_is_loaded_at_once() -> None:
    assert rest([], 10) == 0
    assert rest([10.0] * FREE, 10) == 0


@pytest.mark.parametrize(("times", "seconds"), [(3, 1), (4, 2), (5, 4), (9, 60), (1000, LONGEST_REST)])
def test_then_it_rests_longer_each_time(times: int, seconds: float) -> None:
    assert rest([50.0] * times, 50) == seconds
    assert rest([50.0] * times, 50 + seconds / 2) == seconds / 2
    assert rest([50.0] * times, 50 + seconds) == 0


def test_what_is_long_ago_does_not_count() -> None:
    assert rest([0.0, 1.0, WINDOW], WINDOW + 1) == 0
