"""Which blocks are to go to the disk next. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from puna.engine.cpu.cache import BlockKey

CHAINS = 1024
"""Sequences at most of which blocks wait to be written; those that came or grew longest ago are given up first."""


@dataclass(frozen=True, slots=True)
class Write:
    """Block number `block` holds what `key` stands for, and is to be written."""

    key: BlockKey
    block: int


@dataclass(frozen=True, slots=True)
class Touch:
    """All that can be of this sequence is on the disk, and was used now."""

    keys: tuple[BlockKey, ...]


@dataclass(frozen=True, slots=True)
class _Chain:
    """The whole blocks of a sequence so far, from its beginning on. `over`: no more will come."""

    keys: tuple[BlockKey, ...]
    over: bool


class Backlog:
    """Sequences by a number: the one that came or grew last is written first, from its beginning on."""

    def __init__(self) -> None:
        self._chains: dict[int, _Chain] = {}

    def __bool__(self) -> bool:
        return bool(self._chains)

    def note(self, number: int, keys: tuple[BlockKey, ...], *, over: bool) -> None:
        """A sequence has grown so far, or is `over`. It takes the place of what was noted of it before."""
        self._chains.pop(number, None)
        if keys:
            self._chains[number] = _Chain(keys, over)
            if len(self._chains) > CHAINS:
                del self._chains[next(iter(self._chains))]

    def give_up(self) -> None:
        """Nothing can be written: forget all."""
        self._chains.clear()

    def next(self, has: Callable[[BlockKey], bool], find: Callable[[BlockKey], int | None]) -> Write | Touch | None:
        """What to do now. `has`: whether the disk has a block; `find`: the block of the cache that holds it."""
        while self._chains:
            number, chain = next(reversed(self._chains.items()))
            missing = next((place for place, key in enumerate(chain.keys) if not has(key)), len(chain.keys))
            if missing < len(chain.keys):
                block = find(chain.keys[missing])
                if block is not None:
                    return Write(chain.keys[missing], block)
            # The rest is there, or has made room for others: without what is before it nothing behind it is found.
            del self._chains[number]
            if chain.over:
                return Touch(chain.keys[:missing])
        return None
