"""Long lists of short texts, in a few arrays: as Python's objects they take five times the memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate, repeat
from itertools import count as count_up
from typing import overload

import numpy as np


class ByteTexts(Sequence[bytes]):
    """Byte strings by their numbers. Each is made anew when it is asked for."""

    __slots__ = ("_data", "_ends")

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._data = b"".join(texts)
        self._ends = array("I", accumulate(map(len, texts), initial=0))

    def filled(self, count: int) -> ByteTexts:
        """With empty ones behind, if these are fewer than `count`."""
        more = ByteTexts(())
        more._data, more._ends = self._data, array("I", self._ends)
        more._ends.extend(repeat(len(self._data), max(count - len(self), 0)))
        return more

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        if at < 0:
            at += len(self)
            if at < 0:
                raise IndexError(at)
        return self._data[self._ends[at] : self._ends[at + 1]]

    def __len__(self) -> int:
        return len(self._ends) - 1


class Places:
    """Where each of some texts stands among them; of equal ones the first. A table with open addresses."""

    __slots__ = ("_ends", "_mask", "_table", "_texts")

    def __init__(self, texts: Sequence[str]) -> None:
        count = len(texts)
        self._texts = "".join(texts)
        self._ends = array("I", accumulate(map(len, texts), initial=0))
        self._mask = (2 << count.bit_length()) - 1
        table = np.full(self._mask + 1, _EMPTY, np.int32)
        slots = np.fromiter(map(hash, texts), np.int64, count) & self._mask
        left = np.arange(count, dtype=np.int32)
        for tries in count_up():
            if not len(left):
                break
            if tries == _MANY_TRIES:
                # Equal ones want the same slots: a list of nothing else would try as often as it is long.
                firsts = {texts[place]: (place, slot) for place, slot in zip(left[::-1], slots[::-1], strict=True)}
                left, slots = np.array([*firsts.values()], np.int64).T
            free = table[slots] == _EMPTY
            # Of several that want one slot the first gets it: it is written last.
            table[slots[free][::-1]] = left[free][::-1]
            without = table[slots] != left
            left, slots = left[without], (slots[without] + 1) & self._mask
        self._table = array("i", table.tobytes())

    def get(self, text: str) -> int | None:
        """None if it is not among them."""
        table, mask, ends, texts = self._table, self._mask, self._ends, self._texts
        slot = hash(text) & mask
        while (place := table[slot]) != _EMPTY:
            if texts[ends[place] : ends[place + 1]] == text:
                return place
            slot = (slot + 1) & mask
        return None


_EMPTY = -1
_MANY_TRIES = 16
"""Texts that differ have found their slots by then, but for a few."""
