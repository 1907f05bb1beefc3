"""Which process the system ends first when it has no memory left: one of ours before the server that speaks to it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

_BEFORE = 200
"""Thousandths of the memory that a process counts as having more than it has; a thousand is the most."""


def ends_first(pid: int) -> None:
    """Let the kernel (Linux) choose this child, and what it starts, before the server, however little it has.

    A runner that is gone is loaded anew. Elsewhere, and for a child that is gone, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, ValueError):
        own = int(Path("/proc/self/oom_score_adj").read_text())
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(min(own + _BEFORE, 1000)))
