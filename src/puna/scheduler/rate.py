"""How fast requests that had to wait begin, of late, and when somebody who is sent away should come back. Pure."""

from __future__ import annotations

from collections import deque

WINDOW = 60.0
"""Seconds that a beginning counts."""

COUNTED = 128
"""The latest beginnings that count."""

UNKNOWN = 1.0
"""Requests a second, while none has begun."""

SOONEST = 1.0
LATEST = 60.0
"""Seconds after which to come back, at least and at most: no client that was asked waits longer."""


class StartRate:
    """Times are of one clock, in seconds."""

    def __init__(self) -> None:
        self._starts: deque[float] = deque(maxlen=COUNTED)
        self._promised = 0.0

    def note(self, now: float) -> None:
        """A request began."""
        self._starts.append(now)

    def per_second(self, now: float) -> float:
        while self._starts and now - self._starts[0] > WINDOW:
            self._starts.popleft()
        if not self._starts:
            return UNKNOWN
        return len(self._starts) / max(now - self._starts[0], 1.0)

    def come_back(self, now: float) -> float:
        """Seconds after which one who is sent away now should find a place in the queue.

        Each gets a time of his own, as far from the last one's as one request begins after another: all at once would
        find room for one. Whoever would come after LATEST seconds comes somewhere in the second half of these.
        """
        self._promised = max(self._promised, now) + 1 / self.per_second(now)
        if self._promised > now + LATEST:
            self._promised = now + LATEST / 2
            return LATEST
        return max(self._promised - now, SOONEST)
