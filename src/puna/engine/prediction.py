"""A text that an answer may be repeating, and where in it the answer is. Pure; for token ids of any vocabulary.

An engine takes what comes next there as a guess; whoever counts, how much of a predicted text came to appear.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

GRAM = 3
"""Tokens that must agree for a place to be found again anywhere in the text."""

PAIR = 32
"""How many tokens after the place where it was lost two tokens are enough."""

RUN = 16
"""Tokens that are compared to tell how well a place fits; more make no difference."""

TRUSTED = 4
"""What the beginning of an expected text counts for, as a run of tokens that agreed."""

PLACES = 8
"""Places with the same GRAM tokens before them that are compared: the latest of them."""

REACH = 1 << 16
"""Tokens at the end of a text, as it is given, that are looked through: what is noted of each takes some 100 bytes."""

AT_ONCE = 2048
"""Tokens that are looked through for one of the answer, which takes a millisecond: a long text is known bit by bit."""

NOWHERE = (0, 0)
"""No place: nothing before it fits."""

_SHIFT = 21
"""Bits that hold every token of any vocabulary."""


class Follower:
    """Follows an answer through a text, token by token.

    `text` may be the very list that the answer grows in: then only what came before counts. `from_start`: the answer
    is expected to begin as the text does.

    `at`: the place in `text` of the token that comes next if the answer goes on repeating, None: nobody knows. `run`:
    how many tokens before it agreed, RUN at most.
    """

    def __init__(self, text: Sequence[int], *, from_start: bool = False) -> None:
        self._text = text
        self.at: int | None = 0 if from_start and text else None
        self.run = TRUSTED if self.at == 0 else 0
        self._lost: int | None = None
        self._latest: dict[int, int] = {}
        self._first = max(GRAM, len(text) - REACH)
        self._earlier = array("i")

    def ahead(self, most: int) -> list[int]:
        """The tokens that come next if the answer goes on repeating, `most` at most."""
        return [] if self.at is None else list(self._text[self.at : self.at + most])

    def feed(self, answer: Sequence[int]) -> None:
        """The last of `answer`, which may hold a prompt before it, has just come."""
        at, text = self.at, self._text
        if at is not None and at < len(text) and text[at] == answer[-1]:
            self.at, self.run = at + 1, min(self.run + 1, RUN)
            return
        if self.run:
            self._lost = at
        found = max((self._near(answer), self._anywhere(answer)), key=lambda place: place[1])
        if found[1]:
            self.at, self.run = found
        elif at is not None and self.run:
            # One token may stand in place of another.
            self.at, self.run = at + 1, 0
        else:
            self.at = None

    def _near(self, answer: Sequence[int]) -> tuple[int, int]:
        """The place behind the last two tokens, where they stand soon after the way was lost; how well it fits."""
        text, start = self._text, self._lost
        if start is None or text is answer or len(answer) < 2:
            return NOWHERE
        before, last = answer[-2], answer[-1]
        for place in range(start + 1, min(start + PAIR, len(text))):
            if text[place] == last and text[place - 1] == before:
                return place + 1, self._fits(answer, place + 1)
        return NOWHERE

    def _anywhere(self, answer: Sequence[int]) -> tuple[int, int]:
        """The place that fits best; of equals the first from where the way was lost on, else the latest."""
        if len(answer) < GRAM:
            return NOWHERE
        self._index()
        place, best = self._latest.get(_key(*answer[-GRAM:]), -1), NOWHERE
        start = len(self._text) if self._lost is None else self._lost
        for _ in range(PLACES):
            if place < 0:
                break
            fit = self._fits(answer, place)
            if fit > best[1] or (fit == best[1] and place >= start):
                best = place, fit
            place = self._earlier[place - self._first]
        return best

    def _fits(self, answer: Sequence[int], place: int) -> int:
        """How many tokens before `place` are the last of the answer."""
        text, most = self._text, min(place, len(answer), RUN)
        count = 0
        while count < most and text[place - 1 - count] == answer[-1 - count]:
            count += 1
        return count

    def _index(self) -> None:
        """Note what stands before each place that has a token."""
        text, latest, earlier = self._text, self._latest, self._earlier
        begin = self._first + len(earlier)
        for place in range(begin, min(len(text), begin + AT_ONCE)):
            key = _key(text[place - 3], text[place - 2], text[place - 1])
            earlier.append(latest.get(key, -1))
            latest[key] = place


def _key(first: int, second: int, third: int) -> int:
    return (first << _SHIFT | second) << _SHIFT | third


def appeared(prediction: Sequence[int], answer: Sequence[int]) -> int:
    """How many tokens of `prediction` appeared in `answer`, in stretches that a Follower finds. Each counts once."""
    follower = Follower(prediction, from_start=True)
    seen = bytearray(len(prediction))
    so_far: list[int] = []
    for token in answer:
        so_far.append(token)
        at = follower.at
        follower.feed(so_far)
        if follower.at is None or not follower.run:
            continue
        moved_on = at is not None and follower.at == at + 1
        reach = 1 if moved_on else follower.run
        for place in range(follower.at - reach, follower.at):
            seen[place] = 1
    return seen.count(1)
