"""How many tokens a step may compute, so that a long prompt holds up running answers for a bounded time only.

Only the pace depends on the clock: how a prompt is cut changes no byte of an answer (see `plan`).
"""

from __future__ import annotations

from puna.engine.cpu.plan import SMALLEST

GOAL = 0.12
"""Seconds that a step may take while answers run."""

MOST = 256
"""Tokens of a step at most: beyond, prompts get no faster (measured), and memory for the step grows."""

FIRST = 128
"""Tokens of a step beside running answers before anything was measured."""

TELLING = 40
"""Steps of fewer tokens cost their weights, not their tokens, and tell nothing about the rate.

Less than SMALLEST: else a rate once found too low would allow no step that says otherwise."""


class Pace:
    """How many tokens a step may have, learnt from how long steps took.

    `most`: tokens of a step at most, instead of MOST.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = max(most or MOST, SMALLEST)
        self._rate: float | None = None

    def budget(self, answers: int) -> int:
        """Tokens of the next step, with so many running answers in it."""
        if not answers:
            return self._most
        wanted = FIRST if self._rate is None else int(self._rate * GOAL)
        return min(max(wanted, SMALLEST + answers), self._most)

    def took(self, tokens: int, seconds: float) -> None:
        """A step of that many tokens was computed in that time."""
        if tokens < TELLING or seconds <= 0:
            return
        rate = tokens / seconds
        self._rate = rate if self._rate is None else 0.7 * self._rate + 0.3 * rate
