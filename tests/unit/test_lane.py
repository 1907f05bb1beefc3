from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from puna import lane
from puna.errors import Overloaded
from puna.lane import FileLane, Lane, in_hashing, in_lane

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


LANES = {name: value for name, value in vars(lane).items() if isinstance(value, Lane | FileLane)}


@pytest.mark.parametrize("name", LANES)
async def test_a_lane_that_is_full_keeps_no_other_waiting(name: str):
    """Its threads wait for a disk that does not answer, and a hundred more are to come."""
    go, full = threading.Event(), LANES[name]

    def stuck(*_: object) -> None:
        assert go.wait(60)

    held = [asyncio.create_task(full(stuck)) for _ in range(getattr(full, "most", None) or 100)]
    try:
        for other, free in LANES.items():
            if other != name:
                assert await asyncio.wait_for(free(lambda *_: 1), 30) == 1
        assert await asyncio.to_thread(lambda: 1) == 1
        assert not any(one.done() for one in held)
    finally:
        go.set()
        await asyncio.gather(*held)


async def test_a_lane_with_a_bound_refuses_who_is_too_many():
    go, short = threading.Event(), Lane("short", 1, most=3)
    held = [asyncio.create_task(short(go.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await short(go.wait)
    go.set()
    await asyncio.gather(*held)
    assert await short(lambda: 1) == 1


async def test_who_left_is_told_and_waited_for():
    begun, seen = threading.Event(), []

    def hash_it(left: Callable[[], bool]) -> None:
        begun.set()
        while not left():
            pass
        seen.append("left")

    waiting = asyncio.create_task(in_hashing(hash_it))
    await asyncio.to_thread(begun.wait)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert seen == ["left"]
