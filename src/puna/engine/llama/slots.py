"""Which slot of the engine a request with a cache key belongs on. Pure.

A slot keeps the keys and values of its last request, so a request that begins like that one is cheap there. Left to
itself the engine takes the slot with the longest common beginning, even if that throws away the rest of another
conversation while other slots are empty. A key says which requests belong together.
"""

from __future__ import annotations

from collections.abc import Collection


class SlotKeys:
    """The key that each of `slots` was last used with. One a slot: the memory is bounded by itself."""

    def __init__(self, slots: int) -> None:
        # In the order of use, the longest unused first.
        self._keys: dict[int, str | None] = dict.fromkeys(range(slots))

    def choose(self, key: str, busy: Collection[int]) -> int | None:
        """The free slot that `key` used last; else the free one longest unused that belongs to no key; else None: the
        engine may choose.
        """
        free = [slot for slot in self._keys if slot not in busy]
        own = [slot for slot in free if self._keys[slot] == key]
        if own:
            return own[-1]
        return next((slot for slot in free if self._keys[slot] is None), None)

    def used(self, slot: int, key: str | None) -> None:
        """A request, with `key` or without one, has its prompt on `slot` now."""
        self._keys.pop(slot, None)
        self._keys[slot] = key
