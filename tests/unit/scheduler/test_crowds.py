"""More requests than may wait: who is sent away is told when to come back, finds room then, leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import math
import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fakes.house import make_model
from fakes.virtual_time import pass_time, run_virtual
from puna.engine.scripted import ScriptedEngine
from puna.errors import Overloaded
from puna.model.digest import Digest
from puna.scheduler.rate import COUNTED, LATEST, UNKNOWN, WINDOW, StartRate
from puna.scheduler.scheduler import Scheduler
from puna.settings import Settings
from puna.types import Options

MODEL = make_model()
OTHER = make_model("other", digest="1" * 64, weights_digest=Digest.parse(f"sha256:{1:064x}"))
SLOTS, QUEUE, CLIENTS, REFUSED = 4, 100, 10_000, 3_000
SECONDS = 0.05
"""That a request holds its slot."""


def scheduler() -> Scheduler:
    settings = Settings(models=Path("none"), engine="scripted", num_parallel=SLOTS, max_queue=QUEUE, stall_timeout=0)
    return Scheduler({"scripted": ScriptedEngine()}, settings, free_memory=lambda: 2**40)


async def hold(one: Scheduler, slots: asyncio.Semaphore) -> None:
    async with one.lease(MODEL, Options()), slots:
        await pass_time(SECONDS)


def test_ten_thousand_clients_that_come_back_as_they_are_told_all_finish() -> None:
    tries: Counter[int] = Counter()

    async def client(one: Scheduler, slots: asyncio.Semaphore, number: int) -> None:
        while True:
            tries[number] += 1
            try:
                return await hold(one, slots)
            except Overloaded as error:
                after = error.retry_after
            assert 1 <= after <= LATEST
            await pass_time(math.ceil(after))  # as the header has it

    async def everybody() -> float:
        async with scheduler() as one:
            slots = asyncio.Semaphore(SLOTS)
            await asyncio.gather(*(client(one, slots, number) for number in range(CLIENTS)))
        return asyncio.get_running_loop().time()

    with capture_logs():
        took = run_virtual(everybody())
    assert len(tries) == CLIENTS
    least = CLIENTS * SECONDS / SLOTS
    assert took < 3 * least, "nor is time lost by it"
    assert tries.total() < 6 * CLIENTS
    assert max(tries.values()) < 20, "none is sent away again and again"


def test_thousands_who_are_sent_away_leave_nothing_behind() -> None:
    async def main() -> int:
        async with scheduler() as one:
            await hold(one, asyncio.Semaphore(1))
            closed = asyncio.Semaphore(0)
            waiting = [asyncio.create_task(hold(one, closed)) for _ in range(SLOTS + QUEUE)]
            await pass_time(1)
            await refused(one, 200)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            await refused(one, REFUSED)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
            assert one.waiting == QUEUE
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            assert one.waiting == 0
            return after - before

    async def refused(one: Scheduler, times: int) -> None:
        for _ in range(times):
            with pytest.raises(Overloaded, match="PUNA_MAX_QUEUE"):
                async with one.lease(MODEL, Options()):
                    raise AssertionError("it was let in")

    tracemalloc.start()
    try:
        with capture_logs():
            grown = run_virtual(main())
    finally:
        tracemalloc.stop()
    assert grown < 10_000, "bytes: not one for each"


def test_the_queue_of_one_model_leaves_others_room() -> None:
    async def main() -> None:
        settings = Settings(models=Path("none"), engine="scripted", num_parallel=1, max_queue=10, max_model_queue=3)
        async with Scheduler({"scripted": ScriptedEngine()}, settings, free_memory=lambda: 2**40) as one:
            closed = asyncio.Semaphore(0)
            crowd = [asyncio.create_task(hold(one, closed)) for _ in range(4)]
            await pass_time(1)
            with pytest.raises(Overloaded, match=r"wait for m:latest already \(PUNA_MAX_MODEL_QUEUE\)"):
                await hold(one, closed)
            async with one.lease(OTHER, Options()):
                pass
            for task in crowd:
                task.cancel()
            await asyncio.wait(crowd)

    with capture_logs():
        run_virtual(main())


def test_a_rate_is_that_of_the_latest_starts() -> None:
    rate = StartRate()
    assert rate.per_second(5) == UNKNOWN
    for at in range(COUNTED + 50):
        rate.note(at / 10)
    end = (COUNTED + 49) / 10
    assert rate.per_second(end) == pytest.approx(10, rel=0.02)
    assert rate.per_second(end + 20) < 10, "it falls while none begins"
    assert rate.per_second(end + WINDOW + 1) == UNKNOWN


def test_each_who_is_sent_away_is_told_another_time() -> None:
    rate = StartRate()
    for at in range(100):
        rate.note(at / 10)
    told = [rate.come_back(10.0) for _ in range(1000)]
    assert told[0] == 1
    assert all(1 <= seconds <= LATEST for seconds in told)
    steps = [later - sooner for sooner, later in pairwise(told[20:500])]
    assert all(step == pytest.approx(0.1, rel=0.05) for step in steps)
    assert min(told[610:]) >= LATEST / 2, "who would come too late comes in the second half"
