"""Runs a native binary on the leash: `python -m puna.engine.llama.launch BINARY ARGUMENT…`. Standard library only.

Where the kernel can hold the leash (Linux), this process becomes the binary. Elsewhere it stays beside it, and ends it
when stdin ends or when it is asked to end itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from puna.engine import leash

GRACE = 3.0
"""Seconds between asking and killing."""


def main(command: Sequence[str]) -> int:
    leash.ignore_interrupt()
    # As the wheel's server is told: see NO_PROGRAMS in `options`. Binaries that know no video overlook it.
    os.environ["LLAMA_ARG_VIDEO_FFMPEG_DIR"] = os.devnull
    if leash.follow_parent(leash.parent()):
        os.execv(command[0], list(command))
    return supervise(command)


def supervise(command: Sequence[str]) -> int:
    """Run `command` until it ends, stdin ends or SIGTERM comes; its return code."""
    child = subprocess.Popen(list(command), stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    threading.Thread(target=_follow_stdin, args=(child,), daemon=True).start()
    return child.wait()


def _follow_stdin(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
