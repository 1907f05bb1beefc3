"""The scheduler on a busy day, in virtual time: every request ends once and in time, and none waits for ever.

What must hold is checked in `fakes.simulation`. `PUNA_TEST_SIMULATION` says how many requests there are; 200,000 take
minutes.
"""

from __future__ import annotations

import os

import pytest
from structlog.testing import capture_logs

from fakes.simulation import simulate

REQUESTS = int(os.environ.get("PUNA_TEST_SIMULATION", "1000"))


@pytest.mark.parametrize("seed", [1, 2])
def test_every_request_ends_once_and_in_time(seed: int) -> None:
    with capture_logs():  # to write them takes longer than all else
        outcome = simulate(REQUESTS, seed)
    assert {
        "answered",
        "cancelled",
        "overloaded",
        "deadline_exceeded",
        "model_load_failed",
        "runner_died",
    } <= outcome.ends.keys(), "all of it happened"
    assert outcome.at_once > 0
    assert outcome.loads < outcome.ends.total() / 4, "no thrashing"
