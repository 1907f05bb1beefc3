"""Whether a process beside this one gets on. One that is stopped, or starved, would be waited for for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import psutil

LOCAL_SECONDS = 60.0
"""For which a process that only computes, and reads and writes files, may take no time of a processor."""


def processor_seconds(pid: int) -> float:
    """What it has had of processors; 0 when it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


class Standstill:
    """Asked now and then, tells when a process has given no sign of life for `limit` seconds."""

    def __init__(self, pid: int, limit: float) -> None:
        self._pid = pid
        self._limit = limit
        self._seen: tuple[float, Hashable] | None = None
        self._since = time.monotonic()

    def over(self, sign: Hashable = None) -> bool:
        """A sign is its processor's time, or `sign`: whatever else changes when it gets on."""
        seen, now = (processor_seconds(self._pid), sign), time.monotonic()
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since >= self._limit


@contextmanager
def ended_at_standstill(pid: int, limit: float, end: Callable[[], object]) -> Iterator[threading.Event]:
    """Within, a thread calls `end` when the process gives no sign of life; the event says that it did."""
    done, ended = threading.Event(), threading.Event()
    standstill = Standstill(pid, limit)

    def look() -> None:
        while not done.wait(min(limit / 4, 1.0)):
            if standstill.over():
                ended.set()
                end()
                return

    thread = threading.Thread(target=look, name="standstill", daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        done.set()
        thread.join()
