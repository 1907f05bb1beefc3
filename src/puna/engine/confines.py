"""For child processes that do what a stranger's text makes them do: how much they may take. Standard library only.

A system may have no such bounds: then a parent's clock is all there is.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

OVER_TIME = -getattr(signal, "SIGPROF", 0)
"""The return code of a process that used more of a processor than it may."""


def bound_memory(room: int) -> None:
    """From now on this process may have so many bytes more than it has. It leaves no file of its memory behind."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform.startswith("linux"):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + room
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def bound_time(seconds: float) -> None:
    """End this process when it has used so much of a processor from now on; 0: no more."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)
