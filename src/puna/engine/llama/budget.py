"""When the next slot may be written that nobody else needs yet, so that a kill costs little. Pure arithmetic.

A slot is written whole, with every turn anew: a conversation with a small model is 20 MB, one with a large model more
than a gigabyte. So what is written is bounded in the engine's time, for it answers nobody meanwhile, and in bytes.
"""

from __future__ import annotations

SHARE = 0.05
"""How much of the engine's time writing takes while others ask."""

REST = 1.0
"""Seconds without work after which that does not count."""

RATE = 10 << 20
"""Bytes a second, on the average."""

BURST = 1 << 30
"""Bytes that may be written at once, when little was written before."""


class SaveBudget:
    """What may be written. All times are in seconds of one clock that does not go back."""

    def __init__(self) -> None:
        self._next = 0.0
        self._spent = 0.0
        self._seen = 0.0

    def wait(self, now: float, worked: float) -> float:
        """Seconds until the next may be written. `worked`: when there was work last; `now`, if there is."""
        self._refill(now)
        bytes_after = max(self._spent - BURST, 0.0) / RATE
        time_after = min(self._next, worked + REST) - now
        return max(bytes_after, time_after, 0.0)

    def spend(self, now: float, size: int, seconds: float) -> None:
        """So many bytes were written, for which the engine answered nobody for so long."""
        self._refill(now)
        self._spent += size
        self._next = now + seconds / SHARE

    def _refill(self, now: float) -> None:
        self._spent = max(self._spent - RATE * (now - self._seen), 0.0)
        self._seen = now
