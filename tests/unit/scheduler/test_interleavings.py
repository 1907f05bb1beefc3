"""Whatever happens in whatever order: requests, cancels, loads that end or fail, runners that die, time that passes.

Each history is a list of steps. One that failed once is kept as an example.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from fakes.house import make_model
from fakes.virtual_time import pass_time, run_virtual
from fakes.waiting import turn
from puna.engine.runner import LoadOptions, ModelFiles, Runner
from puna.engine.scripted import ScriptedEngine, ScriptedRunner, ScriptedVocabulary
from puna.errors import DeadlineExceeded, LoadFailed, LoadTimeout, Overloaded, RunnerDied
from puna.model.digest import Digest
from puna.scheduler import policy
from puna.scheduler.policy import COLLATE_SECONDS
from puna.scheduler.scheduler import TICK, Scheduler
from puna.settings import Settings
from puna.types import Options

MODELS = [
    make_model(f"m{number}", digest=f"{number:064x}", weights_digest=Digest.parse(f"sha256:{number:064x}"))
    for number in range(4)
]
CONTEXTS, THREADS, KEEP_ALIVES, DEADLINES = (None, 1024, 4096), (None, 1), (None, 0.0, 3.0), (None, 2.0, 9.0)
SLOTS, QUEUE, MODEL_QUEUE, MOST = 2, 6, 4, 2

MANY = 25

Deed = tuple[Any, ...]

number = st.integers(0, 5)
ASKS = st.tuples(
    st.just("ask"),
    st.integers(0, 3),
    st.sampled_from(CONTEXTS),
    st.sampled_from(THREADS),
    st.sampled_from(KEEP_ALIVES),
    st.sampled_from(DEADLINES),
)
DEEDS = st.one_of(
    ASKS,
    ASKS,
    ASKS,
    st.tuples(st.just("cancel"), number),
    st.tuples(st.just("finish"), number),
    st.tuples(st.just("load"), number, st.sampled_from(("ends", "fails", "takes too long"))),
    st.tuples(st.just("kill"), number),
    st.tuples(st.just("unload"), st.integers(0, 3)),
    st.tuples(st.just("pass"), st.sampled_from((0.0, 0.1, 1.0, COLLATE_SECONDS + 2 * TICK, 40.0))),
)
TURNS = st.sampled_from((0, 1, 2, MANY))
"""Of the event loop after a deed: none and the next one comes before anybody was told, MANY and all is done."""


class SlowToClose(ScriptedRunner):
    async def close(self) -> None:
        await pass_time(0.5)
        await super().close()


class Gated(ScriptedEngine):
    """Loads end as they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.loading: list[asyncio.Future[str]] = []
        self.alive: list[Runner] = []
        self.free = False

    async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
        gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if self.free:
            gate.set_result("ends")
        self.loading.append(gate)
        try:
            outcome = await gate
        finally:
            self.loading.remove(gate)
        if outcome == "fails":
            raise LoadFailed(outcome)
        if outcome == "takes too long":
            raise LoadTimeout(outcome)
        made = await super().start(files, load, reason=reason)
        assert isinstance(made, ScriptedRunner)
        runner = SlowToClose(files.name, self.script, ScriptedVocabulary(), made.info)
        self.alive.append(runner)
        runner.died.add_done_callback(lambda _: self.alive.remove(runner))
        return runner


class Asked:
    """One request: its task, and the gate that it holds its runner until."""

    def __init__(self, history: History, deed: Deed) -> None:
        _, model, num_ctx, num_thread, keep_alive, deadline = deed
        self.model, self.options = MODELS[model], Options(num_ctx=num_ctx, num_thread=num_thread)
        self.finish = asyncio.Event()
        self.has: Runner | None = None
        self.ends = 0
        loop = asyncio.get_running_loop()
        self.deadline = inf if deadline is None else loop.time() + deadline
        lease = history.scheduler.lease(self.model, self.options, keep_alive=keep_alive, deadline=self.deadline)
        self.task = asyncio.create_task(self._run(lease))

    async def _run(self, lease: Any) -> None:
        try:
            async with lease as held:
                assert asyncio.get_running_loop().time() < self.deadline, "who is too late does not begin"
                self.has = held.runner
                await self.finish.wait()
                await held.runner.busy()  # it tells that it has ended
        finally:
            self.has = None
            self.ends += 1

    @property
    def waits(self) -> bool:
        return self.has is None and not self.task.done()


class History:
    def __init__(self) -> None:
        self.engine = Gated()
        made = Settings(
            models=Path("none"),
            engine="scripted",
            num_parallel=SLOTS,
            max_queue=QUEUE,
            max_model_queue=MODEL_QUEUE,
            max_loaded_models=MOST,
            keep_alive=30.0,
            stall_timeout=0,
        )
        self.scheduler = Scheduler({"scripted": self.engine}, made, free_memory=lambda: 2**40)
        self.asked: list[Asked] = []
        self.unloading: list[asyncio.Task[bool]] = []

    async def run(self, steps: Sequence[tuple[Deed, int]]) -> None:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        async with self.scheduler:
            for deed, turns in steps:
                self._take(deed)
                if deed[0] == "pass":
                    await pass_time(deed[1])
                for _ in range(turns):
                    await turn()
                if turns == MANY:
                    self._check()
            await self._to_its_end()
        assert faults == [], "nothing is raised where nobody hears it"

    def _take(self, deed: Deed) -> None:
        match deed:
            case ("ask", *_):
                self.asked.append(Asked(self, deed))
            case ("cancel", at):
                if under_way := [one for one in self.asked if not one.task.done()]:
                    under_way[at % len(under_way)].task.cancel()
            case ("finish", at):
                if holding := [one for one in self.asked if one.has is not None]:
                    holding[at % len(holding)].finish.set()
            case ("load", at, outcome):
                if gates := [gate for gate in self.engine.loading if not gate.done()]:
                    gates[at % len(gates)].set_result(outcome)
            case ("kill", at):
                if self.engine.alive:
                    self.engine.alive[at % len(self.engine.alive)].kill("killed")
            case ("unload", model):
                self.unloading.append(asyncio.create_task(self.scheduler.unload(MODELS[model].name)))

    def _check(self) -> None:
        scheduler = self.scheduler
        places = [*scheduler._places.values()]
        assert policy.next_move(scheduler._snapshot()) is None, "what can be done is done"
        assert len(places) <= MOST
        assert scheduler.waiting <= QUEUE
        under_way = [one for one in self.asked if not one.task.done()]
        bereft = [one for one in under_way if one.has is not None and one.has.died.done()]
        counted = sum(place.users for place in places) + len(scheduler._line)
        assert len(under_way) - len(bereft) <= counted <= len(under_way), "each is in line or has a place, once"
        for one in self.asked:
            assert one.ends <= 1
            if one.waits:
                need = scheduler._needs.need(one.model, one.options, None, embedding=False, room=None)
                assert not any(place.has_slot(need.wish) and place.runner for place in places), "it could begin"
                assert asyncio.get_running_loop().time() <= one.deadline

    async def _to_its_end(self) -> None:
        """All loads end and all requests finish: nobody is left, and in the end no model."""
        self.engine.free = True
        for gate in [*self.engine.loading]:
            if not gate.done():
                gate.set_result("ends")
        for one in self.asked:
            one.finish.set()
        await pass_time(len(MODELS) * len(THREADS) * (COLLATE_SECONDS + 1))
        for one in self.asked:
            assert one.task.done(), "nobody waits for ever"
            assert one.ends == 1 or one.task.cancelled(), "once, if it began at all"
            with suppress(asyncio.CancelledError, Overloaded, DeadlineExceeded, LoadFailed, LoadTimeout, RunnerDied):
                one.task.result()
        assert len(self.scheduler._line) == 0
        assert not self.scheduler._line.queue
        assert not any(place.users for place in self.scheduler._places.values())
        await pass_time(31)
        assert not self.scheduler._places
        assert not self.engine.alive
        assert all(task.done() for task in self.unloading)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(st.tuples(DEEDS, TURNS), min_size=20, max_size=60))
@example(
    steps=[
        (("ask", 0, None, None, None, None), 0),
        (("cancel", 0), 1),
        (("load", 0, "ends"), MANY),
        (("ask", 0, 4096, 1, 0.0, 2.0), MANY),
    ]
)
def test_every_request_ends_once_and_nothing_is_left(steps: list[tuple[Deed, int]]) -> None:
    with capture_logs():
        run_virtual(History().run(steps))
