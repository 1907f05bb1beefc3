from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

from puna.lane import in_lane

where: ContextVar[str] = ContextVar("where", default="nowhere")


async def test_few_are_at_work_at_once():
    at_work, most, lock = 0, 0, threading.Lock()
    full = threading.Barrier(in_lane.threads)

    def work() -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        full.wait()  # all threads are busy, and nothing else has begun
        with lock:
            at_work -= 1

    await asyncio.gather(*(in_lane(work) for _ in range(5 * in_lane.threads)))
    assert most == in_lane.threads


async def test_work_knows_for_whom_it_is_done():
    where.set("here")
    assert await in_lane(where.get) == "here"
