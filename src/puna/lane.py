"""Long work beside an event loop, in few threads, so that the loop's own turn comes soon.

Only one thread of a process runs Python at a time. With many at work the loop waits for each of them, again and again:
eight large bodies at once kept small requests waiting for seconds. Work on large files has threads of its own, so that
what waits for a disk keeps nothing else waiting.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 2
"""One that goes on when the other is at the work of a system call."""

HASHING = 2
"""Large files that are hashed at once before they are loaded; a disk gives no more."""

JOBS = 8
"""Pulls, creations and the like that are at work at once; others wait for their turn."""

TURN_SECONDS = 0.001
"""How long a thread may run before one that waits gets its turn."""

Result = TypeVar("Result")

WAITERS = 8
"""Threads that may wait for other processes at once."""

_waiters = ThreadPoolExecutor(WAITERS, "waiting")
_threads = ThreadPoolExecutor(THREADS, "beside")
_hashing = ThreadPoolExecutor(HASHING, "hashing")
_jobs = ThreadPoolExecutor(JOBS, "jobs")


async def in_lane(work: Callable[[], Result]) -> Result:
    """The result of `work`, done in a thread as soon as one is free."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_threads, lambda: context.run(work))


def begin_job(work: Callable[[], Result]) -> Future[Result]:
    """Begin `work`, which may take long and writes files, in a thread that is for such work alone."""
    return _jobs.submit(contextvars.copy_context().run, work)


async def in_hashing(work: Callable[[Callable[[], bool]], Result]) -> Result:
    """The result of `work` on large files. It gets a question, to be asked now and then: whether nobody waits any more.

    Cancelled, this waits until the thread is done: it holds files open.
    """
    left = threading.Event()
    job = _hashing.submit(contextvars.copy_context().run, work, left.is_set)
    try:
        return await asyncio.shield(asyncio.wrap_future(job))
    finally:
        left.set()
        await gone(job)


async def gone(job: Future[Result]) -> None:
    """Returns when a job has ended, or never will begin; what it raised is left to others."""
    if not job.cancel():
        future = asyncio.wrap_future(job)
        await asyncio.wait([future])
        future.exception()


async def while_waiting(work: Callable[[], Result]) -> Result:
    """The result of `work` that for the most part waits for another process: in a thread of its own kind.

    It keeps no work out of the lane, and none of the default threads from what waits for files.
    """
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_waiters, lambda: context.run(work))


def take_short_turns() -> None:
    """For this process, from now on."""
    sys.setswitchinterval(TURN_SECONDS)
