"""Runners, lent out. One event loop owns all state here: it changes only in methods that do not await.

A request takes a Lease. `policy.decide` says what has to happen for it; this module does that, and asks again whenever
something changed: a load ended, a lease ended, a runner went. Requests whose model is loaded go straight through; the
others wait in line, and the first of them that has to wait for memory holds back those behind it that need some too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from itertools import count, takewhile
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING

import structlog

from puna.engine import memory
from puna.engine.choose import EngineChoice, choose
from puna.engine.engine import Engine, ModelFacts, Opinion
from puna.engine.memory import Estimate
from puna.engine.runner import LoadOptions, ModelFiles, Runner, RunnerInfo
from puna.errors import InvalidRequest, LoadFailed, LoadTimeout, Overloaded, PunaError
from puna.observer import UNOBSERVED, Observer
from puna.scheduler import failures, policy
from puna.scheduler.failures import Failures
from puna.scheduler.free import free_memory
from puna.scheduler.narrowed import narrowed
from puna.scheduler.policy import Evict, Full, Held, Key, Reuse, Snapshot, Start, TooLarge, Wait, Wish
from puna.scheduler.reckoning import Reckoning, largest_context
from puna.scheduler.watch import watch
from puna.settings import LONGEST, Settings
from puna.types import MOST_CONTEXT, Options

if TYPE_CHECKING:
    from puna.model.model import Model
    from puna.model.name import Name

DEFAULT_CONTEXT = 4096

QUIET = 0.5
"""Seconds without a request after which the engines prepare for the next start."""

_LOAD_FIELDS = frozenset(item.name for item in fields(LoadOptions)) & frozenset(item.name for item in fields(Options))

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use `runner` for one request. `load_ns`: how long the request waited for it."""

    runner: Runner
    load_ns: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `size` in bytes; `expires_at` None: never; `users`: requests under way."""

    model: Model
    info: RunnerInfo
    size: int
    expires_at: datetime | None
    users: int

    @property
    def num_ctx(self) -> int:
        return self.info.num_ctx

    @property
    def engine(self) -> str:
        return self.info.engine

    @property
    def reason(self) -> str:
        return self.info.reason


@dataclass(eq=False, slots=True)
class _Place:
    """A runner from the start of its load until it is gone, and who uses it. Times are the event loop's."""

    id: int
    key: Key
    load: LoadOptions
    size: int
    model: Model
    names: set[Name]
    keep_alive: float
    used: float
    loading: asyncio.Task[Runner]
    engine: str
    since: float
    users: int = 0
    leaving: bool = False
    timer: asyncio.TimerHandle | None = None
    closing: asyncio.Task[None] | None = None
    watching: asyncio.Task[None] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def runner(self) -> Runner | None:
        done = self.loading.done() and not self.loading.cancelled() and self.loading.exception() is None
        return self.loading.result() if done else None

    @property
    def dead(self) -> bool:
        """Its runner ended on its own; who watches for that may not have been told yet."""
        return self.runner is not None and self.runner.died.done()

    def expires(self, now: float) -> float:
        """As if its last request ended now, while it has any."""
        return inf if not 0 <= self.keep_alive < LONGEST else (now if self.users else self.used) + self.keep_alive

    def held(self, now: float) -> Held:
        return Held(
            id=self.id,
            key=self.key,
            load=self.load,
            size=self.size,
            users=self.users,
            loading=not self.loading.done(),
            leaving=self.leaving or self.dead,
            expires=self.expires(now),
            used=self.used,
        )


@dataclass(frozen=True, slots=True)
class _Order:
    """A request's Wish, with what it takes to fulfil it."""

    wish: Wish
    model: Model
    choice: EngineChoice
    files: ModelFiles
    keep_alive: float | None


@dataclass(eq=False, slots=True)
class _Ticket:
    """A request in line, `since` a time of the event loop."""

    order: _Order
    place: asyncio.Future[_Place]
    since: float


class Scheduler:
    """Use it as an async context manager: leaving it closes every runner.

    `free_memory`: bytes the system could give now; to be replaced where a test has to decide.
    `verify`: looks at a model's files before they are loaded; what it raises is why the load failed.
    `observer`: hears of loads, and of runners that end.
    `choose`: which engine runs a model. `quiet`: seconds without a request after which the engines prepare.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        settings: Settings,
        *,
        free_memory: Callable[[], int] = free_memory,
        verify: Callable[[Model], Awaitable[None]] = lambda _: asyncio.sleep(0),
        choose: Callable[[str, Sequence[Opinion], int | None], EngineChoice] = choose,
        quiet: float = QUIET,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._engines = engines
        self._settings = settings
        self._free_memory = free_memory
        self._verify = verify
        self._choose = choose
        self._observer = observer
        self._quiet_after = quiet
        self._places: dict[int, _Place] = {}
        self._line: list[_Ticket] = []
        self._facts: dict[str, ModelFacts] = {}
        self._opinions = lru_cache(maxsize=256)(self._ask)
        self._memory = lru_cache(maxsize=1024)(self._reckon)
        self._failures = Failures()
        self._ids = count(1)
        self._closed = False
        self._quiet: asyncio.TimerHandle | None = None
        self._preparing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Scheduler:
        self._quiet_again()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def lease(
        self, model: Model, options: Options, *, keep_alive: float | None = None, embedding: bool = False
    ) -> AsyncIterator[Lease]:
        """A ready runner of `model`. Raises InvalidRequest (num_ctx), Overloaded, Unsupported, LoadFailed, LoadTimeout.

        `keep_alive` seconds after the last request (0: none, negative: for ever); None keeps what was last set.
        """
        began = time.perf_counter_ns()
        order = self._order(model, options, keep_alive, embedding)
        self._check_rested(order)
        place = await self._acquire(order)
        try:
            runner = await self._ready(place)
            if options.num_ctx is not None:
                runner = narrowed(runner, order.wish.load.num_ctx)
            yield Lease(runner, time.perf_counter_ns() - began)
            # A request that went well: whatever ended runners before, it is not in the file.
            self._failures.forget(place.key)
        finally:
            self._release(place)

    def choice(self, model: Model, options: Options, *, embedding: bool = False) -> EngineChoice:
        """Which engine would run the model, and why. Unsupported when none can."""
        load = self._load_options(model, options, embedding)
        return self._choose(self._settings.engine, self._opinions(self._known(model), load), self._room(model))

    def reckon(self, model: Model, options: Options, *, embedding: bool = False) -> Reckoning:
        """What the model would take, loaded for these options, and whether it could be had. Loads nothing.

        Unsupported when no engine can run it, InvalidRequest for its num_ctx.
        """
        known = self._known(model)
        load = self._load_options(model, options, embedding)
        choice = self._choose(self._settings.engine, self._opinions(known, load), None)
        load = replace(load, slots=self._slots(load, choice.slots))
        available = self._available()
        return Reckoning(
            engine=choice.engine,
            reason=choice.reason,
            num_ctx=load.num_ctx,
            slots=load.slots,
            estimate=self._memory(choice.engine, known, load),
            available=available,
            largest=self._largest(choice.engine, known, load, available),
        )

    def _largest(self, engine: str, model: ModelFacts, load: LoadOptions, available: int) -> int | None:
        def need(num_ctx: int) -> int:
            return self._engines[engine].memory(model, replace(load, num_ctx=num_ctx, slots=1)).total

        return largest_context(need, available, _trained(model))

    def context_now(self, model: Model) -> int:
        """Tokens that a request to this model has, which asks for no number of them."""
        if model.options.num_ctx is None:
            for place in self._places.values():
                if place.model.weights_digest == model.weights_digest and not place.leaving:
                    return place.load.num_ctx
        return self.context(model, model.options)

    def context(self, model: Model, options: Options) -> int:
        """Tokens that a request with these options would have for its prompt and answer."""
        return context_of(options.num_ctx, self._settings.context_length, model.header.context_length)

    def loaded(self) -> tuple[Loaded, ...]:
        """The models in memory, the one that leaves last first."""
        now = self._now()
        places = sorted(self._places.values(), key=lambda place: place.expires(now), reverse=True)
        return tuple(
            Loaded(place.model, place.runner.info, place.size, _date(place.expires(now) - now), place.users)
            for place in places
            if place.runner is not None
        )

    @property
    def waiting(self) -> int:
        """Requests in line for a runner."""
        return len(self._line)

    def troubles(self) -> tuple[str, ...]:
        """What keeps models from being served now, a sentence each: loads that do not end, models that rest."""
        now, longest = self._now(), self._settings.load_timeout
        stuck = [
            f"{place.model.name.short} has been loading for {now - place.since:.0f} s"
            for place in self._places.values()
            if not place.loading.done() and 0 < longest < now - place.since
        ]
        resting = [f"{one.model} rests for {one.seconds:.0f} s: {one.cause}" for one in self._failures.all_resting(now)]
        return (*stuck, *resting)

    async def unload(self, name: Name) -> bool:
        """Unload what runs under `name`: at once if idle, else when its requests are done. False: nothing did."""
        places = [place for place in self._places.values() if name in place.names]
        for place in places:
            self._leave(place)
        idle = [place.gone.wait() for place in places if not place.users]
        await asyncio.gather(*idle)
        return bool(places)

    async def close(self) -> None:
        """Refuse what waits, end every runner, return when all are gone. May be called twice."""
        self._closed = True
        for ticket in self._line:
            if not ticket.place.done():
                ticket.place.set_exception(_stopping())
        places = list(self._places.values())
        for place in places:
            self._leave(place, now=True)
        await asyncio.gather(*(place.gone.wait() for place in places))
        self._quiet_again()
        if self._preparing is not None:
            await asyncio.wait({self._preparing})
        for engine in self._engines.values():
            await engine.close()

    # ------------------------------------------------------------------------------------------------ one request

    def _order(self, model: Model, options: Options, keep_alive: float | None, embedding: bool) -> _Order:
        """What the request needs, in the words of the policy."""
        choice = self.choice(model, options, embedding=embedding)
        load = self._load_options(model, options, embedding)
        load = replace(load, slots=self._slots(load, choice.slots))
        if not self._engines[choice.engine].profile.gpu:
            load = replace(load, num_gpu=0)  # so that nobody who says it has the model loaded anew
        key = Key(
            weights=str(model.weights_digest),
            adapters=tuple(str(path) for path in model.adapters),
            projectors=tuple(str(path) for path in model.projectors),
            embedding=embedding,
        )
        sizes = self._sizes(choice.engine, self._known(model), load)
        said = frozenset(name for name in _LOAD_FIELDS if getattr(options, name) is not None)
        wish = Wish(key, load, said, sizes[:1] if self._settings.num_parallel else sizes)
        return _Order(wish, model, choice, _files(model), keep_alive)

    def _ask(self, model: ModelFacts, load: LoadOptions) -> tuple[Opinion, ...]:
        """What the engines say, in the order in which they are preferred."""
        return tuple(engine.opinion(model, load) for engine in self._engines.values())

    def _sizes(self, engine: str, model: ModelFacts, load: LoadOptions) -> tuple[tuple[int, int], ...]:
        """(slots, bytes) for the slots asked for, and each halving of them: what may be tried when memory is short."""
        halvings = takewhile(bool, (load.slots >> times for times in count()))
        return tuple((slots, self._memory(engine, model, replace(load, slots=slots)).total) for slots in halvings)

    def _reckon(self, engine: str, model: ModelFacts, load: LoadOptions) -> Estimate:
        return self._engines[engine].memory(model, load)

    def _known(self, model: Model) -> ModelFacts:
        """Looked at once for each model, for every request needs it."""
        if model.digest not in self._facts:
            self._facts[model.digest] = _facts(model)
        return self._facts[model.digest]

    def _room(self, model: Model) -> int | None:
        """Bytes that could be had for models; None: it does not matter, for this one has what it needs."""
        if any(place.model.digest == model.digest for place in self._places.values()):
            return None
        return self._available()

    def _available(self) -> int:
        """Bytes that models could have, those that are loaded now included."""
        held = sum(place.size for place in self._places.values())
        return self._settings.memory_limit or int(self._free_memory() * policy.HEADROOM) + held

    def _slots(self, load: LoadOptions, advised: int) -> int:
        return 1 if load.embedding else self._settings.num_parallel or advised

    def _load_options(self, model: Model, options: Options, embedding: bool) -> LoadOptions:
        """But for the slots, which the engine advises."""
        settings = self._settings
        return LoadOptions(
            num_ctx=self.context(model, options),
            slots=1,
            num_batch=options.num_batch,
            num_thread=options.num_thread,
            num_gpu=options.num_gpu,
            main_gpu=options.main_gpu,
            use_mmap=options.use_mmap,
            flash_attention=settings.flash_attention,
            cache_type=settings.kv_cache_type,
            embedding=embedding,
        )

    def _check_rested(self, order: _Order) -> None:
        """Overloaded while a model rests that ended its runners again and again."""
        key = order.wish.key
        resting = self._failures.resting(key, self._now())
        if resting is None or any(place.key == key and not place.leaving for place in self._places.values()):
            return
        raise Overloaded(
            f"the runner of {order.model.name.short} ended {resting.times} times in the last "
            f"{failures.WINDOW / 60:g} minutes, and answered nothing between; last of all: {resting.cause}. "
            f"It is loaded again in {resting.seconds:.0f} s at the earliest",
            retry_after=resting.seconds,
        )

    async def _acquire(self, order: _Order) -> _Place:
        """A place with this request counted among its users."""
        if self._closed:
            raise _stopping()
        loop = asyncio.get_running_loop()
        ticket = _Ticket(order, loop.create_future(), loop.time())
        if len(self._line) >= max(self._settings.max_queue, 1) and not self._serve(ticket, may_act=False):
            raise _full()
        if not ticket.place.done():
            self._line.append(ticket)
            self._advance()
        impatient = None if ticket.place.done() else loop.call_later(policy.COLLATE_SECONDS, self._advance)
        try:
            return await ticket.place
        except asyncio.CancelledError:
            if ticket.place.done() and not ticket.place.cancelled() and ticket.place.exception() is None:
                self._release(ticket.place.result())
            raise
        finally:
            if impatient is not None:
                impatient.cancel()
            if ticket in self._line:
                self._line.remove(ticket)
            self._advance()

    async def _ready(self, place: _Place) -> Runner:
        """Wait for the load, which others may have begun; their going away does not end it while one waits."""
        if not place.loading.done():
            await asyncio.wait({place.loading})
        if place.loading.cancelled():
            raise _stopping()
        return place.loading.result()

    def _release(self, place: _Place) -> None:
        place.users -= 1
        place.used = self._now()
        if place.users:
            return
        if place.leaving or place.keep_alive == 0 or not place.loading.done():
            self._leave(place)
        elif not place.gone.is_set():
            self._arm(place)
        self._advance()

    # --------------------------------------------------------------------------------------------------- the line

    def _advance(self) -> None:
        """Serve the line: first who finds his model there; then who has to wait for memory holds back those behind."""
        for ticket in [*self._line]:
            if not ticket.place.done():
                self._serve(ticket, may_act=False)
        may_act = True
        for ticket in [*self._line]:
            if not ticket.place.done():
                may_act = self._serve(ticket, may_act=may_act) and may_act
        self._quiet_again()

    def _serve(self, ticket: _Ticket, *, may_act: bool) -> bool:
        """Give the ticket its place if it can be had now; `may_act`: by starting and evicting too. False: it waits."""
        while True:
            wish = replace(ticket.order.wish, waited=self._now() - ticket.since)
            decision = policy.decide(wish, self._snapshot())
            if isinstance(decision, Reuse):
                ticket.place.set_result(self._take(self._places[decision.id], ticket.order))
                return True
            if isinstance(decision, Full):
                ticket.place.set_exception(_full())
                return True
            if isinstance(decision, Wait) or not may_act:
                return False
            if isinstance(decision, TooLarge):
                ticket.place.set_exception(self._too_large(ticket.order, decision))
                return True
            if isinstance(decision, Start):
                place = self._start(ticket.order, decision)
                ticket.place.set_result(self._take(place, ticket.order))
                return True
            self._evict(decision)

    def _too_large(self, order: _Order, decision: TooLarge) -> LoadFailed:
        wish, engine = order.wish, order.choice.engine
        largest = self._largest(engine, self._known(order.model), wish.load, decision.free)
        instead = f"num_ctx {largest} would fit" if largest and largest < wish.load.num_ctx else "none would fit"
        return LoadFailed(
            f"{order.model.name.short} with num_ctx {wish.load.num_ctx} needs about {_gib(decision.need)} of memory, "
            f"of which {_gib(decision.free)} could be had; {instead} ('puna estimate' tells more). "
            "Ask for a smaller num_ctx, or set PUNA_MEMORY_LIMIT",
        )

    def _snapshot(self) -> Snapshot:
        now = self._now()
        return Snapshot(
            held=tuple(place.held(now) for place in self._places.values()),
            free=self._free_memory,
            limit=self._settings.memory_limit,
            most=self._settings.max_loaded_models,
            queue=self._settings.max_queue,
        )

    def _take(self, place: _Place, order: _Order) -> _Place:
        place.users += 1
        place.names.add(order.model.name)
        if order.keep_alive is not None:
            place.keep_alive = order.keep_alive
        if place.timer is not None:
            place.timer.cancel()
            place.timer = None
        return place

    # ------------------------------------------------------------------------------------------ a runner's life

    def _start(self, order: _Order, start: Start) -> _Place:
        load = replace(order.wish.load, slots=start.slots)
        engine = self._engines[order.choice.engine]
        reason = order.choice.reason
        if start.slots < order.wish.load.slots:
            reason += f"; {start.slots} of {order.wish.load.slots} slots for lack of memory"
        place = _Place(
            id=next(self._ids),
            key=order.wish.key,
            load=load,
            size=start.size,
            model=order.model,
            names={order.model.name},
            keep_alive=self._settings.keep_alive,
            used=self._now(),
            loading=asyncio.create_task(self._load(engine, order, load, reason)),
            engine=engine.name,
            since=self._now(),
        )
        self._places[place.id] = place
        place.loading.add_done_callback(lambda _: self._loaded(place))
        _log.info("loading", model=order.model.name.short, engine=engine.name, num_ctx=load.num_ctx, slots=load.slots)
        return place

    async def _load(self, engine: Engine, order: _Order, load: LoadOptions, reason: str) -> Runner:
        await self._verify(order.model)
        try:
            return await engine.start(order.files, load, reason=reason)
        except LoadFailed as error:
            error.message = named(error.message, order.files)
            if order.choice.instead is None:
                raise
            _log.warning(
                "engine stepped back", model=order.model.name.short, engine=order.choice.engine, cause=error.message
            )
            reason = f"the {order.choice.engine} engine could not load it: {error.message}"
        load = replace(load, slots=self._slots(load, order.choice.instead.slots))
        try:
            return await self._engines[order.choice.instead.engine].start(order.files, load, reason=reason)
        except LoadFailed as error:
            error.message = named(error.message, order.files)
            raise

    def _loaded(self, place: _Place) -> None:
        """The load ended, one way or the other."""
        runner = place.runner
        if runner is None:
            error = None if place.loading.cancelled() else place.loading.exception()
            if isinstance(error, PunaError):
                self._observer.load_failed(place.model.name.short, place.engine, error.code or error.type)
            if isinstance(error, LoadTimeout):
                self._failures.note(place.key, place.model.name.short, error.message, self._now())
            self._gone(place)
            return
        self._observer.loaded(place.model.name.short, runner.info.engine, self._now() - place.since)
        place.size = runner.info.memory or place.size
        place.load = replace(place.load, slots=runner.info.slots)  # another engine may have stepped in
        runner.died.add_done_callback(lambda died: self._died(place, died))
        place.watching = asyncio.create_task(self._watch(place, runner))
        if not place.users:
            self._leave(place)
        self._advance()

    def _died(self, place: _Place, died: asyncio.Future[str]) -> None:
        if not place.leaving:
            _log.warning("runner died", model=place.model.name.short, cause=died.result())
            self._failures.note(place.key, place.model.name.short, died.result(), self._now())
            self._observer.runner_ended(place.model.name.short, place.engine)
            self._leave(place, now=True)

    async def _watch(self, place: _Place, runner: Runner) -> None:
        limit = self._settings.stall_timeout
        why = await watch(runner, limit, lambda: bool(place.users)) if limit > 0 else None
        if why is not None:
            _log.warning("ending a runner", model=place.model.name.short, cause=why)
            runner.kill(why)

    def _arm(self, place: _Place) -> None:
        """Start the keep-alive timer."""
        if 0 < place.keep_alive < LONGEST:
            place.timer = asyncio.get_running_loop().call_later(place.keep_alive, self._expire, place)

    def _expire(self, place: _Place) -> None:
        _log.info("unloading", model=place.model.name.short, keep_alive=place.keep_alive)
        self._leave(place)

    def _evict(self, decision: Evict) -> None:
        place = self._places[decision.id]
        _log.info("making room", model=place.model.name.short, users=place.users)
        self._leave(place)

    def _leave(self, place: _Place, *, now: bool = False) -> None:
        """Let it take no more requests, and end it as soon as it has none (`now`: at once)."""
        place.leaving = True
        if place.timer is not None:
            place.timer.cancel()
            place.timer = None
        if place.users and not now:
            return
        if not place.loading.done():
            place.loading.cancel()
        elif place.runner is not None and place.closing is None:
            place.closing = asyncio.create_task(self._close(place, place.runner))

    async def _close(self, place: _Place, runner: Runner) -> None:
        try:
            await runner.close()
        finally:
            if place.watching is not None:
                place.watching.cancel()
            self._gone(place)

    def _gone(self, place: _Place) -> None:
        self._places.pop(place.id, None)
        place.gone.set()
        self._advance()

    # ------------------------------------------------------------------------------------------------------- quiet

    def _quiet_again(self) -> None:
        """Let the engines prepare in a while, if until then nobody asks for anything."""
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        if not self._closed and not self._line and not any(place.users for place in self._places.values()):
            self._quiet = asyncio.get_running_loop().call_later(self._quiet_after, self._prepare)

    def _prepare(self) -> None:
        if self._preparing is None or self._preparing.done():
            self._preparing = asyncio.create_task(self._prepared())

    async def _prepared(self) -> None:
        """Ask them all: which one the next model needs is not known."""
        outcomes = await asyncio.gather(*(e.prepare() for e in self._engines.values()), return_exceptions=True)
        for name, outcome in zip(self._engines, outcomes, strict=True):
            if isinstance(outcome, LoadFailed | OSError):
                _log.info("engine not prepared", engine=name, cause=str(outcome))
            elif outcome is not None:
                raise outcome

    # --------------------------------------------------------------------------------------------------------- time

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def named(message: str, files: ModelFiles) -> str:
    """What an engine says of a model's files, with the model's name in place of their paths, which are digests."""
    for path in (*files.whole, *files.projectors, *files.adapters):
        for spelled in dict.fromkeys((str(path.resolve()), str(path), path.name)):
            message = message.replace(spelled, f"a file of {files.name}")
    return message


def context_of(said: int | None, default: int, trained: int | None) -> int:
    """Tokens per slot: what was `said`, else `default`, else DEFAULT_CONTEXT; no more than the model was trained on.

    A file that tells no length has MOST_CONTEXT.
    """
    if said is not None and said < 1:
        raise InvalidRequest("num_ctx must be at least 1", param="num_ctx")
    return min(said or default or DEFAULT_CONTEXT, trained or MOST_CONTEXT)


def _trained(model: ModelFacts) -> int:
    """Tokens that a model's file says it was trained on; else MOST_CONTEXT."""
    length = model.metadata.get(f"{model.architecture}.context_length")
    return length if isinstance(length, int) and length > 0 else MOST_CONTEXT


def _facts(model: Model) -> ModelFacts:
    return ModelFacts(
        architecture=model.header.architecture,
        types=frozenset(tensor.type.name for tensor in model.header.tensors),
        metadata=model.header.metadata,
        layout=_layout(model),
        projectors=len(model.projectors),
        adapters=len(model.adapters),
        mixed=model.header.holds_projector,
    )


def _layout(model: Model) -> memory.ModelLayout:
    header = model.header
    lengths = {name: header.metadata.get(f"{header.architecture}.attention.{name}_length") for name in ("key", "value")}
    inner, size, groups = (
        max(header.number(f"{header.architecture}.ssm.{name}") or 0, 0)
        for name in ("inner_size", "state_size", "group_count")
    )
    over = sum(path.stat().st_size for path in (*model.projectors, *model.adapters))
    return memory.shape(
        weights=sum(tensor.size for tensor in header.tensors) + over,
        vocabulary=header.vocabulary_size or 0,
        embedding=header.embedding_length or 0,
        blocks=header.block_count or 0,
        heads=header.head_count or 0,
        kv_heads=header.counts(f"{header.architecture}.attention.head_count_kv") or header.head_count_kv,
        key=lengths["key"] if isinstance(lengths["key"], int) else None,
        value=lengths["value"] if isinstance(lengths["value"], int) else None,
        interval=header.number(f"{header.architecture}.full_attention_interval"),
        channels=inner + 2 * groups * size if inner else None,
        state=inner * size,
        near=header.flags(f"{header.architecture}.attention.sliding_window_pattern") or (),
        near_length=header.number(f"{header.architecture}.attention.key_length_swa"),
        shared=header.number(f"{header.architecture}.attention.shared_kv_layers") or 0,
    )


def _files(model: Model) -> ModelFiles:
    return ModelFiles(
        weights=model.weights,
        digest=model.weights_digest.hex,
        architecture=model.header.architecture,
        quantization=model.header.quantization,
        projectors=model.projectors,
        adapters=model.adapters,
        name=model.name.short,
        pooled=model.header.pooling_type is not None,
        shards=model.shards,
    )


def _date(seconds: float) -> datetime | None:
    return None if seconds == inf else datetime.now(timezone.utc) + timedelta(seconds=seconds)


def _full() -> Overloaded:
    return Overloaded("server busy: too many requests wait already (PUNA_MAX_QUEUE)", retry_after=1.0)


def _stopping() -> Overloaded:
    return Overloaded("the server is stopping", retry_after=5.0)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
