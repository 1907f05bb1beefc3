"""Who has which state: what sequences of some models have beside their blocks. Pure bookkeeping; it knows no model.

A state is what came of a sequence's first tokens. It can always be computed anew from what these left in their blocks,
so it is only time that a kept one saves. A running sequence has one to itself; what is left of a sequence that is over
is kept until another needs the room, and then that goes first which was left longest ago.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Holding:
    """State `number`, and of how many tokens it is what came of them."""

    number: int
    absorbed: int


class States:
    """`count` of them, numbered from 0: as many as sequences run at once, or more."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count - 1, -1, -1))
        self._kept: OrderedDict[int, array[int]] = OrderedDict()

    def open(self, tokens: Sequence[int], ready: int) -> Holding:
        """A state for a sequence of these `tokens`, the first `ready` of which are in the cache.

        It is the kept one that has absorbed the most of these and nothing else, or an empty one.
        """
        wanted = array("i", tokens[:ready])
        found = {number: len(held) for number, held in self._kept.items() if held == wanted[: len(held)]}
        if found:
            number = max(found, key=found.__getitem__)
            del self._kept[number]
            return Holding(number, found[number])
        return Holding(self._free.pop() if self._free else self._kept.popitem(last=False)[0], 0)

    def close(self, state: Holding, tokens: Sequence[int]) -> None:
        """The sequence, of these `tokens`, is over."""
        if state.absorbed:
            self._kept[state.number] = array("i", tokens[: state.absorbed])
        else:
            self._free.append(state.number)
