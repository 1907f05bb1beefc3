"""What the scheduler must not do between two turns of the event loop: a test for each of its conditions.

Each was seen to fail with its condition taken out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fakes.house import make_model
from fakes.virtual_time import pass_time, run_virtual
from fakes.waiting import turn
from puna.engine.runner import LoadOptions, ModelFiles, Runner
from puna.engine.scripted import ScriptedEngine, ScriptedRunner, ScriptedVocabulary
from puna.errors import LoadFailed, RunnerDied
from puna.model.digest import Digest
from puna.model.model import Model
from puna.scheduler.scheduler import Scheduler
from puna.settings import Settings
from puna.types import Options

TURNS = 25
"""Of the event loop, after which all that follows has happened."""


class Closing(ScriptedRunner):
    closed = 0

    async def close(self) -> None:
        self.closed += 1
        await turn()
        await super().close()


class Gated(ScriptedEngine):
    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False
        self.made: list[Closing] = []

    async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
        await self.gate.wait()
        if self.fails:
            raise LoadFailed("it fails")
        made = await super().start(files, load, reason=reason)
        assert isinstance(made, ScriptedRunner)
        self.made.append(Closing(files.name, self.script, ScriptedVocabulary(), made.info))
        return self.made[-1]


def model(name: str) -> Model:
    return make_model(name, weights_digest=Digest.parse("sha256:" + f"{ord(name[0]):x}" * 32))


@asynccontextmanager
async def scheduling(engine: Gated, **settings: object) -> AsyncIterator[Scheduler]:
    made = Settings(models=Path("none"), engine="scripted", stall_timeout=0, **settings)  # type: ignore[arg-type]
    async with Scheduler({"scripted": engine}, made, free_memory=lambda: 2**40) as scheduler:
        yield scheduler


async def settle() -> None:
    for _ in range(TURNS):
        await turn()


class Holding:
    """A request that holds its runner until told."""

    def __init__(self, scheduler: Scheduler, name: str, keep_alive: float | None = None) -> None:
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._run(scheduler, name, keep_alive))

    async def _run(self, scheduler: Scheduler, name: str, keep_alive: float | None) -> Runner:
        async with scheduler.lease(model(name), Options(), keep_alive=keep_alive) as lease:
            await self.end.wait()
            return lease.runner


async def touch(scheduler: Scheduler, name: str, keep_alive: float | None = None) -> Runner:
    async with scheduler.lease(model(name), Options(), keep_alive=keep_alive) as lease:
        return lease.runner


async def test_nothing_is_evicted_for_one_that_is_cancelled_as_its_turn_comes() -> None:
    async with scheduling(Gated(), max_loaded_models=1) as scheduler:
        holding = Holding(scheduler, "a")
        await settle()
        waiting = Holding(scheduler, "b")
        await settle()
        holding.end.set()
        waiting.task.cancel()
        await settle()
        assert await touch(scheduler, "a") is await holding.task


async def test_the_end_refuses_nobody_that_is_cancelled_already() -> None:
    async with scheduling(Gated(), max_loaded_models=1) as scheduler:
        Holding(scheduler, "a")
        await settle()
        waiting = Holding(scheduler, "b")
        await settle()
        waiting.task.cancel()
        await scheduler.close()
        await settle()
        assert waiting.task.cancelled()


def test_what_never_was_loaded_is_not_unloaded_later() -> None:
    async def fail() -> None:
        engine = Gated()
        engine.fails = True
        async with scheduling(engine, keep_alive=5.0) as scheduler:
            with pytest.raises(LoadFailed):
                await touch(scheduler, "a")
            await pass_time(10.0)

    with capture_logs() as log:
        run_virtual(fail())
    assert "unloading" not in [one["event"] for one in log]


async def test_who_leaves_takes_no_runner_from_others() -> None:
    engine = Gated()
    async with scheduling(engine) as scheduler:
        staying, leaving = (Holding(scheduler, "a", keep_alive=0) for _ in range(2))
        await settle()
        leaving.end.set()
        await settle()
        another = Holding(scheduler, "a", keep_alive=0)
        await settle()
        assert scheduler.waiters() == ()
        assert len(engine.made) == 1
        assert not engine.made[0].died.done()
        for one in (staying, another):
            one.end.set()
        await settle()
        assert engine.made[0].died.done()


async def test_what_is_loaded_as_the_last_that_wanted_it_goes_is_not_kept() -> None:
    engine = Gated()
    engine.gate.clear()
    async with scheduling(engine) as scheduler:
        wanting = Holding(scheduler, "a")
        await settle()
        engine.gate.set()
        wanting.task.cancel()
        await settle()
        assert scheduler.loaded() == ()
        assert all(runner.died.done() for runner in engine.made)


async def test_an_orderly_end_is_no_death() -> None:
    with capture_logs() as log:
        async with scheduling(Gated()) as scheduler:
            for _ in range(4):  # three that died in a row would let the model rest
                await touch(scheduler, "a", keep_alive=0)
                await settle()
    assert "runner died" not in [one["event"] for one in log]


async def test_a_runner_is_closed_once() -> None:
    engine = Gated()
    async with scheduling(engine) as scheduler:
        await touch(scheduler, "a")
        await asyncio.gather(*(scheduler.unload(model("a").name) for _ in range(3)))
    assert [runner.closed for runner in engine.made] == [1]


def test_what_left_before_its_time_is_not_unloaded_again_when_that_is_over() -> None:
    async def leave() -> None:
        async with scheduling(Gated(), keep_alive=5.0) as scheduler:
            await touch(scheduler, "a")
            await scheduler.unload(model("a").name)
            await pass_time(10.0)

    with capture_logs() as log:
        run_virtual(leave())
    assert [one["event"] for one in log].count("unloading") == 0


def test_what_is_used_again_is_not_unloaded_when_its_first_time_is_over() -> None:
    async def use() -> None:
        engine = Gated()
        async with scheduling(engine, keep_alive=5.0) as scheduler:
            await touch(scheduler, "a")
            await pass_time(3.0)
            holding = Holding(scheduler, "a")
            await pass_time(4.0)
            await touch(scheduler, "a")
            assert len(engine.made) == 1
            holding.end.set()
            await pass_time(1.0)

    run_virtual(use())


async def test_what_is_to_leave_serves_its_requests_to_their_end() -> None:
    engine = Gated()
    async with scheduling(engine) as scheduler:
        holding = Holding(scheduler, "a")
        await settle()
        await scheduler.unload(model("a").name)
        await settle()
        assert not engine.made[0].died.done()
        holding.end.set()
        await settle()
        assert engine.made[0].died.done()


async def test_who_goes_lets_the_next_in_line_begin() -> None:
    """The first in line is cancelled: what it waited for is not what the next one waits for."""
    engine = Gated()
    async with scheduling(engine, max_loaded_models=1, num_parallel=1) as scheduler:
        first, second = Holding(scheduler, "a"), Holding(scheduler, "b")
        await settle()
        third = Holding(scheduler, "a")
        await settle()
        second.task.cancel()
        await settle()
        first.end.set()
        third.end.set()
        assert await asyncio.wait_for(third.task, 30) is await first.task


async def test_a_runner_that_died_is_gone_once_though_it_is_used() -> None:
    engine = Gated()
    async with scheduling(engine) as scheduler:
        holding = Holding(scheduler, "a")
        await settle()
        engine.made[0].kill("killed")
        await settle()
        assert await touch(scheduler, "a") is engine.made[1]
        holding.end.set()
        with suppress(RunnerDied):
            await holding.task
        await settle()
        assert await touch(scheduler, "a") is engine.made[1]


async def test_whose_turn_comes_by_another_that_ends_is_counted_as_begun() -> None:
    async with scheduling(Gated(), num_parallel=1) as scheduler:
        first = Holding(scheduler, "a")
        await settle()
        second = Holding(scheduler, "a")
        await settle()
        assert len(scheduler.waiters()) == 1
        first.end.set()
        await settle()
        assert scheduler.waiters() == ()
        second.end.set()
        await second.task
