"""What the engine was asked to do and has not answered yet; and what of its work nobody waits for. Pure.

The engine names its work by slot and by a number of its own, and does not say whose it is before its end. But it began
each piece after somebody had asked for it. So of the work that has been seen since some look, there is no more than
there are errands that are as old; where there is more, the newest of it goes on without anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

SlotTask: TypeAlias = tuple[int, int]
"""A slot, and the number of what it works on."""


class _Errand:
    """One thing asked. `looks`: how many there were before it."""

    __slots__ = ("looks",)

    def __init__(self, looks: int) -> None:
        self.looks = looks


class Errands:
    """All that somebody waits for."""

    def __init__(self) -> None:
        self._under_way: set[_Errand] = set()
        self._seen: dict[SlotTask, int] = {}
        self._looks = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Something is asked and waited for, until this is left."""
        errand = _Errand(self._looks)
        self._under_way.add(errand)
        try:
            yield
        finally:
            self._under_way.remove(errand)

    def strays(self, working: Iterable[SlotTask]) -> frozenset[SlotTask]:
        """Look at what the engine works on: the oldest of it that cannot be anybody's."""
        look, self._looks = self._looks, self._looks + 1
        self._seen = {work: self._seen.get(work, look) for work in working}
        for count, (seen, work) in enumerate(sorted((seen, work) for work, seen in self._seen.items()), 1):
            if count > sum(errand.looks <= seen for errand in self._under_way):
                return frozenset({work})
        return frozenset()
