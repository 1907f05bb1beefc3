"""Guesses of what an answer's next tokens are, and when to find out whether they are right. Pure.

A guess is computed as one more row of a step; if it was right, that step brings one token more. Guesses come from what
the answer repeats: its prompt, itself, and the text that its caller predicted. They change what a step costs and
brings, never a token.

How many are made follows what came of those before. Each is worth it where it is likelier to be right than it costs
(`price`, in tokens). Beyond that an account is kept, so that wrong estimates cannot cost much: what guesses cost is
taken from it, what they brought put to it, and each token of the answer adds the little that may be lost to guessing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from puna.engine.prediction import RUN, Follower

MOST = 15
"""Guesses of one answer in a step at most."""

ALLOWED = 0.015
"""Tokens that may be lost to guessing for each token of an answer."""

BEGIN = 0.5
"""Tokens that may be lost before the first of an answer has come."""

EXPECTED = 1.5
"""The same where the caller predicted the text."""

SAVED = 4.0
"""Tokens that the account holds at most: a good stretch pays for no bad one of any length."""

MARGIN = 1.2
"""How many times its price a guess must be worth."""

PROBE = 32
"""Tokens after which one guess is made though none looks worth it: what is repeated may have begun anew."""

_HOPES = (0.3, 0.35, 0.6, 0.85)
"""How likely the next token agrees after a run of so many (see `_kind`), before anything was seen of this answer."""

_WEIGHT = 4.0
"""How many seen guesses a hope counts for."""

_KEPT = 0.97
"""How much of what was seen each further guess leaves."""


class Guesser:
    """The guesses of one answer. `tokens`: its prompt and what it grows by, the very list. `prediction`: see Prompt."""

    def __init__(self, tokens: Sequence[int], prediction: Sequence[int] = ()) -> None:
        self._tokens = tokens
        predicted = [Follower(prediction, from_start=True)] if prediction else []
        self._followers = [*predicted, Follower(tokens)]
        self._hits = [[_WEIGHT * hope for hope in _HOPES] for _ in self._followers]
        self._tries = [[_WEIGHT] * len(_HOPES) for _ in self._followers]
        self._account = EXPECTED if prediction else BEGIN
        self._source = self._run = self._since = 0
        self._price = 0.0

    def feed(self) -> None:
        """One more token has come to the end of `tokens`."""
        for follower in self._followers:
            follower.feed(self._tokens)
        self._account = min(self._account + ALLOWED, SAVED)
        self._since += 1

    def guesses(self, most: int, price: float) -> list[int]:
        """What may come next, `most` tokens at most, as far as that is worth their price."""
        source = int(len(self._followers) > 1 and self._followers[1].run > self._followers[0].run)
        follower = self._followers[source]
        if follower.at is None or most < 1 or not 0 < price * MARGIN < 1:
            return []
        self._source, self._run, self._price = source, _kind(follower.run), price
        count = self._worth(self._hits[source][self._run] / self._tries[source][self._run], price)
        if not count and self._since >= PROBE:
            count = 1
        return follower.ahead(min(count, most, MOST, int(self._account / price)))

    def judged(self, count: int, right: int) -> None:
        """Of the last guesses `count` were computed, and the first `right` of them were so."""
        self._since = 0
        self._account = min(self._account + right - count * self._price, SAVED)
        hits, tries = self._hits[self._source], self._tries[self._source]
        for place in range(min(right + 1, count)):
            hits[self._run] = hits[self._run] * _KEPT + (place < right)
            tries[self._run] = tries[self._run] * _KEPT + 1.0

    @staticmethod
    def _worth(chance: float, price: float) -> int:
        """How many tokens in a row are likely enough to be right."""
        bar = price * MARGIN
        if chance <= bar:
            return 0
        return MOST if chance >= 1 else int(math.log(bar) / math.log(chance))


def _kind(run: int) -> int:
    """Which of the estimates is for a run of so many."""
    return 0 if run == 0 else 1 if run < 4 else 2 if run < RUN // 2 else 3
