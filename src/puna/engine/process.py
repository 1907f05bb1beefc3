"""A runner's child process: started with little, watched, asked to end, and killed if it does not.

What a child gets: its own session (the terminal's Ctrl-C is for the server, which ends it in order), an environment
without the server's secrets, a private directory as its working directory, no descriptor but three, and stdin as a
leash: its other end is held by this process alone, so stdin ends when this process does, however that comes about.
Every child of ours ends itself then (see `puna.engine.leash`).
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from puna.children import COPY_SECONDS, HeardChild
from puna.errors import LoadFailed
from puna.shortage import ends_first

STOP_GRACE = 5.0
"""Seconds that a child has to end after it was asked."""

SOCKET_PATH_LIMIT = 100
"""Bytes of a Unix socket's path that every system takes."""

_LINES_KEPT = 200
_LINE_LIMIT = 2000

_ALLOWED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|PYTHONPATH|PYTHONHOME|VIRTUAL_ENV"
    r"|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH|NVIDIA_VISIBLE_DEVICES|PUNA_CPU_VARIANT"
    r"|(LC|CUDA|HIP|ROCR|HSA|GGML|OMP|GOMP|KMP|VK|SYCL|ZE|ONEAPI)_[A-Z0-9_]+"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH")

# Without the second, a failed assertion starts a debugger, if there is one, before it ends the process.
_OWN_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "GGML_NO_BACKTRACE": "1"}

_SPINS = "5000"
"""How often a thread of GNU OpenMP, with which llama.cpp's wheel works, looks for the others before it sleeps: some
microseconds, longer than they take on an idle machine. By default it looks for milliseconds. Where other programs take
the processors, each thread then spends its share on waiting for one that is put aside, hundreds of times a token: some
loads gave two tokens a second (`docs/performance.md`)."""

_DIRECTORY = re.compile(r"puna-([0-9]{1,10})-[a-z0-9_]{8}")

_ERROR_LINE = re.compile(
    r"[\d.]+ E +(?P<engine>.*)|(?P<other>(error|fatal|terminate called|.*Error:).*)", re.IGNORECASE
)

_NOTICE = re.compile(r"[\d.]+ [DIW] ")
"""What an engine says of what goes well, or of what it goes on with: no cause of an end."""

_FROM_OUTSIDE = frozenset({"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGXCPU"})
"""What others end a process with, in the middle of its work: nothing that it said before tells why."""

_FAILED_ASSERTION = re.compile(r"(?:\S*[/\\])?(?P<told>[\w.-]+\.(?:c|cc|cpp|h|hpp|cu|m|mm):\d+: .*)")


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Of `environment`, what a child may know."""
    return {
        name: value
        for name, value in environment.items()
        if _ALLOWED.fullmatch(name) is not None and _SECRET.search(name) is None
    }


def runner_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The same for a runner. What this user says of OpenMP's waiting goes."""
    allowed = child_environment(environment)
    waiting = {} if "OMP_WAIT_POLICY" in allowed else {"GOMP_SPINCOUNT": _SPINS}
    return waiting | allowed | _OWN_ENVIRONMENT | {"PUNA_PARENT": str(os.getpid())}


def private_directory() -> Path:
    """A new directory that only this user may enter, with a path short enough for a socket in it.

    Those of servers that are gone without having tidied up are removed.
    """
    parent = Path(tempfile.gettempdir())
    if len(os.fsencode(parent)) > SOCKET_PATH_LIMIT - len("/puna-4194304-12345678/runner.sock") and os.name != "nt":
        parent = Path("/tmp")
    _sweep(parent)
    directory = Path(tempfile.mkdtemp(prefix=f"puna-{os.getpid()}-", dir=parent))
    if (lock := _locked(directory)) is not None:
        _locks[directory] = lock
    return directory


_locks: dict[Path, int] = {}
"""Descriptors that hold this process's private directories. A container that shares their parent sees no process of
another, and is not to take them for left behind."""

_UNLOCKED_SECONDS = 60.0
"""So young a directory may not have its lock yet."""


def _locked(directory: Path) -> int | None:
    """A descriptor that holds it until it is closed; None: another process does, or it cannot be held here."""
    if os.name == "nt":
        return None
    import fcntl

    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def remove_private(directory: Path) -> None:
    """Remove it with all that is in it. Another directory may be given, too."""
    shutil.rmtree(directory, ignore_errors=True)
    if (lock := _locks.pop(directory, None)) is not None:
        os.close(lock)


def _is_left(directory: Path) -> bool:
    """Whether nobody holds it, whatever processes are seen from here."""
    try:
        young = time.time() - directory.stat().st_mtime < _UNLOCKED_SECONDS
    except OSError:
        return False
    if os.name == "nt":
        return not young
    if young or (lock := _locked(directory)) is None:
        return False
    os.close(lock)
    return True


def _sweep(parent: Path) -> None:
    for directory in parent.glob("puna-*-*"):
        owner = _DIRECTORY.fullmatch(directory.name)
        if owner is not None and not psutil.pid_exists(int(owner[1])) and _is_left(directory):
            # Another user's cannot be removed, and need not.
            shutil.rmtree(directory, ignore_errors=True)


def cause(returncode: int, lines: Sequence[str]) -> str:
    """Why a process ended, from how it ended and what it said last."""
    if returncode < 0:
        name = next((item.name for item in signal.Signals if item.value == -returncode), str(-returncode))
        how = f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        if name in _FROM_OUTSIDE:
            return how
    else:
        how = f"exited with {returncode}"
    said = [line.strip() for line in lines if line.strip()]
    errors = [match["engine"] or match["other"] for line in said if (match := _ERROR_LINE.match(line))]
    fatal = [match["told"] for line in said if (match := _FAILED_ASSERTION.fullmatch(line))]
    # A failed assertion ends the process; what was an error before, it has outlived. Of errors the first is nearest to
    # the cause; those after it say what failed because of it.
    told = fatal[:1] or errors[:1] or [line for line in said if not _NOTICE.match(line)][-1:]
    return f"{how}: {told[0]}" if told else how


class ChildProcess:
    """One child. Made by `start`; `close` ends it and removes its directory."""

    def __init__(self, directory: Path) -> None:
        self._child: HeardChild | None = None
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._rest = b""
        self._heard = 0
        self._closing = False
        self._verdict: str | None = None
        self.directory = directory
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done with the cause when the process is gone."""

    @classmethod
    async def start(cls, arguments: Sequence[str], directory: Path) -> ChildProcess:
        """Run `arguments` with `directory` (given away: `close` removes it). LoadFailed if it cannot be run."""
        process = cls(directory)
        environment = runner_environment(os.environ)
        try:
            child = await HeardChild.start(arguments, process._hear, environment=environment, directory=directory)
        except OSError as error:
            remove_private(directory)
            raise LoadFailed(f"{arguments[0]} cannot be run: {error.strerror or error}") from error
        except asyncio.CancelledError:
            remove_private(directory)
            raise
        process._child = child
        ends_first(child.pid)
        child.ended.add_done_callback(process._ended)
        return process

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines of its stderr."""
        return tuple(self._lines)

    @property
    def running(self) -> bool:
        """Asked of the system: `died` is told a little after the process has ended."""
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except OSError:  # no file may be opened to look: `died` tells when it has ended
            return not self.died.done()

    def life(self) -> tuple[int, int]:
        """Two numbers that change while it loads: what it said, and what it has in memory."""
        try:
            return self._heard, psutil.Process(self.pid).memory_info().rss
        except (psutil.NoSuchProcess, OSError):  # it is gone, or no file may be opened to look
            return self._heard, 0

    def kill(self, why: str) -> None:
        """End it now; `why` is the cause. No effect once it has ended."""
        if self.died.done() or self._verdict is not None:
            return
        self._verdict = why
        self._started.kill()

    async def close(self) -> None:
        """Ask, wait, kill; then remove its directory. May be called twice, and cancelled."""
        try:
            if not self.died.done():
                self._ask()
                await asyncio.wait({self.died}, timeout=STOP_GRACE)
        finally:
            if not self.died.done():
                self._started.kill()
            await asyncio.wait({self.died})
            remove_private(self.directory)

    def _ask(self) -> None:
        self._closing = True
        self._started.close_stdin()
        self._started.terminate()

    @property
    def _started(self) -> HeardChild:
        assert self._child is not None
        return self._child

    def _hear(self, data: bytes) -> None:
        """Keep what it says. In the child's thread."""
        self._heard += len(data)
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_LINE_LIMIT:]
        self._lines.extend(line[:_LINE_LIMIT].decode(errors="replace") for line in lines)

    def _ended(self, code: asyncio.Future[int]) -> None:
        if self._rest:
            self._lines.append(self._rest.decode(errors="replace"))
        self.died.set_result(self._verdict or ("closed" if self._closing else self._cause(code.result())))

    def _cause(self, code: int) -> str:
        if self._started.stillborn:
            return f"something stopped it (SIGSTOP) before it began, and it was ended after {COPY_SECONDS:g} s"
        return cause(code, self._lines)


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules in a child with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
