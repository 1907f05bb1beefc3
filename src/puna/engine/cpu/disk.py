"""Blocks of the cache on the disk, read and written beside the thread that computes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from puna.engine.cpu.cache import BlockKey
from puna.engine.deposit import Deposit

OnDone: TypeAlias = "Callable[[bool, float], None]"
"""Hears whether it was possible, and the seconds of a processor that it took."""

READERS = 2
"""Threads that read and check at once: what is hashed leaves the interpreter's lock alone."""


class Disk:
    """What is deposited of one model's blocks. All but the work itself returns at once."""

    def __init__(self, deposit: Deposit) -> None:
        self._deposit = deposit
        self._known = {bytes.fromhex(key) for key in deposit.stored() if len(key) % 2 == 0}
        self._readers = ThreadPoolExecutor(READERS, "reader")
        self._writer = ThreadPoolExecutor(1, "writer")

    def has(self, key: BlockKey) -> bool:
        """As far as is known; whether it can be read shows when it is."""
        return key in self._known

    def read(self, keys: Sequence[BlockKey], rooms: Sequence[memoryview], done: Callable[[int], None]) -> None:
        """Fill `rooms` with the blocks of `keys`. `done` hears, in another thread, how many hold what they should, from
        the first on; what the others hold is nobody's.
        """
        good = [False] * len(keys)
        left, lock = len(keys), threading.Lock()

        def read(place: int) -> None:
            nonlocal left
            try:
                good[place] = self._deposit.read(keys[place].hex(), rooms[place])
            finally:  # whatever happens: somebody waits for it
                if not good[place]:
                    self._known.discard(keys[place])
                with lock:
                    left -= 1
                    last = not left
                if last:
                    self._writer.submit(self._touch, keys)
                    done([*good, False].index(False))

        for place in range(len(keys)):
            self._readers.submit(read, place)

    def write(self, key: BlockKey, content: bytes, done: OnDone) -> None:
        """Deposit a block. `done` hears, in another thread, whether that was possible."""

        def write() -> bool:
            written = self._deposit.write(key.hex(), content)
            if written:
                self._known.add(key)
            return written

        self._writer.submit(_told, write, done)

    def touch(self, keys: Sequence[BlockKey], done: OnDone) -> None:
        """They were used now, each to be removed after those behind it. `done` hears as from `write`."""

        def touch() -> bool:
            self._touch(keys)
            return True

        self._writer.submit(_told, touch, done)

    def close(self) -> None:
        """Wait for what is under way."""
        self._readers.shutdown()
        self._writer.shutdown()

    def _touch(self, keys: Sequence[BlockKey]) -> None:
        self._deposit.touch([key.hex() for key in keys])


def _told(work: Callable[[], bool], done: OnDone) -> None:
    began, well = time.thread_time(), False
    try:
        well = work()
    finally:
        done(well, time.thread_time() - began)
