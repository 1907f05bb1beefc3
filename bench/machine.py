"""The machine while something is measured: how fast it reads memory, and what others take of its processors."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy
import psutil

CORES = psutil.cpu_count(logical=False) or os.cpu_count() or 1
"""Physical ones: as many threads does everything here compute with."""

PART = 64 << 20
"""Bytes that a thread reads at a time: more than the caches hold."""

PATIENCE = 20.0
"""Seconds to wait for a quiet moment."""

QUIET = 0.05
"""Of all processors, what others may take in a moment that is called quiet."""


class Memory:
    """Reads memory with one thread a core. Holds what it reads: PART for each."""

    def __init__(self, threads: int = CORES) -> None:
        self._parts = [numpy.ones(PART // 8, numpy.int64) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads)

    def speed(self) -> float:
        """Bytes a second, at best of six."""
        best = 0.0
        for _ in range(6):
            began = time.perf_counter()
            list(self._pool.map(numpy.bitwise_or.reduce, self._parts))
            best = max(best, PART * len(self._parts) / (time.perf_counter() - began))
        return best


def busy() -> float:
    """Seconds of work of all processors since the machine began; what the hypervisor took for others is among them."""
    times = psutil.cpu_times()._asdict()
    idle = ("idle", "iowait", "guest", "guest_nice")  # guests are in user and nice already
    return sum(seconds for kind, seconds in times.items() if kind not in idle)


def worked(pids: Iterable[int]) -> float:
    """Seconds of work of these processes and of this one, and of all their children, those that have ended too."""
    processes = [psutil.Process()]
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            processes += [process, *process.children(recursive=True)]
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


@dataclass(frozen=True, slots=True)
class Moment:
    """The state of the clocks at one instant, to look back to."""

    wall: float
    busy: float
    worked: float
    pids: tuple[int, ...]

    @classmethod
    def now(cls, pids: tuple[int, ...] = ()) -> Moment:
        return cls(time.perf_counter(), busy(), worked(pids), pids)

    def others(self) -> float:
        """Of all processors, the share that other processes took since then."""
        wall = time.perf_counter() - self.wall
        taken = (busy() - self.busy) - (worked(self.pids) - self.worked)
        return max(0.0, taken / (wall * (os.cpu_count() or 1)))


def await_quiet(patience: float = PATIENCE) -> None:
    """Until others take next to nothing for a quarter of a second, or patience ends."""
    end = time.perf_counter() + patience
    while time.perf_counter() < end:
        moment = Moment.now()
        time.sleep(0.25)
        if moment.others() < QUIET:
            return
