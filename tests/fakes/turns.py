"""How long an event loop works at a time, counted in what others cannot change: processor time.

Run as a program (`turns.py FILE`), this is the server of the environment's settings, which keeps its longest turn in
FILE; `Longest` reads it, and begins anew.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

EVERY = 0.005
"""Seconds between two looks."""


class Turns:
    """`turn`: seconds of a processor that the loop's thread used between two looks, at most: others waited so long at
    least. `lag`: seconds that it was late, at worst, and in which its process did something.

    Other processes may keep this one waiting, so it is not the clock that counts.
    """

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        """`told` is called after each look."""
        self.turn = 0.0
        self.lag = 0.0
        self._told = told
        self._over = False

    def begin(self) -> None:
        """In the loop that is to be watched."""
        self._wait(asyncio.get_running_loop())

    def end(self) -> None:
        self._over = True

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(EVERY, self._look, loop, loop.time() + EVERY, time.process_time(), time.thread_time())

    def _look(self, loop: asyncio.AbstractEventLoop, due: float, used: float, turned: float) -> None:
        self.turn = max(self.turn, time.thread_time() - turned)
        self.lag = max(self.lag, min(loop.time() - due, time.process_time() - used))
        self._told()
        if not self._over:
            self._wait(loop)


class Longest:
    """The longest turn of a server in another process, in a file that both have mapped."""

    def __init__(self, path: Path, *, new: bool = False) -> None:
        if new:
            path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)

    def __call__(self) -> float:
        return float(struct.unpack("d", self._shared[:])[0])

    def note(self, turn: float) -> None:
        self._shared[:] = struct.pack("d", turn)


def main(path: Path) -> int:
    from puna.server.log import configure_logging
    from puna.server.run import run
    from puna.settings import Settings

    longest = Longest(path)

    def note() -> None:
        longest.note(max(longest(), turns.turn))
        turns.turn = 0.0

    turns = Turns(note)
    configure_logging(debug=False)
    return run(Settings.from_environment(os.environ), on_ready=lambda _: turns.begin())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
