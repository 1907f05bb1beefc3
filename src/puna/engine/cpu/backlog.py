"""Which blocks are to go to the disk next. Pure bookkeeping."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from puna.engine.cpu.cache import BlockKey

CHAINS = 1024
"""Sequences at most of which blocks wait to be written; those that ended longest ago are given up first."""


@dataclass(frozen=True, slots=True)
class Write:
    """Block number `block` holds what `key` stands for, and is to be written."""

    key: BlockKey
    block: int


@dataclass(frozen=True, slots=True)
class Touch:
    """All that can be of this sequence is on the disk, and was used now."""

    keys: tuple[BlockKey, ...]


class Backlog:
    """Sequences that are over, as keys of their whole blocks: the newest is written first, from its beginning on."""

    def __init__(self) -> None:
        self._chains: deque[tuple[BlockKey, ...]] = deque(maxlen=CHAINS)

    def __bool__(self) -> bool:
        return bool(self._chains)

    def note(self, chain: tuple[BlockKey, ...]) -> None:
        """A sequence is over, or is to be written as far as it is."""
        if chain:
            self._chains.append(chain)

    def give_up(self) -> None:
        """Nothing can be written: forget all."""
        self._chains.clear()

    def next(self, has: Callable[[BlockKey], bool], find: Callable[[BlockKey], int | None]) -> Write | Touch | None:
        """What to do now. `has`: whether the disk has a block; `find`: the block of the cache that holds it."""
        if not self._chains:
            return None
        chain = self._chains[-1]
        missing = next((place for place, key in enumerate(chain) if not has(key)), len(chain))
        if missing < len(chain):
            block = find(chain[missing])
            if block is not None:
                return Write(chain[missing], block)
        # The rest is there, or has made room for others: without what is before it nothing behind it would be found.
        self._chains.pop()
        return Touch(chain[:missing])
