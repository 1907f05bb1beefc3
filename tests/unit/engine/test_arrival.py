"""Waiting without a turn of the event loop: who waits goes on inside the call, in a context of its own."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from puna.engine.llama.arrival import Arrival

WHO: ContextVar[str] = ContextVar("who")


async def come(arrival: Arrival) -> None:
    """As a connection does: from a callback of the loop. Returns right after it, before any other callback."""
    called = asyncio.get_running_loop().create_future()

    def callback() -> None:
        arrival.come()
        called.set_result(None)

    asyncio.get_running_loop().call_soon(callback)
    await called


async def test_who_waits_goes_on_inside_the_call() -> None:
    arrival, seen = Arrival(), list[str]()

    async def wait() -> None:
        for _ in range(3):
            await arrival
            seen.append("went on")

    async def watch(task: asyncio.Task[None]) -> None:
        await asyncio.sleep(0)
        done = asyncio.get_running_loop().create_future()

        def callback() -> None:
            for _ in range(3):
                seen.append("comes")
                arrival.come()
            done.set_result(None)

        asyncio.get_running_loop().call_soon(callback)
        await done
        await task

    task = asyncio.create_task(wait())
    await watch(task)
    assert seen == ["comes", "went on"] * 3


async def test_nobody_waits() -> None:
    arrival = Arrival()
    await come(arrival)
    waiting = asyncio.create_task(_once(arrival))
    await asyncio.sleep(0)
    assert not waiting.done()
    await come(arrival)
    await waiting


async def test_goes_on_in_its_own_context() -> None:
    arrival, seen = Arrival(), list[str]()

    async def wait() -> None:
        WHO.set("waiter")
        await arrival
        seen.append(WHO.get())
        WHO.set("changed")

    WHO.set("ringer")
    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    await come(arrival)
    await task
    assert seen == ["waiter"]
    assert WHO.get() == "ringer"


async def test_cancelled_while_it_waits() -> None:
    arrival = Arrival()
    task = asyncio.create_task(_once(arrival))
    await asyncio.sleep(0)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    again = asyncio.create_task(_once(arrival))
    await asyncio.sleep(0)
    await come(arrival)
    await again


async def test_something_comes_between_the_cancelling_and_its_telling() -> None:
    """The cancellation holds, and nothing of it is left for who waits next."""
    arrival = Arrival()
    task = asyncio.create_task(_once(arrival))
    await asyncio.sleep(0)
    done = asyncio.get_running_loop().create_future()

    def callback() -> None:
        task.cancel()
        arrival.come()
        done.set_result(None)

    asyncio.get_running_loop().call_soon(callback)
    await done
    with pytest.raises(asyncio.CancelledError):
        await task
    again = asyncio.create_task(_once(arrival))
    await asyncio.sleep(0)
    await come(arrival)
    await again


async def test_a_timeout_ends_the_waiting() -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(_once(Arrival()), 0.01)


async def test_an_error_of_who_goes_on_is_its_tasks() -> None:
    arrival = Arrival()

    async def fail() -> None:
        await arrival
        raise ValueError("mine")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await come(arrival)
    with pytest.raises(ValueError, match="mine"):
        await task


async def _once(arrival: Arrival) -> None:
    await arrival
