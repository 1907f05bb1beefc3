"""Long work beside an event loop: a lane of few threads for each kind, so that no kind keeps another waiting.

Only one thread of a process runs Python at a time. With many at work the loop waits for each of them, again and again:
eight large bodies at once kept small requests waiting for seconds. So the lanes of what computes are narrow, and what
waits for a disk, a stranger's template or another process has lanes of its own. What only looks into the store, and is
done in milliseconds, takes asyncio's own threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from puna.errors import Overloaded

TURN_SECONDS = 0.001
"""How long a thread may run before one that waits gets its turn."""

Result = TypeVar("Result")


class Lane:
    """Some threads. Called with work: its result, as soon as a thread was free and has done it.

    `most`: calls that may be under way or wait; who comes then gets Overloaded. None: as many as come.
    """

    def __init__(self, name: str, threads: int, most: int | None = None) -> None:
        self.threads = threads
        self.most = most
        self._calls = 0
        self._executor = ThreadPoolExecutor(threads, name)

    async def __call__(self, work: Callable[[], Result]) -> Result:
        if self.most is not None and self._calls >= self.most:
            raise Overloaded("too many requests of this kind wait for their turn: try again")
        context = contextvars.copy_context()
        self._calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: context.run(work))
        finally:
            self._calls -= 1

    def begin(self, work: Callable[[], Result]) -> Future[Result]:
        """The same without a loop: begin `work` as soon as a thread is free."""
        return self._executor.submit(contextvars.copy_context().run, work)


class FileLane:
    """Some threads that read large files. The work gets a question, to be asked now and then: whether nobody waits any
    more.

    Cancelled, a call waits until the thread is done: it holds files open.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._lane = Lane(name, threads)

    async def __call__(self, work: Callable[[Callable[[], bool]], Result]) -> Result:
        left = threading.Event()
        job = self._lane.begin(lambda: work(left.is_set))
        future = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(future)
        finally:
            left.set()
            await gone(job)
            if future.done() and not future.cancelled():
                future.exception()  # of one that nobody waits for it is nobody's


in_lane = Lane("beside", 2)
"""Large bodies and long texts. One thread goes on when the other is at the work of a system call."""

in_planning = Lane("planning", 2, most=256)
"""Tools, schemas and grammars, which may take a second of a processor."""

while_waiting = Lane("waiting", 8)
"""What waits for the cage to run a template that is known to keep its bounds."""

on_trial = Lane("trial", 4, most=64)
"""The same of one that is not known, or has broken them: it may wait long."""

as_brought = Lane("brought", 4, most=64)
"""The same of one that came with a request."""

while_decoding = Lane("decoding", 2, most=64)
"""Sounds to be written down: a process that decodes one is waited for, many seconds for a long one."""

in_uploads = Lane("uploads", 4)
"""Blocks of uploads on their way to a disk, or from there to a registry."""

while_asking = Lane("asking", 4)
"""Programs that keep credentials, which may ask their user."""

in_downloads = Lane("downloads", 6)
"""Blocks of downloads, written or hashed."""

in_batches = Lane("batches", 1)
"""Lines of batches, read and checked: nobody waits for these."""

in_jobs = Lane("jobs", 8)
"""Steps of pulls, creations and the like, which write files."""

in_making = Lane("making", 2)
"""Conversions of whole models, each in a process of its own. They take minutes."""

in_hashing = FileLane("hashing", 2)
"""Files of the store that are hashed before they are used; a disk gives no more at once."""

while_taking = FileLane("taking", 2)
"""Files outside of the store that callers on this machine name."""


async def gone(job: Future[Result]) -> None:
    """Returns when a job has ended, or never will begin; what it raised is left to others."""
    if not job.cancel():
        future = asyncio.wrap_future(job)
        await asyncio.wait([future])
        future.exception()


def take_short_turns() -> None:
    """For this process, from now on."""
    sys.setswitchinterval(TURN_SECONDS)
