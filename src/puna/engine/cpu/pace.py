"""How long steps take: how many tokens one may have, and what a further one costs. Learnt from the steps before.

Only the pace depends on the clock: how a prompt is cut, and what is guessed, change no byte of an answer.
"""

from __future__ import annotations

from puna.engine.cpu.plan import SMALLEST

LONGEST = 0.1
"""Seconds that a step may take while answers run: so long a prompt may hold up their next token."""

ALONE = 0.25
"""Seconds that a step of prompts alone may take, or one that ends a prompt: so long a new request, or a cancel, may
have to wait for it. To end a short prompt in one step takes less than to read all weights for each piece of it."""

MOST = 256
"""Tokens of a step at most: beyond, prompts get no faster (measured), and memory for the step grows."""

FIRST = 64
"""Tokens of a step before anything was measured."""

TELLING = SMALLEST
"""Steps of fewer tokens cost their weights, not their tokens, and tell nothing about the rate.

No more than SMALLEST: else a rate once found too low would allow no step that says otherwise."""

FEW = 48
"""Rows of a step at most that tell what a further row costs beside so few."""

GUESSES = 48
"""Guesses of a step at most: of each a row of logits is wanted, which is as long as the vocabulary."""

FURTHER = 0.1
"""What a further row costs of a step of none, before that was measured."""

_KEPT = 0.97
"""How much of what was learnt each step leaves."""

_TRUST = 0.25
"""How much spread in the numbers of rows (their variance) is worth as much as FURTHER."""

_ODD = 3.0
"""A step that took so many times what it should was held up by something else."""


class Pace:
    """How many tokens a step may have, learnt from how long steps took.

    `most`: tokens of a step at most, instead of MOST.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = max(most or MOST, SMALLEST)
        self._rate: float | None = None
        self._rows = _RowCost()

    def budget(self, answers: int, shortest: int = 0) -> int:
        """Tokens of the next step, with so many running answers in it, and so many tokens of the shortest prompt."""
        if self._rate is None:
            wanted = FIRST
        else:
            ends = shortest and answers + shortest <= self._rate * ALONE
            wanted = max(int(self._rate * (LONGEST if answers else ALONE)), answers + shortest if ends else 0)
        return min(max(wanted, SMALLEST + answers), self._most)

    def room(self, rows: int, answers: int) -> int:
        """Rows that may come to a step of so many, for guesses; a few even where prompts fill it."""
        return min(max(self.budget(answers) - rows, SMALLEST), max(self._most - rows, 0), GUESSES)

    def price(self, rows: int, answers: int) -> float:
        """What a further row in a step of so many costs, in tokens that its running `answers` would get meanwhile."""
        if rows > FEW:
            return answers / rows  # every row takes as long as every other
        return self._rows.further() * answers / self._rows.step(rows)

    def took(self, tokens: int, seconds: float) -> None:
        """A step of that many tokens was computed in that time."""
        if seconds <= 0:
            return
        if tokens <= FEW:
            self._rows.took(tokens, seconds)
        if tokens >= TELLING:
            rate = tokens / seconds
            self._rate = rate if self._rate is None else 0.7 * self._rate + 0.3 * rate


class _RowCost:
    """Seconds of a step as a line over its rows: least squares, the latest steps counting most."""

    def __init__(self) -> None:
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def took(self, rows: int, seconds: float) -> None:
        if self._weight > 8:
            seconds = min(seconds, _ODD * self.step(rows))
        self._weight = self._weight * _KEPT + 1.0
        share = 1.0 / self._weight
        self._x += share * (rows - self._x)
        self._y += share * (seconds - self._y)
        self._xx += share * (rows * rows - self._xx)
        self._xy += share * (rows * seconds - self._xy)

    def further(self) -> float:
        """Seconds of one more row; in steps of none, as long as none were seen."""
        if not self._weight:
            return FURTHER
        guessed = FURTHER * self._y / (1.0 + FURTHER * self._x)
        together = self._xy - self._x * self._y + _TRUST * guessed
        spread = self._xx - self._x * self._x + _TRUST
        # A step without any row takes some time, and no row is free, whatever a few odd steps say.
        return min(max(together / spread, guessed / 8), self._y / max(self._x, 1.0))

    def step(self, rows: int) -> float:
        """Seconds of a step of so many rows."""
        if not self._weight:
            return 1.0 + FURTHER * rows
        return max(self._y + self.further() * (rows - self._x), self._y / 8)
