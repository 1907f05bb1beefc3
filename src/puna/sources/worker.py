"""Worker: blocking work in a thread that can be followed, and stopped, from the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

from puna.errors import Cancelled
from puna.lane import Lane, gone, in_jobs
from puna.store.transfers import Mailbox
from puna.types import Progress

T = TypeVar("T")

Report = Callable[[Progress], None]
"""Called in the thread. Raises Cancelled when the work is to stop, so work must call it now and then."""

_EVERY_SECONDS = 0.06


class Worker(Generic[T]):
    """`async for progress in worker.run()`, then `worker.result`. An error of the work is raised by the loop over it.

    Leaving the loop early stops the work at its next report; the generator ends when the thread has.
    """

    def __init__(self, work: Callable[[Report], T], lane: Lane = in_jobs) -> None:
        self._work = work
        self._lane = lane
        self._stop = threading.Event()
        self._done: list[T] = []

    @property
    def result(self) -> T:
        """What the work gave; only after `run` has ended well."""
        (result,) = self._done
        return result

    async def run(self) -> AsyncGenerator[Progress, None]:
        mailbox = Mailbox()
        loop = asyncio.get_running_loop()
        report = _throttled(lambda progress: loop.call_soon_threadsafe(mailbox.put, progress), self._stop)
        job = self._lane.begin(lambda: self._work(report))
        future = asyncio.wrap_future(job)
        future.add_done_callback(lambda _: mailbox.close())
        # Whoever leaves early awaits it no more, and what it raised then is nobody's.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            async for progress in mailbox:
                yield progress
            self._done.append(await future)
        finally:
            self._stop.set()
            # The thread holds files open: whoever cleans up next must find it gone.
            await gone(job)


def _throttled(send: Callable[[Progress], object], stop: threading.Event) -> Report:
    """Passes on each new status and each end, and in between some sixteen steps a second."""
    last: tuple[str, str | None] | None = None
    sent_at = 0.0

    def report(progress: Progress) -> None:
        nonlocal last, sent_at
        if stop.is_set():
            raise Cancelled("the work was stopped")
        step, now = (progress.status, progress.digest), time.monotonic()
        if step != last or progress.completed == progress.total or now - sent_at >= _EVERY_SECONDS:
            last, sent_at = step, now
            send(progress)

    return report
