"""For child processes: end when the server ends. Imported in children only; standard library only.

Two ways, for each alone has a gap. The kernel (Linux) kills the child when its parent is gone, even while native code
holds the interpreter; everywhere, a thread waits for the end of stdin, whose other end only the server holds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def follow_parent(parent: int) -> bool:
    """Ask the kernel to kill this process when `parent` is gone; survives an exec. False: this system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        return False
    if os.getppid() != parent:
        # It went before the kernel was told.
        os._exit(1)
    return True


def parent() -> int:
    """The process id of the server, which it left in the environment."""
    return int(os.environ["PUNA_PARENT"])


def ignore_interrupt() -> None:
    """Ctrl-C is for the server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_with_stdin() -> threading.Thread:
    """Start a thread that ends this process at once when stdin ends."""
    thread = threading.Thread(target=_wait, name="leash", daemon=True)
    thread.start()
    return thread


def _wait() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)
