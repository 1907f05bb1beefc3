"""The scheduler over the scripted engine: loads, leases, evictions, timers."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.house import make_model
from fakes.virtual_time import pass_time, run_virtual
from fakes.waiting import turn, turns_until
from puna.engine.choose import EngineChoice
from puna.engine.runner import End, LoadOptions, ModelFiles, Prompt, Runner, Sampling
from puna.engine.scripted import Script, ScriptedEngine, ScriptedRunner, ScriptedVocabulary
from puna.errors import ContextLengthExceeded, InvalidRequest, LoadDied, LoadFailed, Overloaded, RunnerDied, Unsupported
from puna.model.digest import Digest
from puna.model.model import Model
from puna.model.name import Name
from puna.scheduler.facts import named
from puna.scheduler.line import Ticket
from puna.scheduler.place import Place
from puna.scheduler.policy import COLLATE_SECONDS
from puna.scheduler.scheduler import TICK, Scheduler
from puna.settings import ModelPolicy, Settings
from puna.types import Options

NOTHING = Options()


class Counting(ScriptedEngine):
    """Counts its loads, and lets them wait for a gate."""

    def __init__(self, script: object = None) -> None:
        super().__init__(Script.parse(json.dumps(script or {})))
        self.loads: list[tuple[str, LoadOptions]] = []
        self.aborted = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
        self.loads.append((files.name, load))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        return await super().start(files, load, reason=reason)


class Preparing(ScriptedEngine):
    """Counts how often it is told to prepare, and fails then if it is to."""

    def __init__(self, failure: LoadFailed | None = None) -> None:
        super().__init__()
        self.prepared = 0
        self.closed = False
        self._failure = failure

    async def prepare(self) -> None:
        self.prepared += 1
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        self.closed = True


def model(name: str, **changes: object) -> Model:
    """Models with the same first letter share their weights."""
    return make_model(name, weights_digest=Digest.parse("sha256:" + f"{ord(name[0]):x}" * 32), **changes)


@asynccontextmanager
async def open_scheduler(
    engine: ScriptedEngine, *, free: Callable[[], int] = lambda: 2**40, **settings: object
) -> AsyncIterator[Scheduler]:
    made = Settings(models=Path("none"), engine="scripted", **settings)  # type: ignore[arg-type]
    async with Scheduler({"scripted": engine}, made, free_memory=free) as scheduler:
        yield scheduler


async def touch(scheduler: Scheduler, name: str, options: Options = NOTHING, keep_alive: float | None = None) -> Runner:
    async with scheduler.lease(model(name), options, keep_alive=keep_alive) as lease:
        return lease.runner


def names(scheduler: Scheduler) -> set[str]:
    return {loaded.model.name.model for loaded in scheduler.loaded()}


async def in_line(scheduler: Scheduler, count: int = 1) -> None:
    """So many requests wait, and what their coming set off has happened."""
    await turns_until(lambda: len(scheduler._line) == count, 5, f"{count} in line")
    await turn()


async def gone(runner: Runner) -> str:
    return await asyncio.wait_for(asyncio.shield(runner.died), 30)


async def test_a_model_is_loaded_once_and_used_again() -> None:
    engine = Counting()
    async with open_scheduler(engine) as scheduler:
        first = await touch(scheduler, "a")
        assert await touch(scheduler, "a") is first
        assert names(scheduler) == {"a"}
    assert len(engine.loads) == 1
    assert first.died.done()


async def test_names_of_the_same_weights_share_a_runner() -> None:
    async with open_scheduler(Counting()) as scheduler:
        assert await touch(scheduler, "a1") is await touch(scheduler, "a2")
        assert await scheduler.unload(Name.parse("a2"))
        assert names(scheduler) == set()


async def test_requests_at_once_join_one_load() -> None:
    engine = Counting()
    engine.gate.clear()
    async with open_scheduler(engine) as scheduler:
        requests = [asyncio.create_task(touch(scheduler, "a")) for _ in range(5)]
        await turn()
        engine.gate.set()
        assert len({id(runner) for runner in await asyncio.gather(*requests)}) == 1
    assert len(engine.loads) == 1


async def test_a_load_goes_on_while_one_request_waits_and_is_aborted_when_none_does() -> None:
    engine = Counting()
    engine.gate.clear()
    async with open_scheduler(engine) as scheduler:
        first, second = (asyncio.create_task(touch(scheduler, "a")) for _ in range(2))
        while not engine.loads:
            await turn()
        first.cancel()
        await asyncio.wait({first})
        assert engine.aborted == 0
        second.cancel()
        await asyncio.wait({second})
        while engine.aborted == 0:
            await turn()
        engine.gate.set()
        assert (await touch(scheduler, "a")).info.engine == "scripted"
    assert len(engine.loads) == 2


async def test_a_failed_load_fails_all_who_wait_and_is_tried_anew() -> None:
    engine = Counting({"models": [{"match": "a*", "load_error": "no such luck"}]})
    async with open_scheduler(engine) as scheduler:
        results = await asyncio.gather(*(touch(scheduler, "a") for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["no such luck"] * 3
        with pytest.raises(LoadFailed):
            await touch(scheduler, "a")
        assert scheduler.loaded() == ()
        assert (await touch(scheduler, "b")).info.num_ctx == 4096
    assert [name for name, _ in engine.loads] == ["a:latest", "a:latest", "b:latest"]


async def test_another_engine_steps_in_for_one_that_was_not_named() -> None:
    failing = Counting({"models": [{"match": "*", "load_error": "no such luck"}]})
    other = Counting()
    engines = {"first": failing, "second": other}
    chosen = EngineChoice("first", "the faster one", 16, instead=EngineChoice("second", "it runs the rest", 3))
    async with Scheduler(engines, Settings(models=Path("none")), choose=lambda *_: chosen) as scheduler:
        runner = await touch(scheduler, "a")
        assert "the first engine could not load it: no such luck" in runner.info.reason
        assert runner.info.slots == 3
        assert [load.slots for _, load in failing.loads + other.loads] == [16, 3]
        assert await touch(scheduler, "a") is runner
    alone = replace(chosen, instead=None)
    async with Scheduler(engines, Settings(models=Path("none")), choose=lambda *_: alone) as one:
        with pytest.raises(LoadFailed):
            await touch(one, "a")


async def test_requests_at_once_are_those_that_were_asked_for_or_that_the_engine_advises() -> None:
    advised, named = Counting(), Counting()
    async with open_scheduler(advised) as one, open_scheduler(named, num_parallel=7) as other:
        assert (await touch(one, "a")).info.slots == ScriptedEngine.profile.slots
        assert (await touch(other, "a")).info.slots == 7


async def test_num_ctx_defaults_and_bounds() -> None:
    async with open_scheduler(Counting(), context_length=100_000) as scheduler:
        # The model of these tests was trained on 4096.
        assert (await touch(scheduler, "a")).info.num_ctx == 4096
        assert (await touch(scheduler, "a", Options(num_ctx=512))).info.num_ctx == 512
        # More than that is cut to it, asked for or stored.
        assert (await touch(scheduler, "a", Options(num_ctx=1_000_000))).info.num_ctx == 4096
        assert scheduler.context(model("a"), Options(num_ctx=1_000_000)) == 4096
        with pytest.raises(InvalidRequest) as error:
            await touch(scheduler, "a", Options(num_ctx=0))
        assert error.value.param == "num_ctx"


@pytest.mark.parametrize("seconds", [1e300, 2.0**63 / 1e9, float("inf"), -1.0, -1e300])
async def test_what_is_beyond_a_duration_is_for_ever(seconds: float) -> None:
    async with open_scheduler(Counting()) as scheduler:
        async with scheduler.lease(model("a"), NOTHING, keep_alive=seconds):
            pass
        assert [loaded.expires_at for loaded in scheduler.loaded()] == [None]


async def test_the_longest_time_that_is_not_for_ever_has_a_date() -> None:
    async with open_scheduler(Counting()) as scheduler:
        async with scheduler.lease(model("a"), NOTHING, keep_alive=9.2e9):
            pass
        (loaded,) = scheduler.loaded()
        assert loaded.expires_at is not None
        assert loaded.expires_at.year > 2300


async def test_other_load_options_wait_for_running_requests_and_load_anew() -> None:
    engine = Counting()
    async with open_scheduler(engine) as scheduler:
        async with scheduler.lease(model("a"), NOTHING) as lease:
            other = asyncio.create_task(touch(scheduler, "a", Options(num_thread=3)))
            await in_line(scheduler)
            assert not lease.runner.died.done()
            assert not other.done()
        await other
        assert lease.runner.died.done()
    assert [load.num_thread for _, load in engine.loads] == [None, 3]


async def test_contexts_of_several_sizes_are_two_loads_at_most() -> None:
    """One after the other, and at once: the largest that was asked for serves them all."""
    engine = Counting()
    async with open_scheduler(engine) as scheduler:
        for num_ctx in (1024, 2048, 1024, 2048, 512, 1024):
            assert (await touch(scheduler, "a", Options(num_ctx=num_ctx))).info.num_ctx == num_ctx
        sizes = (1024, 2048, 512, 4096) * 5
        runners = await asyncio.gather(*(touch(scheduler, "b", Options(num_ctx=size)) for size in sizes))
        assert [runner.info.num_ctx for runner in runners] == [*sizes]
    assert [load.num_ctx for name, load in engine.loads if name == "a:latest"] == [1024, 2048]
    assert len([name for name, _ in engine.loads if name == "b:latest"]) <= 3


async def test_a_narrowed_runner_keeps_to_what_was_asked_for() -> None:
    async with open_scheduler(
        Counting({"rules": [{"answer": {"text": "a b c d e f g h", "repeat": True}}]})
    ) as scheduler:
        await touch(scheduler, "a")
        async with scheduler.lease(model("a"), Options(num_ctx=16)) as lease:
            prompt = Prompt(tuple(range(100, 110)))
            steps = [step async for step in lease.runner.generate(prompt, Sampling(max_tokens=100, seed=1))]
            assert isinstance(steps[-1], End)
            assert (steps[-1].reason, steps[-1].completion_tokens) == ("length", 6)
            with pytest.raises(ContextLengthExceeded) as error:
                lease.runner.generate(Prompt(tuple(range(100, 116))), Sampling(max_tokens=100, seed=1))
            assert error.value.limit == 16


async def test_requests_to_two_models_with_room_for_one_are_two_loads() -> None:
    engine = Counting()
    async with open_scheduler(engine, max_loaded_models=1) as scheduler:
        engine.gate.clear()
        waiting = [asyncio.create_task(touch(scheduler, name)) for name in "abababab"]
        await turns_until(lambda: len(engine.loads) == 1, 5, "the first load")
        engine.gate.set()
        await asyncio.gather(*waiting)
    assert [name for name, _ in engine.loads] == ["a:latest", "b:latest"]


async def test_several_models_stay_while_memory_allows() -> None:
    async with open_scheduler(Counting()) as scheduler:
        for name in "abc":
            await touch(scheduler, name)
        assert names(scheduler) == {"a", "b", "c"}


async def test_the_idle_one_that_expires_first_makes_room() -> None:
    async with open_scheduler(Counting(), max_loaded_models=2) as scheduler:
        await touch(scheduler, "a", keep_alive=600)
        await touch(scheduler, "b", keep_alive=60)
        await touch(scheduler, "c")
        assert names(scheduler) == {"a", "c"}


async def test_memory_decides_too() -> None:
    small = 10_000_000_000
    async with open_scheduler(Counting(), memory_limit=70_000_000) as scheduler:
        await touch(scheduler, "a")
        await touch(scheduler, "b")
        assert names(scheduler) == {"b"}
    async with open_scheduler(Counting(), free=lambda: 1000) as scheduler:
        with pytest.raises(LoadFailed, match="needs about"):
            await touch(scheduler, "a")
    async with open_scheduler(Counting(), free=lambda: small) as scheduler:
        await touch(scheduler, "a")


async def test_a_busy_model_is_waited_for() -> None:
    async with open_scheduler(Counting(), max_loaded_models=1) as scheduler:
        async with scheduler.lease(model("a"), NOTHING) as lease:
            other = asyncio.create_task(touch(scheduler, "b"))
            await in_line(scheduler)
            assert not other.done()
            assert not lease.runner.died.done()
        await other
        assert names(scheduler) == {"b"}


async def test_requests_for_a_loaded_model_pass_those_that_wait_for_memory() -> None:
    async with open_scheduler(Counting(), max_loaded_models=2) as scheduler:
        async with scheduler.lease(model("a"), NOTHING), scheduler.lease(model("b"), NOTHING, keep_alive=1):
            waiting = asyncio.create_task(touch(scheduler, "c"))
            await in_line(scheduler)
            await touch(scheduler, "a")
            assert not waiting.done()
        await waiting


async def test_the_line_is_bounded() -> None:
    async with open_scheduler(Counting(), max_loaded_models=1, max_queue=2) as scheduler:
        async with scheduler.lease(model("a"), NOTHING):
            waiting = [asyncio.create_task(touch(scheduler, name)) for name in "bc"]
            await in_line(scheduler, 2)
            with pytest.raises(Overloaded) as error:
                await touch(scheduler, "d")
            assert error.value.retry_after > 0
        await asyncio.gather(*waiting)


async def test_what_waits_for_the_slots_of_one_model_is_bounded() -> None:
    async with open_scheduler(Counting(), num_parallel=1, max_queue=1) as scheduler, AsyncExitStack() as leases:
        for _ in range(2):
            await leases.enter_async_context(scheduler.lease(model("a"), NOTHING))
        with pytest.raises(Overloaded):
            await touch(scheduler, "a")


async def test_who_leaves_the_line_is_forgotten() -> None:
    engine = Counting()
    async with open_scheduler(engine, max_loaded_models=1) as scheduler:
        async with scheduler.lease(model("a"), NOTHING):
            waiting = asyncio.create_task(touch(scheduler, "b"))
            await in_line(scheduler)
            waiting.cancel()
            await asyncio.wait({waiting})
        assert [name for name, _ in engine.loads] == ["a:latest"]


async def test_models_are_kept_as_their_policies_say() -> None:
    policies = (ModelPolicy("a*", pin=True), ModelPolicy("b", parallel=3, max_ctx=1024, keep_alive=7.0))
    async with open_scheduler(Counting(), max_loaded_models=2, model_policies=policies) as scheduler:
        await touch(scheduler, "a1")
        (pinned,) = scheduler.loaded()
        assert (pinned.pinned, pinned.expires_at) == (True, None)
        for seconds in (0.0, 1.0):
            async with scheduler.lease(model("a1"), NOTHING, keep_alive=seconds):
                pass
            (pinned,) = scheduler.loaded()
            assert pinned.expires_at is None, "no client undoes what who runs this has pinned"
        kept = await touch(scheduler, "b", Options(num_ctx=4096))
        assert (kept.info.slots, kept.info.num_ctx) == (3, 1024)
        assert (await touch(scheduler, "b", Options(num_ctx=512))).info.num_ctx == 512
        assert [place.keep_alive for place in scheduler._places.values()] == [-1, 7]
        await touch(scheduler, "c")
        assert names(scheduler) == {"a1", "c"}
        assert await scheduler.unload(Name.parse("a1")), "who asks for that unloads it all the same"
    async with open_scheduler(Counting(), max_loaded_models=1, model_policies=policies) as scheduler:
        await touch(scheduler, "a1")
        with pytest.raises(Overloaded, match="pinned"):
            await touch(scheduler, "b")
        await touch(scheduler, "a2", Options(num_ctx=512))


async def test_who_is_cancelled_as_he_gets_his_place_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Counting()
    async with open_scheduler(engine, max_loaded_models=1) as scheduler:
        async with scheduler.lease(model("a"), NOTHING):
            waiting = asyncio.create_task(touch(scheduler, "b"))
            await in_line(scheduler)
            seat = scheduler._seat

            def seat_and_cancel(ticket: Ticket, place: Place) -> None:
                seat(ticket, place)
                waiting.cancel()  # before its task is told

            monkeypatch.setattr(scheduler, "_seat", seat_and_cancel)
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        await turns_until(lambda: not scheduler._places, 5, "nothing to be loaded")
        assert [name for name, _ in engine.loads] in (["a:latest"], ["a:latest", "b:latest"])


async def test_a_model_that_is_loaded_as_the_last_who_wanted_it_goes_is_not_kept() -> None:
    engine = Counting()
    engine.gate.clear()
    async with open_scheduler(engine) as scheduler:
        waiting = asyncio.create_task(touch(scheduler, "a"))
        await turns_until(lambda: engine.loads, 5, "the load")
        (place,) = scheduler._places.values()
        place.loading.add_done_callback(lambda _: waiting.cancel())
        engine.gate.set()
        await asyncio.wait({waiting})
        await turns_until(lambda: not scheduler._places or place.timer is not None, 5, "it to go, or its time to run")


async def test_a_model_that_rests_is_not_loaded_for_those_in_line() -> None:
    async with open_scheduler(Counting(), max_loaded_models=1) as scheduler:
        await fail(scheduler, 2)
        async with scheduler.lease(model("b"), NOTHING):
            waiting = asyncio.create_task(touch(scheduler, "a"))
            await in_line(scheduler)
            (ticket,) = scheduler._line
            scheduler._failures.note(ticket.wish.key, "a:latest", "it is broken", scheduler._now())
        with pytest.raises(Overloaded, match="ended 3 times"):
            await waiting


def test_patience_ends_without_any_other_event() -> None:
    async def main() -> None:
        async with open_scheduler(Counting(), max_loaded_models=1) as scheduler:
            async with scheduler.lease(model("a"), NOTHING):
                waiting = asyncio.create_task(touch(scheduler, "b"))
                await pass_time(COLLATE_SECONDS - TICK)
                (place,) = scheduler._places.values()
                assert not place.leaving
                await pass_time(3 * TICK)
                assert place.leaving
            await waiting

    run_virtual(main())


async def test_keep_alive_unloads_after_the_last_request() -> None:
    async with open_scheduler(Counting(), keep_alive=0.05) as scheduler:
        runner = await touch(scheduler, "a")
        assert not runner.died.done()
        assert await gone(runner) == "closed"
        assert names(scheduler) == set()


async def test_keep_alive_zero_unloads_when_idle() -> None:
    async with open_scheduler(Counting()) as scheduler:
        async with scheduler.lease(model("a"), NOTHING) as lease:
            await touch(scheduler, "a", keep_alive=0)
            assert not lease.runner.died.done()
        assert await gone(lease.runner) == "closed"


async def test_keep_alive_is_kept_until_it_is_said_anew() -> None:
    async with open_scheduler(Counting()) as scheduler:
        await touch(scheduler, "a", keep_alive=-1)
        assert scheduler.loaded()[0].expires_at is None
        await touch(scheduler, "a")
        assert scheduler.loaded()[0].expires_at is None
        await touch(scheduler, "a", keep_alive=60)
        assert scheduler.loaded()[0].expires_at is not None


async def test_unload_waits_for_idle_ones_and_leaves_busy_ones_their_requests() -> None:
    async with open_scheduler(Counting()) as scheduler:
        assert not await scheduler.unload(Name.parse("a"))
        runner = await touch(scheduler, "a")
        assert await scheduler.unload(Name.parse("a"))
        assert runner.died.done()
        async with scheduler.lease(model("a"), NOTHING) as lease:
            assert await scheduler.unload(Name.parse("a"))
            assert not lease.runner.died.done()
        assert await gone(lease.runner) == "closed"


async def test_a_runner_that_died_is_replaced_and_others_are_untouched() -> None:
    engine = Counting({"rules": [{"when": {"contains": "die"}, "answer": {"text": "a b c", "error": {"after": 1}}}]})
    async with open_scheduler(engine) as scheduler:
        other = await touch(scheduler, "b")
        async with scheduler.lease(model("a"), NOTHING) as lease:
            prompt = Prompt(tuple(await lease.runner.tokenize("die", special=True, bos=False)))
            with pytest.raises(RunnerDied, match="scripted failure"):
                async for _ in lease.runner.generate(prompt, Sampling(max_tokens=9, seed=1)):
                    pass
        fresh = await touch(scheduler, "a")
        assert fresh is not lease.runner
        assert await touch(scheduler, "b") is other


async def ended(scheduler: Scheduler) -> None:
    async with scheduler.lease(model("a"), NOTHING) as lease:
        lease.runner.kill("it is broken")
        await lease.runner.busy()


async def fail(scheduler: Scheduler, times: int) -> None:
    for _ in range(times):
        with pytest.raises(RunnerDied):
            await ended(scheduler)
        await turns_until(lambda: not scheduler.loaded(), 5, "the runner to be gone")


async def test_a_model_whose_runners_end_again_and_again_rests() -> None:
    async with open_scheduler(Counting()) as scheduler:
        await fail(scheduler, 2)
        await touch(scheduler, "a")
        await fail(scheduler, 2)
        await fail(scheduler, 1)
        with pytest.raises(Overloaded, match=r"ended 3 times .* all: it is broken\. .* again in 1 s") as refused:
            await touch(scheduler, "a")
        assert 0 < refused.value.retry_after <= 1
        assert [text.partition(" rests for ")[0] for text in scheduler.resting()] == ["a:latest"]
        await touch(scheduler, "b")


class Dying(Counting):
    """Its children end before they have loaded."""

    async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
        await super().start(files, load, reason=reason)
        raise LoadDied("killed by SIGKILL")


async def test_a_model_whose_loads_die_again_and_again_rests() -> None:
    engine = Dying()
    async with open_scheduler(engine) as scheduler:
        for _ in range(3):
            with pytest.raises(LoadDied):
                await touch(scheduler, "a")
        with pytest.raises(Overloaded, match=r"ended 3 times .* all: killed by SIGKILL\. .* 1 s") as refused:
            await touch(scheduler, "a")
        assert 0 < refused.value.retry_after <= 1
    assert len(engine.loads) == 3


async def test_a_load_that_is_refused_is_refused_each_time_with_the_reason() -> None:
    engine = Counting({"models": [{"match": "a*", "load_error": "no cache for that context"}]})
    async with open_scheduler(engine) as scheduler:
        for _ in range(5):
            with pytest.raises(LoadFailed, match="no cache for that context"):
                await touch(scheduler, "a")


async def test_what_does_not_fit_is_told_in_numbers_that_differ() -> None:
    async with open_scheduler(Counting(), free=lambda: 1 << 20) as scheduler:
        with pytest.raises(LoadFailed, match=r"needs about \d+ MiB of memory, of which 1 MiB could be had"):
            await touch(scheduler, "a")


async def test_who_waits_is_served_though_memory_cannot_be_looked_at() -> None:
    """A process without another file to open: an error in the middle of a step would leave them in line."""
    asked = 0

    def free() -> int:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return 2**40

    async with open_scheduler(Counting(), free=free, max_loaded_models=1) as scheduler:
        async with scheduler.lease(model("a"), NOTHING):
            waiting = asyncio.create_task(touch(scheduler, "b"))
            await in_line(scheduler)
        assert (await asyncio.wait_for(waiting, 30)).info.engine == "scripted"
    assert asked > 2


class Deaf(ScriptedRunner):
    """Works, and answers nobody that asks whether it does."""

    async def busy(self) -> int:
        await asyncio.shield(self.died)
        return await super().busy()


class Stubborn(ScriptedRunner):
    """Goes on with what was cancelled."""

    asked = 0

    async def busy(self) -> int:
        return await super().busy() + 1

    async def strays(self) -> frozenset[Hashable]:
        self.asked += 1
        return frozenset({"what was cancelled"})


@pytest.mark.parametrize(
    ("kind", "cause"), [(Deaf, "gave no sign of life for 0.05 s"), (Stubborn, "with work that was cancelled")]
)
async def test_a_runner_that_hangs_is_ended(kind: type[ScriptedRunner], cause: str) -> None:
    class Engine(Counting):
        async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
            made = await super().start(files, load, reason=reason)
            assert isinstance(made, ScriptedRunner)
            return kind(files.name, self.script, ScriptedVocabulary(), made.info)

    async with open_scheduler(Engine(), stall_timeout=0.05) as scheduler:
        async with scheduler.lease(model("a"), NOTHING) as lease:
            assert cause in await gone(lease.runner)  # beside somebody whom it serves
        assert not (await touch(scheduler, "a")).died.done()


async def test_who_comes_while_a_runner_is_being_killed_gets_the_next() -> None:
    """A process that is killed ends a little later: until then its runner looks alive."""
    killed = asyncio.Event()

    class Slow(Deaf):
        def kill(self, why: str) -> None:
            asyncio.get_running_loop().call_later(0.05, super().kill, why)
            killed.set()

    class Engine(Counting):
        async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
            made = await super().start(files, load, reason=reason)
            assert isinstance(made, ScriptedRunner)
            return Slow(files.name, self.script, ScriptedVocabulary(), made.info)

    async with open_scheduler(Engine(), stall_timeout=0.1) as scheduler, scheduler.lease(model("a"), NOTHING) as lease:
        await asyncio.wait_for(killed.wait(), 30)
        assert not lease.runner.died.done()
        assert await asyncio.wait_for(touch(scheduler, "a"), 30) is not lease.runner


async def test_a_runner_that_hangs_over_what_was_left_between_two_looks_is_ended() -> None:
    class Engine(Counting):
        async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
            made = await super().start(files, load, reason=reason)
            assert isinstance(made, ScriptedRunner)
            return Deaf(files.name, self.script, ScriptedVocabulary(), made.info)

    async with open_scheduler(Engine(), stall_timeout=0.2) as scheduler:
        async with scheduler.lease(model("a"), NOTHING) as lease:
            runner = lease.runner  # and its client goes away at once
        assert "gave no sign of life" in await gone(runner)


async def test_closing_ends_every_runner_and_refuses_the_line() -> None:
    async with open_scheduler(Counting(), max_loaded_models=1) as scheduler:
        lease = scheduler.lease(model("a"), NOTHING)
        runner = (await lease.__aenter__()).runner
        waiting = asyncio.create_task(touch(scheduler, "b"))
        await in_line(scheduler)
        await scheduler.close()
        assert runner.died.done()
        with pytest.raises(Overloaded):
            await waiting
        await lease.__aexit__(None, None, None)
        with pytest.raises(Overloaded):
            await touch(scheduler, "a")


async def test_closing_aborts_a_load() -> None:
    engine = Counting()
    engine.gate.clear()
    async with open_scheduler(engine) as scheduler:
        request = asyncio.create_task(touch(scheduler, "a"))
        while not engine.loads:
            await turn()
        await scheduler.close()
        with pytest.raises(Overloaded):
            await request
    assert engine.aborted == 1


async def test_fewer_slots_when_memory_is_short_are_told() -> None:
    metadata = {"llama.context_length": 4096, "llama.block_count": 32, "llama.attention.head_count": 32}
    header = make_model("a").header
    big = model("a", header=type(header)(
        version=3, architecture="llama", metadata={**metadata, "llama.embedding_length": 4096}, tensors=(),
    ))  # fmt: skip
    async with open_scheduler(Counting(), free=lambda: 6 * 2**30) as scheduler, scheduler.lease(big, NOTHING) as lease:
        assert lease.runner.info.slots == 2
        assert "2 of 4 slots" in lease.runner.info.reason


async def test_engines_prepare_when_nobody_asks_for_anything_and_are_closed_at_the_end() -> None:
    engine = Preparing()
    settings = Settings(models=Path("none"), engine="scripted")
    async with Scheduler({"scripted": engine}, settings, free_memory=lambda: 2**40, quiet=0) as scheduler:
        await turns_until(lambda: engine.prepared == 1, 5, "the engine to prepare")
        async with scheduler.lease(model("a"), NOTHING):
            for _ in range(20):
                await turn()
            assert engine.prepared == 1
        await turns_until(lambda: engine.prepared == 2, 5, "the engine to prepare again")
        assert not engine.closed
    assert engine.closed
    for _ in range(20):
        await turn()
    assert engine.prepared == 2


async def test_an_engine_that_cannot_prepare_serves_all_the_same() -> None:
    engine = Preparing(LoadFailed("no such file"))
    settings = Settings(models=Path("none"), engine="scripted")
    async with Scheduler({"scripted": engine}, settings, free_memory=lambda: 2**40, quiet=0) as scheduler:
        await turns_until(lambda: engine.prepared == 1, 5, "the engine to prepare")
        await touch(scheduler, "a")
        await turns_until(lambda: engine.prepared == 2, 5, "the engine to prepare again")


async def test_an_engine_that_is_not_there_is_refused() -> None:
    settings = Settings(models=Path("none"), engine="llama")
    async with Scheduler({"scripted": ScriptedEngine()}, settings) as scheduler:
        with pytest.raises(Unsupported, match="PUNA_ENGINE"):
            await touch(scheduler, "a")


def test_a_failed_load_names_the_model_not_its_blobs(tmp_path: Path) -> None:
    blob, projector = tmp_path / "sha256-abc", tmp_path / "sha256-def"
    files = ModelFiles(blob, "abc", "llama", "Q4_1", projectors=(projector,), name="mine:latest")
    said = f"failed to open {blob.resolve()} (and sha256-def)"
    assert named(said, files) == "failed to open a file of mine:latest (and a file of mine:latest)"
