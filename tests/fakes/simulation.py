"""A busy server's scheduler in virtual time: the real policy and loop, over the scripted engine with faults.

Everything that happens to a request is decided by one random generator, so a seed is a whole history. What must hold is
checked while it goes on, by `_Simulation`; the first thing that does not raises AssertionError.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from random import Random

from fakes.house import make_model
from fakes.virtual_time import VirtualLoop, pass_time
from puna.engine.engine import ModelFacts
from puna.engine.memory import Estimate
from puna.engine.runner import Constraint, LoadOptions, ModelFiles, Prompt, Runner, Sampling, Step
from puna.engine.scripted import Script, ScriptedEngine, ScriptedRunner, ScriptedVocabulary
from puna.errors import DeadlineExceeded, LoadFailed, LoadTimeout, Overloaded, PunaError, RunnerDied
from puna.model.digest import Digest
from puna.model.model import Model
from puna.scheduler.policy import COLLATE_SECONDS, next_move
from puna.scheduler.rate import LATEST
from puna.scheduler.scheduler import TICK, Scheduler
from puna.settings import ModelPolicy, Settings
from puna.types import Options

GIB = 2**30
MODELS = 20
ROOM = 6 * GIB
"""For two of the largest models."""

SIZES = (GIB, 3 * GIB)
SLOWEST_LOAD = 30.0
LOAD_GIVEN_UP = 60.0
STALL = 20.0
KEEP_ALIVE = 60.0
QUEUE, MODEL_QUEUE = 200, 60

ANSWERS = {"short": (3, 0.05), "middle": (6, 0.3), "long": (12, 1.0), "dies": (4, 0.2), "hangs": (4, 0.2)}
"""Tokens, and seconds for each."""

WAYS = 3
"""In which a model may be wanted, each of them a load of its own: with one of two numbers of threads, or any."""

LONGEST_WAIT = MODELS * WAYS * (COLLATE_SECONDS + 12 * 1.0 + SLOWEST_LOAD)
"""Seconds, when every model is wanted in every way, and the worst comes at each turn: collated, the longest answer, the
slowest load."""

SCRIPT = Script.parse(
    json.dumps(
        {
            "rules": [
                {
                    "when": {"contains": name},
                    "answer": {"text": "word " * tokens, "delay": delay}
                    | ({"error": {"after": 2, "message": "scripted death"}} if name == "dies" else {}),
                }
                for name, (tokens, delay) in ANSWERS.items()
            ]
        }
    )
)


class FaultyRunner(ScriptedRunner):
    """Stops for ever in an answer to `hangs`, and does not always obey a cancel."""

    def __init__(self, files: ModelFiles, made: ScriptedRunner, engine: FaultyEngine) -> None:
        super().__init__(files.name, engine.script, ScriptedVocabulary(), made.info)
        self._engine = engine
        self._hung = False
        self._disobeyed = 0

    async def generate(
        self, prompt: Prompt, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncIterator[Step]:
        done = False
        try:
            async with aclosing(super().generate(prompt, sampling, constraint)) as steps:  # type: ignore[type-var]
                async for step in steps:
                    if bytes(prompt.tokens) == b"hangs":
                        self._hung = True
                    yield step
            done = True
        finally:
            if not done and self._engine.chance(0.01):
                self._disobeyed += 1

    async def _pass(self, seconds: float) -> None:
        if self._hung:
            await asyncio.wait({self.died})
        await super()._pass(seconds)

    async def busy(self) -> int:
        if self._hung:
            await asyncio.shield(self.died)
        return await super().busy() + self._disobeyed

    async def strays(self) -> frozenset[Hashable]:
        return frozenset(range(self._disobeyed))


class FaultyEngine(ScriptedEngine):
    """Loads take their time, fail or take for ever; runners are killed. Memory is counted as a machine would."""

    def __init__(self, random: Random) -> None:
        super().__init__(SCRIPT)
        self._random = random
        self.sizes = {f"sim{number}": random.randint(*SIZES) for number in range(MODELS)}
        self.alive: list[FaultyRunner] = []
        self.loads: Counter[str] = Counter()
        self._taken: dict[object, int] = {}

    def chance(self, share: float) -> bool:
        return self._random.random() < share

    def memory(self, model: ModelFacts, load: LoadOptions) -> Estimate:
        size = self.sizes[str(model.metadata["general.name"])]
        return Estimate(size, load.slots * load.num_ctx * 2**12, 0)

    async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
        name = files.name.removesuffix(":latest")
        self.loads[name] += 1
        token = object()
        self._taken[token] = self.sizes[name] + load.slots * load.num_ctx * 2**12
        assert sum(self._taken.values()) <= ROOM, "more than there is"
        try:
            if self.chance(0.01):
                await pass_time(LOAD_GIVEN_UP)
                raise LoadTimeout("it did not load")
            await pass_time(self._random.uniform(0.1, SLOWEST_LOAD) if self.chance(0.2) else 0.2)
            if self.chance(0.03):
                raise LoadFailed("it failed to load")
            made = await super().start(files, load, reason=reason)
        except BaseException:
            del self._taken[token]
            raise
        assert isinstance(made, ScriptedRunner)
        runner = FaultyRunner(files, made, self)
        self.alive.append(runner)
        runner.died.add_done_callback(lambda _: self._ended(runner, token))
        return runner

    def _ended(self, runner: FaultyRunner, token: object) -> None:
        self.alive.remove(runner)
        del self._taken[token]


@dataclass
class Outcome:
    """What became of all requests. `longest`: seconds that one waited at most that got a runner."""

    ends: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    at_once: int = 0
    loads: int = 0
    hours: float = 0.0


@dataclass(frozen=True)
class Demand:
    """One request, before it comes. Times are seconds after it has come."""

    model: Model
    options: Options
    keep_alive: float | None
    kind: str
    deadline: float
    cancel: float


class _Simulation:
    def __init__(self, requests: int, seed: int) -> None:
        self._random = Random(seed)
        self._requests = requests
        self._engine = FaultyEngine(Random(seed + 1))
        self._models = [
            make_model(
                name,
                digest=f"{number:064x}",
                weights_digest=Digest.parse(f"sha256:{number:064x}"),
            )
            for number, name in enumerate(self._engine.sizes)
        ]
        for index, model in enumerate(self._models):
            metadata = {**model.header.metadata, "general.name": model.name.model}
            self._models[index] = replace(model, header=replace(model.header, metadata=metadata))
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        settings = Settings(
            models=Path("none"),
            engine="scripted",
            keep_alive=KEEP_ALIVE,
            memory_limit=ROOM,
            max_queue=QUEUE,
            max_model_queue=MODEL_QUEUE,
            stall_timeout=STALL,
            model_policies=(ModelPolicy("sim1", priority=2), ModelPolicy("sim3", parallel=2, max_ctx=2048)),
        )
        loop = asyncio.get_running_loop()
        faults: list[object] = []
        loop.set_exception_handler(lambda _, fault: faults.append(fault))
        async with Scheduler({"scripted": self._engine}, settings) as scheduler:
            self._scheduler = scheduler
            under_way: set[asyncio.Task[None]] = set()
            killing = asyncio.create_task(self._kill())
            for number in range(self._requests):
                task = asyncio.create_task(self._client(number, self._demand()))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                await pass_time(self._gap(number))
                self._check_bounds()
            while under_way:
                done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
            killing.cancel()
            self._check_nothing_is_left()
            await pass_time(KEEP_ALIVE + LOAD_GIVEN_UP + 3 * STALL)
            assert not scheduler._places, "every model has gone"
            assert not self._engine.alive
        assert faults == [], "nothing is raised where nobody hears it"
        self.outcome.loads = self._engine.loads.total()
        self.outcome.hours = loop.time() / 3600
        assert self.outcome.ends.total() == self._requests, "every request has one end"
        return self.outcome

    def _gap(self, number: int) -> float:
        """Seconds until the next request: now a crowd, now few."""
        crowded = number // 500 % 3 == 0
        return self._random.expovariate(8.0 if crowded else 0.7)

    def _demand(self) -> Demand:
        random = self._random
        model = self._models[min(int(random.paretovariate(0.9)) - 1, MODELS - 1)]
        options = Options()
        if random.random() < 0.3:
            options = Options(num_ctx=random.choice((1024, 2048, 4096)))
        elif random.random() < 0.05:
            options = Options(num_thread=random.choice((1, 2)))
        return Demand(
            model,
            options,
            random.choice((None, None, None, None, 0.0, 1.0, 30.0)),
            random.choices((*ANSWERS,), (600, 300, 90, 6, 4))[0],
            random.uniform(0.5, 60.0) if random.random() < 0.3 else inf,
            random.expovariate(0.2) if random.random() < 0.2 else inf,
        )

    async def _kill(self) -> None:
        """Runners end from outside now and then."""
        while True:
            await pass_time(self._random.expovariate(1 / 400))
            if self._engine.alive:
                self._random.choice(self._engine.alive).kill("killed from outside")

    # ------------------------------------------------------------------------------------------------- one request

    async def _client(self, number: int, demand: Demand) -> None:
        """Asks, and cancels as it meant to."""
        loop = asyncio.get_running_loop()
        came = loop.time()
        end = min(demand.deadline + 1e-6, demand.cancel)
        work = asyncio.create_task(self._ask(f"req{number}", demand, came + demand.deadline))
        timer = None if end == inf else loop.call_at(came + end, work.cancel)
        await asyncio.wait({work})
        if timer is not None:
            timer.cancel()
        self.outcome.ends[self._end(work)] += 1
        if end < inf:
            assert loop.time() <= came + end + 1e-5, "it is over in time"

    def _end(self, work: asyncio.Task[None]) -> str:
        if work.cancelled():
            return "cancelled"
        error = work.exception()
        if error is None:
            return "answered"
        assert isinstance(error, PunaError), error
        if isinstance(error, Overloaded):
            assert 0 < error.retry_after <= LATEST
        assert isinstance(error, Overloaded | DeadlineExceeded | LoadFailed | LoadTimeout | RunnerDied), error
        return error.default_code or ""

    async def _ask(self, request: str, demand: Demand, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        came, turns = loop.time(), list[int]()
        at_once = self._at_once(demand)
        if at_once:
            loop.call_soon(turns.append, 1)
        lease = self._scheduler.lease(
            demand.model, demand.options, keep_alive=demand.keep_alive, deadline=deadline, request=request
        )
        async with lease as held:
            waited = loop.time() - came
            assert not (at_once and turns), "a loaded model that is free begins at once"
            assert loop.time() < deadline, "who is too late does not begin"
            if demand.options.num_ctx is not None:
                most = 2048 if demand.model.name.model == "sim3" else 4096
                assert held.runner.info.num_ctx == min(demand.options.num_ctx, most)
            self.outcome.at_once += at_once
            self.outcome.longest = max(self.outcome.longest, waited)
            assert waited < LONGEST_WAIT, "nobody waits for ever"
            prompt = Prompt(tuple(demand.kind.encode()))
            steps = held.runner.generate(prompt, Sampling(max_tokens=100, seed=1))
            async with aclosing(steps):  # type: ignore[type-var]
                async for _ in steps:
                    pass

    def _at_once(self, demand: Demand) -> bool:
        """Whether the model is loaded as it is wanted, and has a slot that is free."""
        scheduler = self._scheduler
        need = scheduler._needs.need(demand.model, demand.options, None, embedding=False, room=None)
        return any(place.has_slot(need.wish) and place.runner is not None for place in scheduler._places.values())

    # ------------------------------------------------------------------------------------------------- what must hold

    def _check_bounds(self) -> None:
        scheduler = self._scheduler
        assert scheduler.waiting <= QUEUE
        assert len(scheduler.waiters()) <= QUEUE + 4 * len(scheduler._places)
        assert sum(place.size for place in scheduler._places.values()) <= ROOM
        assert next_move(scheduler._snapshot()) is None or self._just_impatient(), "what can be done is done"

    def _just_impatient(self) -> bool:
        """Somebody's patience has just ended; he is heard in a moment. Or his runner has: likewise."""
        now = asyncio.get_running_loop().time()
        waited = [now - ticket.wish.since - COLLATE_SECONDS for ticket in self._scheduler._line]
        return any(0 <= seconds <= TICK for seconds in waited) or any(
            place.dead for place in self._scheduler._places.values()
        )

    def _check_nothing_is_left(self) -> None:
        scheduler = self._scheduler
        assert len(scheduler._line) == 0
        assert not scheduler._line.queue
        assert not scheduler._line.turns
        assert all(not place.users for place in scheduler._places.values()), "a lease is lost"


def simulate(requests: int, seed: int) -> Outcome:
    """So many requests, one history a seed."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(_Simulation(requests, seed).run())
    finally:
        loop.close()
