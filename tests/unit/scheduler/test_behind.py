from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from puna.errors import Cancelled
from puna.scheduler.behind import Behind, in_background


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def behind(clock):
    return Behind(share=0.1, quiet=1.0, now=clock)


class Request:
    """A request that stays until it is told to go. `begun` when it has its turn."""

    def __init__(self, behind, *, background=False, gives_way=True, slots=4):
        self.begun = asyncio.Event()
        self.told = asyncio.Event()
        self.role = None
        self._behind, self._background, self._gives_way, self._slots = behind, background, gives_way, slots
        self.task = asyncio.ensure_future(self._run())

    async def _run(self):
        if not self._background:
            await self._stay()
            return
        with in_background(gives_way=self._gives_way) as self.role:
            await self._stay()

    async def _stay(self):
        async with self._behind.turn(lambda: self._slots):
            self.begun.set()
            await self.told.wait()

    async def go(self):
        self.told.set()
        await self.task


async def settled():
    """Everything that can happen without the clock has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def interactive(behind):
    request = Request(behind)
    await request.begun.wait()
    try:
        yield request
    finally:
        await request.go()


async def test_interactive_requests_never_wait(behind):
    requests = [Request(behind) for _ in range(30)]
    await asyncio.gather(*(request.begun.wait() for request in requests))
    await asyncio.gather(*(request.go() for request in requests))


async def test_background_has_the_machine_while_nobody_else_is_there(behind):
    requests = [Request(behind, background=True, slots=0) for _ in range(5)]
    await asyncio.gather(*(request.begun.wait() for request in requests))
    await asyncio.gather(*(request.go() for request in requests))


async def test_one_at_a_time_beside_interactive_work(behind, clock):
    async with interactive(behind):
        first, second = Request(behind, background=True), Request(behind, background=True)
        await first.begun.wait()
        await settled()
        assert not second.begun.is_set()
        clock.now += 2
        await first.go()
        await settled()
        assert not second.begun.is_set()
        clock.now += 17.9
        behind._nudge()
        await settled()
        assert not second.begun.is_set()
        clock.now += 0.2
        behind._nudge()
        await asyncio.wait_for(second.begun.wait(), 5)
        await second.go()


@pytest.mark.parametrize("slots", [0, 1])
async def test_never_beside_interactive_work_on_a_runner_with_one_slot_or_none(behind, clock, slots):
    async with interactive(behind):
        request = Request(behind, background=True, slots=slots)
        await settled()
        assert not request.begun.is_set()
    await settled()
    assert not request.begun.is_set()
    clock.now += 1.1
    behind._nudge()
    await asyncio.wait_for(request.begun.wait(), 5)
    await request.go()


async def test_all_but_one_give_way(behind, clock):
    requests = [Request(behind, background=True) for _ in range(3)]
    await asyncio.gather(*(request.begun.wait() for request in requests))
    async with interactive(behind):
        await settled()
        assert [request.role.gave_way for request in requests] == [False, True, True]
        for request in requests[1:]:
            with pytest.raises(Cancelled):
                await request.task
        clock.now += 1
        await requests[0].go()
        # A second beside interactive work: nine of rest.
        later = Request(behind, background=True)
        await settled()
        assert not later.begun.is_set()
        clock.now += 9.1
        behind._nudge()
        await later.begun.wait()
        await later.go()


async def test_none_stays_where_there_is_one_slot(behind):
    request = Request(behind, background=True, slots=1)
    await request.begun.wait()
    async with interactive(behind):
        with pytest.raises(Cancelled):
            await request.task
        assert request.role.gave_way


async def test_who_gave_way_often_enough_stays(behind):
    requests = [Request(behind, background=True, gives_way=False, slots=1) for _ in range(2)]
    await asyncio.gather(*(request.begun.wait() for request in requests))
    async with interactive(behind):
        await settled()
        assert not any(request.task.done() for request in requests)
    await asyncio.gather(*(request.go() for request in requests))


async def test_one_that_is_cancelled_by_others_is_cancelled(behind):
    running, waiting = Request(behind, background=True), None
    await running.begun.wait()
    async with interactive(behind):
        waiting = Request(behind, background=True)
        await settled()
        for request in (running, waiting):
            request.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request.task
    assert behind._line == []
    assert behind._turns == []


async def test_a_second_interactive_request_ends_nothing(behind):
    request = Request(behind, background=True)
    await request.begun.wait()
    async with interactive(behind), interactive(behind):
        await settled()
        assert not request.task.done()
    await request.go()
