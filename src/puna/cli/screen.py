"""The terminal that what a command prints is seen on."""

from __future__ import annotations

import shutil
import sys


def columns() -> int | None:
    """None: stdout is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
