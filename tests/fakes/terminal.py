"""A process on a pseudo-terminal: type, and wait for what appears."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")

# Ctrl-C reaches a process only from the terminal that controls its session.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """`raw`: all that was written; `seen`: the same without control sequences."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master = master
        self.process = process
        self.seen = ""
        self.raw = ""
        self._read_to = 0

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def enter(self, text: str, prompt: str = "Send a message (/? for help)") -> None:
        """Once the prompt is there."""
        self.expect(prompt)
        self.type(text + "\r")

    def expect(self, text: str, seconds: float = 60) -> None:
        """Wait until `text` appears after what was expected before."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.seen.find(text, self._read_to)
            if found >= 0:
                self._read_to = found + len(text)
                return
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not appear in {self.seen[self._read_to :]!r}"
            self._read(left)

    def listens(self, times: int = 1, seconds: float = 60) -> None:
        """Wait until a line editor has begun to read for so many times, whether its prompt can be seen or not."""
        deadline = time.monotonic() + seconds
        while self.raw.count("\x1b[?2004h") < times:
            assert self._read(max(0.0, deadline - time.monotonic())), f"no line editor reads: {self.raw[-400:]!r}"

    def ended(self, seconds: float = 60) -> int:
        """The exit status, once the process has ended; what it wrote until then is seen."""
        deadline = time.monotonic() + seconds
        while self._read(max(0.0, deadline - time.monotonic())):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, seconds: float) -> bool:
        """False: nothing came, or nothing more will."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # the last process has left the terminal
            return False
        # A terminal that is asked where its cursor is answers.
        if "\x1b[6n" in data:
            os.write(self._master, b"\x1b[1;1R")
        self.raw += data
        self.seen = _CONTROL.sub("", self.raw)
        return bool(data)


@contextmanager
def on_terminal(
    command: list[str], environment: Mapping[str, str], directory: Path, *, columns: int = 100, lines: int = 50
) -> Iterator[Terminal]:
    """The size is the terminal's own; what the environment says of it is left out."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    kept = {name: value for name, value in environment.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_TERMINAL, *command],
        env={"TERM": "xterm", **kept},
        cwd=directory,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait(10)
        os.close(master)
