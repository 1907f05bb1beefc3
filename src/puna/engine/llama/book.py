"""Which slot an answer is made on, so that conversations keep what was computed for them. Pure.

A slot keeps the keys and values of its last request. Left to itself the engine takes the slot that begins most like a
prompt, and throws away what another conversation had there. Here it is known what each slot holds, and what was saved
of slots: a conversation gets its own slot, or a slot into which what was saved of it is restored, and what would be
lost is saved before.

What a slot is said to hold is a guess where an answer was broken off. The engine compares tokens itself: a wrong guess
costs time, and never a wrong answer.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LEAST = 32
"""Tokens that are not worth a save, or a restore: they are computed as soon."""


@dataclass(slots=True)
class Slot:
    """`tokens`: what it holds, as far as is known. `saved`: that can be restored. `used`: grows with every use."""

    tokens: array[int] = field(default_factory=lambda: array("i"))
    saved: bool = True
    used: int = 0


@dataclass(frozen=True, slots=True)
class Seat:
    """The answer is to be made on `slot`. First what it holds is to be saved, if `save`; then what was saved as
    `restore` is to be restored into it.
    """

    slot: int
    save: bool = False
    restore: str | None = None


class Book:
    """What `slots` slots hold, and what is `saved`: tokens by a name."""

    def __init__(self, slots: int, saved: Mapping[str, array[int]] | None = None) -> None:
        self._slots = [Slot() for _ in range(slots)]
        self._saved = dict(saved or {})
        self._uses = 0

    def place(self, prompt: Sequence[int], busy: Collection[int] = ()) -> Seat | None:
        """Where to answer it; None: all are `busy`."""
        free = [number for number in range(len(self._slots)) if number not in busy]
        if not free:
            return None
        wanted = array("i", prompt)
        common = {number: agreeing(self._slots[number].tokens, wanted) for number in free}
        best = max(free, key=lambda number: (common[number], self._slots[number].used))
        slot, kept = best, common[best]
        if common[best] <= LEAST and not common[best] == len(self._slots[best].tokens) > 0:
            slot, kept = self._cheapest(free), 0
        name, found = self._best_saved(wanted)
        if found > common[slot] + LEAST:
            slot = self._cheapest(free)
            return Seat(slot, self._worth_saving(slot, 0), name)
        return Seat(slot, self._worth_saving(slot, kept))

    def holds(self, slot: int, tokens: Sequence[int], *, saved: bool = False) -> None:
        """That slot holds these tokens now, and is used. `saved`: they could be restored."""
        self._uses += 1
        self._slots[slot] = Slot(array("i", tokens), saved, self._uses)

    def tokens(self, slot: int) -> array[int]:
        return self._slots[slot].tokens

    def has(self, tokens: array[int]) -> bool:
        """Whether a slot holds just these."""
        return any(slot.tokens == tokens for slot in self._slots)

    def trim(self, slot: int, count: int) -> None:
        """It turns out to hold no more than so many tokens."""
        del self._slots[slot].tokens[count:]

    def save(self, name: str, tokens: array[int]) -> list[str]:
        """A slot that held these tokens is saved as `name`. Names of what is no longer needed beside it."""
        for slot in self._slots:
            slot.saved |= slot.tokens == tokens
        old = [other for other, held in self._saved.items() if other != name and held == tokens[: len(held)]]
        for other in old:
            del self._saved[other]
        self._saved[name] = tokens
        return old

    def lost(self, name: str) -> None:
        """What was saved so cannot be restored any more."""
        self._saved.pop(name, None)

    def unsaved(self, busy: Collection[int] = ()) -> list[int]:
        """Slots whose loss would be one, those used last first."""
        found = [number for number in range(len(self._slots)) if number not in busy and self._worth_saving(number, 0)]
        return sorted(found, key=lambda number: -self._slots[number].used)

    def _worth_saving(self, slot: int, kept: int) -> bool:
        """Of what it holds, all but the first `kept` would be lost."""
        held = self._slots[slot]
        return not held.saved and len(held.tokens) - kept > LEAST

    def _cheapest(self, free: Iterable[int]) -> int:
        """An empty one, else the one left longest ago."""
        return min(free, key=lambda number: (len(self._slots[number].tokens) > 0, self._slots[number].used))

    def _best_saved(self, wanted: array[int]) -> tuple[str | None, int]:
        found = {name: agreeing(tokens, wanted) for name, tokens in self._saved.items()}
        name = max(found, key=found.__getitem__, default=None)
        return name, found[name] if name is not None else 0


def agreeing(one: array[int], other: array[int]) -> int:
    """How many tokens both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
