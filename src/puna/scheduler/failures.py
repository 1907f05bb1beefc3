"""Runners that ended on their own, and how long a model rests after that. Pure: it is told the time.

A request that goes well ends the count. Twice in a while a model is simply loaded anew. From the third time on it
rests, each time twice as long: what ends it may be in the file, or in the machine, and loading it again and again keeps
that from others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

WINDOW = 300.0
"""Seconds after which a failure counts no more."""

FREE = 2
"""Failures within the window after which a model is loaded at once."""

FIRST_REST = 1.0
LONGEST_REST = 60.0

KEPT = 256
"""Models of which failures are known."""


def rest(failures: Sequence[float], now: float) -> float:
    """Seconds from `now` until the model may be loaded again. Times of one clock, in seconds, oldest first."""
    counted = [when for when in failures if now - when < WINDOW]
    over = len(counted) - FREE
    if over <= 0:
        return 0.0
    pause = min(FIRST_REST * 2.0 ** min(over - 1, 10), LONGEST_REST)
    return max(counted[-1] + pause - now, 0.0)


@dataclass(frozen=True, slots=True)
class Resting:
    """A model that is not to be loaded for `seconds`, after it failed `times` without a good answer between."""

    model: str
    seconds: float
    times: int
    cause: str


@dataclass(frozen=True, slots=True)
class _Failure:
    when: float
    cause: str
    model: str


class Failures:
    """Those that count, by what was loaded."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, list[_Failure]] = OrderedDict()

    def note(self, key: Hashable, model: str, cause: str, now: float) -> None:
        kept = [failure for failure in self._known.pop(key, []) if now - failure.when < WINDOW]
        self._known[key] = [*kept, _Failure(now, cause, model)]
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        """A request to it went well."""
        self._known.pop(key, None)

    def resting(self, key: Hashable, now: float) -> Resting | None:
        """None: it may be loaded."""
        failures = self._known.get(key, [])
        seconds = rest([failure.when for failure in failures], now)
        if not seconds:
            return None
        return Resting(failures[-1].model, seconds, len(failures), failures[-1].cause)

    def all_resting(self, now: float) -> list[Resting]:
        return [found for key in self._known if (found := self.resting(key, now)) is not None]
