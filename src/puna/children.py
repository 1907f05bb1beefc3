"""Child processes, started so that none of them holds this one up, not even one that is stopped before it begins.

Until it has become the program that it is to run, a child is a copy of this process, and whoever starts it waits for
that. A copy that something stops (SIGSTOP) would be waited for without end: by an event loop, if that starts it, with
all its requests; and by every thread, if it is made by vfork. So children are made by fork, outside the loop, and a
copy that is stopped for seconds is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

COPY_SECONDS = 2.0
"""How long a copy may be stopped."""

_PIECE = 65536


def spawned(arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """As `subprocess.Popen`. Blocking: for a thread. OSError if it cannot be run.

    Linux ends a child that asked for it (`puna.engine.leash`) with the thread that started it.
    """
    process, _ = _begun(arguments, options)
    return process


def _begun(arguments: Sequence[str], options: Mapping[str, Any]) -> tuple[subprocess.Popen[Any], bool]:
    """And whether it was ended before it was more than a copy."""
    started = threading.Event()
    threading.Thread(target=_end_copies, args=(started,), name="spawn", daemon=True).start()
    try:
        with _fork:
            process = subprocess.Popen(list(arguments), **options)
    finally:
        started.set()
    ended = process.pid in _ended_copies
    _ended_copies.discard(process.pid)
    return process, ended


def answered(
    arguments: Sequence[str], given: bytes, *, environment: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end, with `given` as its input. Blocking. OSError if it cannot be run; `subprocess.TimeoutExpired`
    if it takes longer, which ends it.
    """
    pipe = subprocess.PIPE
    with spawned(arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as process:
        try:
            out, said = process.communicate(given, timeout=seconds)
        finally:
            process.kill()  # nothing, if it has ended
    return subprocess.CompletedProcess(list(arguments), process.returncode, out, said)


class _Fork:
    """While it is entered, by any thread, children are made by fork: with vfork the thread that starts one keeps the
    interpreter. The switch is the one that Python's documentation names. It is the whole process's, and what else this
    process starts had better be made by vfork: to copy half a gigabyte takes 40 ms.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entered = 0
        self._before = True

    def __enter__(self) -> None:
        with self._lock:
            if not self._entered:
                self._before = subprocess._USE_VFORK  # type: ignore[attr-defined]
                subprocess._USE_VFORK = False  # type: ignore[attr-defined]
            self._entered += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._entered -= 1
            if not self._entered:
                subprocess._USE_VFORK = self._before  # type: ignore[attr-defined]


_fork = _Fork()

_ended_copies: set[int] = set()
"""Until whoever started them has looked."""


def _end_copies(started: threading.Event) -> None:
    """Unless the child has begun in time, end what is stopped and still a copy of this process."""
    while not started.wait(COPY_SECONDS):
        with contextlib.suppress(psutil.Error, OSError):
            own = psutil.Process()
            for child in own.children():
                with contextlib.suppress(psutil.Error):
                    if child.status() == psutil.STATUS_STOPPED and child.cmdline() == own.cmdline():
                        _ended_copies.add(child.pid)  # first: its start returns as soon as it is gone
                        child.kill()


class HeardChild:
    """A child whose words, and whose end, a thread of its own waits for. Made by `start`.

    `ended`: its return code, once it is gone and all that it said is heard. `stillborn`: something stopped it before it
    was more than a copy of this process, and it was ended.
    """

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._hear = hear
        self._process: subprocess.Popen[Any] | None = None
        self._unwanted = False
        self.stillborn = False
        self._begun: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[int] = self._loop.create_future()

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        hear: Callable[[bytes], None],
        *,
        environment: Mapping[str, str],
        directory: Path | None = None,
        both: bool = False,
    ) -> HeardChild:
        """Run `arguments` in a session of its own, with a pipe as stdin that is ours to close.

        `hear` is called in the thread with what comes on stderr; `both`: on stdout, too, which goes nowhere otherwise.
        OSError if it cannot be run.
        """
        child = cls(hear)
        options = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE if both else subprocess.DEVNULL,
            "stderr": subprocess.STDOUT if both else subprocess.PIPE,
            "bufsize": 0,
            "env": environment,
            "cwd": directory,
            "start_new_session": True,
        }
        threading.Thread(target=child._live, args=(arguments, options), name="child", daemon=True).start()
        try:
            await asyncio.shield(child._begun)
        except asyncio.CancelledError:
            await child._leave()
            raise
        return child

    async def _leave(self) -> None:
        """Nobody wants it any more: wait until it is gone."""
        self._unwanted = True
        self.kill()
        await asyncio.wait({self._begun})
        if self._begun.exception() is None:
            await asyncio.wait({self.ended})

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def close_stdin(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def kill_all(self) -> None:
        """With what it has started."""
        if self._process is None or self.ended.done():
            return
        if sys.platform == "win32":
            self.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    # ---------------------------------------------------------------------------------------------------- the thread

    def _live(self, arguments: Sequence[str], options: Mapping[str, Any]) -> None:
        try:
            process, self.stillborn = _begun(arguments, options)
            self._process = process
        except Exception as error:  # noqa: BLE001 - it is raised where the start is awaited
            self._post(self._fail, error)
            return
        if self._unwanted:
            self.kill()
        self._post(_settle, self._begun, None)
        pipe = process.stdout or process.stderr
        assert pipe is not None
        self._listen(pipe)
        code = process.wait()
        self.close_stdin()
        self._post(_settle, self.ended, code)

    def _listen(self, pipe: IO[bytes]) -> None:
        with pipe:
            while data := os.read(pipe.fileno(), _PIECE):
                self._hear(data)

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call, *arguments)

    def _fail(self, error: Exception) -> None:
        if not self._begun.done():
            self._begun.set_exception(error)
            self._begun.exception()  # whoever waited may have gone


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    if not future.done():
        future.set_result(outcome)
