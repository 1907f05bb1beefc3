"""How many bytes of bodies may be held: by one request, and by all of them together."""

from __future__ import annotations

import threading
from collections.abc import Callable

from puna.errors import Overloaded, PayloadTooLarge
from puna.lane import in_lane
from puna.server.collector import FULL_COLLECTIONS


class Bodies:
    """What all requests under way hold together, in bytes. Safe from several threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Overloaded when there is no room."""
        with self._lock:
            if self._held + size > self._limit:
                raise Overloaded(
                    f"The bodies of the requests under way have more than {self._limit} bytes (PUNA_MAX_BODIES)."
                )
            self._held += size

    def give_back(self, size: int) -> None:
        with self._lock:
            self._held -= size


class Allowance:
    """What one request holds. `limit`: bytes of its body, as it comes and in each form that is unpacked from it."""

    def __init__(self, limit: int, bodies: Bodies) -> None:
        self._limit = limit
        self._bodies = bodies
        self._held = 0
        self._large = False
        self._kept: list[object] = []

    def too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request body is larger than {self._limit} bytes (PUNA_MAX_BODY).")

    def meter(self) -> Callable[[int], None]:
        """Counts the bytes of one form of the body. PayloadTooLarge over the limit, Overloaded without room."""
        size = 0

        def count(more: int) -> None:
            nonlocal size
            size += more
            if size > self._limit:
                raise self.too_large()
            self._bodies.take(more)
            self._held += more

        return count

    def grow_large(self) -> None:
        """Say that millions of objects may come of this body."""
        if not self._large:
            self._large = True
            FULL_COLLECTIONS.stop()

    def keep(self, value: object) -> None:
        """What a large body became, until the request has been answered: `let_go` frees it beside the loop, since a
        hundred thousand objects take as long to free as to make."""
        if self._large:
            self._kept.append(value)

    def let_go(self) -> None:
        """Of all that was kept. Whoever answered needs it no more."""
        if self._kept:
            kept, self._kept = self._kept, []
            in_lane.begin(lambda: _free(kept))

    def give_back(self) -> None:
        """All bytes, when the request has ended."""
        self._bodies.give_back(self._held)
        self._held = 0
        if self._large:
            self._large = False
            FULL_COLLECTIONS.go_on()


def _free(kept: list[object]) -> None:
    """One by one: nothing else runs while one is freed."""
    while kept:
        kept.pop()
