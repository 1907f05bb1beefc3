"""Runners that ended on their own, and how long a model rests after that. Pure.

A request that goes well ends the count. Twice in a while a model is simply loaded anew. From the third time on it
rests, each time twice as long: what ends it may be in the file, or in the machine, and loading it again and again keeps
that from others.
"""

from __future__ import annotations

from collections.abc import Sequence

WINDOW = 300.0
"""Seconds after which a failure counts no more."""

FREE = 2
"""Failures within the window after which a model is loaded at once."""

FIRST_REST = 1.0
LONGEST_REST = 60.0


def recent(failures: Sequence[float], now: float) -> list[float]:
    """Of the times of failures, those that count at `now`; all on one clock, in seconds, oldest first."""
    return [when for when in failures if now - when < WINDOW]


def rest(failures: Sequence[float], now: float) -> float:
    """Seconds from `now` until the model may be loaded again."""
    counted = recent(failures, now)
    over = len(counted) - FREE
    if over <= 0:
        return 0.0
    pause = min(FIRST_REST * 2.0 ** min(over - 1, 10), LONGEST_REST)
    return max(counted[-1] + pause - now, 0.0)
