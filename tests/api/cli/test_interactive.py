"""The conversation on a real terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


# Ctrl-C reaches a process only from the terminal that controls its session.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
PUNA = str(Path(sys.executable).with_name("puna"))


class Terminal:
    """A process on a pseudo-terminal: type, and wait for what appears."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master = master
        self.process = process
        self.seen = ""
        self._read_to = 0

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def enter(self, text: str, prompt: str = "Send a message (/? for help)") -> None:
        """Once the prompt is there: before that, the terminal would make another key of Enter."""
        self.expect(prompt)
        self.type(text + "\r")

    def expect(self, text: str, seconds: float = 20) -> None:
        """Wait until `text` appears after what was expected before."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.seen.find(text, self._read_to)
            if found >= 0:
                self._read_to = found + len(text)
                return
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not appear in {self.seen[self._read_to :]!r}"
            if select.select([self._master], [], [], left)[0]:
                data = os.read(self._master, 65536).decode(errors="replace")
                # A terminal that is asked where its cursor is answers.
                if "\x1b[6n" in data:
                    os.write(self._master, b"\x1b[1;1R")
                self.seen += _CONTROL.sub("", data)


@pytest.fixture
def converse(puna: Any) -> Iterator[Callable[..., Terminal]]:
    started: list[tuple[int, subprocess.Popen[bytes]]] = []

    def start(*arguments: str) -> Terminal:
        master, slave = pty.openpty()
        environment = {**puna.environment, "TERM": "xterm", "LINES": "50"}
        process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, PUNA, *arguments],
            env=environment,
            cwd=puna.directory,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        started.append((master, process))
        return Terminal(master, process)

    yield start
    for master, process in started:
        process.kill()
        process.wait(10)
        os.close(master)


def test_a_conversation(converse: Callable[..., Terminal], puna: Any) -> None:
    terminal = converse("run", "tiny")
    terminal.enter("hi")
    terminal.expect("Hello there, friend.")
    terminal.enter('"""one')
    terminal.enter('PROMPT two"""', prompt="...")
    terminal.expect("one\nPROMPT two")
    terminal.enter("/set parameter num_predict 1")
    terminal.expect("Set parameter 'num_predict' to '1'")
    terminal.enter("/set parameter wat 1")
    terminal.expect("Couldn't set parameter")
    terminal.enter("/set verbose")
    terminal.expect("Set 'verbose' mode.")
    terminal.enter("hi")
    terminal.expect("eval count:           1 token(s)")
    terminal.enter("/wat")
    terminal.expect("Unknown command '/wat'. Type /? for help")
    terminal.enter("/load nope")
    terminal.expect("Couldn't find model 'nope'")
    terminal.enter("/clear")
    terminal.expect("Cleared session context")
    terminal.enter("/bye")
    assert terminal.process.wait(20) == 0
    assert "Traceback" not in terminal.seen
    history = Path(puna.environment["XDG_STATE_HOME"]) / "puna" / "history"
    assert "+hi" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_ctrl_c_stops_the_answer_and_ctrl_d_ends(converse: Callable[..., Terminal]) -> None:
    terminal = converse("run", "tiny")
    terminal.expect("Send a message")
    terminal.type("\x03")
    terminal.expect("Use Ctrl + d or /bye to exit.")
    terminal.enter("FOREVER")
    terminal.expect("on and on and")
    terminal.type("\x03")
    terminal.enter("/set system Be brief.")
    terminal.expect("Set system message.")
    terminal.expect("Send a message")
    terminal.type("\x04")
    assert terminal.process.wait(20) == 0
    assert "Traceback" not in terminal.seen
