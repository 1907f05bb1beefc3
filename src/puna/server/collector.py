"""The garbage collector, while large bodies are under way.

A full collection looks at every object in one go: at a million of them, for a tenth of a second in which nothing else
runs. A large body brings a million, all of them in use. So as long as one is under way there are no full collections;
young objects are collected as ever, and what is not in a cycle needs no collection at all.
"""

from __future__ import annotations

import gc
import threading

_NEVER = 1_000_000_000


class FullCollections:
    """Whether there are any. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = 0
        self._usual = 0

    def stop(self) -> None:
        """None until `go_on`, as often as this was called."""
        with self._lock:
            if not self._stopped:
                young, middle, self._usual = gc.get_threshold()
                gc.set_threshold(young, middle, _NEVER)
            self._stopped += 1

    def go_on(self) -> None:
        with self._lock:
            self._stopped -= 1
            if not self._stopped:
                young, middle, _ = gc.get_threshold()
                gc.set_threshold(young, middle, self._usual)


def keep_what_is_there() -> None:
    """No collection looks at the objects that there are now: those of a server that has begun live as long as it."""
    gc.freeze()


FULL_COLLECTIONS = FullCollections()
"""There is one collector a process."""
