import asyncio
from collections.abc import AsyncGenerator

import pytest

from puna.errors import SourceError
from puna.store.transfers import Mailbox, Transfers
from puna.types import Progress


class Job:
    """Work that waits to be told to go on, and knows how often it was started and whether it was stopped."""

    def __init__(self, error: Exception | None = None) -> None:
        self.starts = 0
        self.stopped = False
        self.go = asyncio.Event()
        self.error = error

    async def run(self) -> AsyncGenerator[Progress, None]:
        self.starts += 1
        try:
            yield Progress("one")
            await self.go.wait()
            yield Progress("two")
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.stopped = True
            raise


async def follow(transfers: Transfers, job: Job, first: asyncio.Event | None = None) -> list[str]:
    seen = []
    async for progress in transfers.join("key", job.run):
        seen.append(progress.status)
        if first is not None:
            first.set()
    return seen


async def test_joined_not_repeated() -> None:
    transfers, job, began = Transfers(), Job(), asyncio.Event()
    early = asyncio.create_task(follow(transfers, job, began))
    await began.wait()
    late_began = asyncio.Event()
    late = asyncio.create_task(follow(transfers, job, late_began))
    await late_began.wait()
    job.go.set()
    assert await asyncio.gather(early, late) == [["one", "two"], ["one", "two"]]
    assert job.starts == 1
    assert await follow(transfers, job) == ["one", "two"]
    assert job.starts == 2


async def test_all_get_the_error() -> None:
    transfers, job = Transfers(), Job(SourceError("broken"))
    tasks = [asyncio.create_task(follow(transfers, job)) for _ in range(3)]
    job.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [SourceError] * 3
    assert job.starts == 1
    with pytest.raises(SourceError):
        await follow(transfers, job)


async def test_stops_when_the_last_one_leaves() -> None:
    transfers, job, began = Transfers(), Job(), asyncio.Event()
    tasks = [asyncio.create_task(follow(transfers, job, began)) for _ in range(2)]
    await began.wait()
    tasks[0].cancel()
    await asyncio.wait({tasks[0]})
    assert not job.stopped
    tasks[1].cancel()
    await asyncio.wait({tasks[1]})
    assert job.stopped


async def test_a_slow_reader_misses_steps_but_no_status() -> None:
    mailbox = Mailbox()
    for done in range(5):
        mailbox.put(Progress("a", "d", 4, done))
    mailbox.put(Progress("b"))
    mailbox.close()
    assert [progress async for progress in mailbox] == [Progress("a", "d", 4, 4), Progress("b")]
