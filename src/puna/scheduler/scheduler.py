"""Runners, lent out. One event loop owns all state here: it changes only in methods that do not await.

A request takes a Lease. `policy.next_move` says what has to happen next; this module does that, and asks again until
nothing is left to do, and whenever something changed: a request came, a load ended, a lease ended, a runner went.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING

import structlog

from puna.engine.choose import EngineChoice, choose
from puna.engine.engine import Engine
from puna.engine.runner import LoadOptions, Runner
from puna.errors import DeadlineExceeded, LoadDied, LoadFailed, LoadTimeout, Overloaded, PunaError
from puna.observer import UNOBSERVED, Observer
from puna.scheduler import failures, policy
from puna.scheduler.behind import Behind
from puna.scheduler.facts import named
from puna.scheduler.failures import Failures
from puna.scheduler.free import free_memory
from puna.scheduler.line import Line, Ticket
from puna.scheduler.narrowed import narrowed
from puna.scheduler.needs import Choose, Need, Needs
from puna.scheduler.place import Lease, Loaded, Place, Use, Waiter
from puna.scheduler.policy import Act, AllPinned, Evict, Key, Reuse, Snapshot, Start, TooLarge
from puna.scheduler.rate import LATEST, StartRate
from puna.scheduler.reckoning import Reckoning
from puna.scheduler.watch import watch
from puna.settings import LONGEST, ModelPolicy, Settings
from puna.types import Options

if TYPE_CHECKING:
    from puna.model.listed import Label
    from puna.model.model import Model
    from puna.model.name import Name

QUIET = 0.5
"""Seconds without a request after which the engines prepare for the next start."""

TICK = 0.01
"""Seconds: what a moment of the clock is waited for beyond it, since timers may be a little early."""

_log = structlog.get_logger(__name__)


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
        choose: Choose = choose,
        quiet: float = QUIET,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._engines = engines
        self._settings = settings
        self._free_memory = free_memory
        self._last_free = 0
        self._needs = Needs(engines, settings, self._free, choose)
        self._verify = verify
        self._observer = observer
        self._quiet_after = quiet
        self._places: dict[int, Place] = {}
        self._line = Line()
        self._rates: defaultdict[Key | None, StartRate] = defaultdict(StartRate)
        self._failures = Failures()
        self._behind = Behind()
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
        self,
        model: Model,
        options: Options,
        *,
        keep_alive: float | None = None,
        embedding: bool = False,
        deadline: float = inf,
        request: str = "",
    ) -> AsyncIterator[Lease]:
        """A ready runner of `model`. Raises InvalidRequest (num_ctx), Overloaded, Unsupported, LoadFailed, LoadTimeout.

        `keep_alive` seconds after the last request (0: none, negative: for ever); None keeps what was last set.
        Background work (`behind`) waits for its turn, and Cancelled says that it gave way. `deadline`: a time of the
        event loop from which on it may not begin (DeadlineExceeded). `request`: by what `waiter` knows it.
        """
        async with self._behind.turn(lambda: self._slots(model)):
            began = time.perf_counter_ns()
            need = self._needs.need(model, options, keep_alive, embedding=embedding, room=self._room(model))
            wish = replace(need.wish, id=next(self._ids), since=self._now(), deadline=deadline)
            async with self._use(replace(need, wish=wish), request) as runner:
                own = runner if options.num_ctx is None else narrowed(runner, wish.load.num_ctx)
                yield Lease(own, time.perf_counter_ns() - began)

    @asynccontextmanager
    async def _use(self, need: Need, request: str) -> AsyncIterator[Runner]:
        use = Use(request, need.wish.since)
        self._check_admission(need)
        place = await self._acquire(need, use)
        try:
            yield await self._ready(place, need.wish.deadline)
            # A request that went well: whatever ended runners before, it is not in the file.
            self._failures.forget(place.key)
        finally:
            self._release(place, use)

    def choice(self, model: Model, options: Options, *, embedding: bool = False) -> EngineChoice:
        """Which engine would run the model, and why. Unsupported when none can."""
        return self._needs.choice(model, options, embedding=embedding, room=self._room(model))

    def reckon(self, model: Model, options: Options, *, embedding: bool = False) -> Reckoning:
        """What the model would take, loaded for these options, and whether it could be had. Loads nothing.

        Unsupported when no engine can run it, InvalidRequest for its num_ctx.
        """
        return self._needs.reckon(model, options, embedding=embedding, available=self._available())

    def context_now(self, name: Name, model: Label) -> int:
        """Tokens that a request to this model has under this Name, which asks for no number of them: where it is loaded
        with more than it would be, all those; where with less, it is loaded anew.
        """
        own = self._needs.context_of(name, model.num_ctx, model.context_length)
        if model.num_ctx is None:
            for place in self._places.values():
                if place.model.weights_digest.hex == model.weights and not place.leaving:
                    return max(place.load.num_ctx, own)
        return own

    def context(self, model: Model, options: Options) -> int:
        """Tokens that a request with these options would have for its prompt and answer."""
        return self._needs.context(model, options)

    def loaded(self) -> tuple[Loaded, ...]:
        """The models in memory, the one that leaves last first."""
        now = self._now()
        places = sorted(self._places.values(), key=lambda place: place.expires(now), reverse=True)
        return tuple(loaded for place in places if (loaded := place.loaded(now)) is not None)

    @property
    def waiting(self) -> int:
        """Requests in line for a runner, or for a slot of it."""
        return len(self._line) + sum(place.over for place in self._places.values())

    def waiters(self) -> tuple[Waiter, ...]:
        """The requests that wait: the next one in line first, then those of each runner."""
        now = self._now()
        line = [
            Waiter(ticket.use.request, ticket.need.model.name.short, "queued", now - ticket.use.since, position)
            for position, ticket in enumerate(self._line.in_order(), 1)
        ]
        return (*line, *(waiter for place in self._places.values() for waiter in place.waiters(now)))

    def waiter(self, request: str) -> Waiter | None:
        """How a request stands that waits; None: it does not."""
        return next((one for one in self.waiters() if one.request == request), None)

    def stuck(self) -> tuple[str, ...]:
        """Loads that do not end, a sentence each."""
        now, longest = self._now(), self._settings.load_timeout
        return tuple(
            f"{place.model.name.short} has been loading for {now - place.since:.0f} s"
            for place in self._places.values()
            if not place.loading.done() and 0 < longest < now - place.since
        )

    def resting(self) -> tuple[str, ...]:
        """Models that are not loaded for a while since it failed again and again, a sentence each."""
        return tuple(
            f"{one.model} rests for {one.seconds:.0f} s: {one.cause}" for one in self._failures.all_resting(self._now())
        )

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
            self._refuse(ticket, _stopping())
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

    def _room(self, model: Model) -> int | None:
        """Bytes that could be had for models; None: it does not matter, for this one has what it needs."""
        if any(place.model.digest == model.digest for place in self._places.values()):
            return None
        return self._available()

    def _available(self) -> int:
        """Bytes that models could have, those that are loaded now included."""
        return self._needs.available(sum(place.size for place in self._places.values()))

    def _free(self) -> int:
        """What it was when the system could last be asked: without another file to open it cannot, and an error in the
        middle of a step would leave those in line there.
        """
        with suppress(OSError):
            self._last_free = self._free_memory()
        return self._last_free

    def _slots(self, model: Model) -> int:
        """Slots of the runner that is loaded with this model; 0 where none is."""
        ready = (place for place in self._places.values() if place.runner is not None and not place.leaving)
        return next((place.load.slots for place in ready if place.model.digest == model.digest), 0)

    def _check_admission(self, need: Need) -> None:
        """Whether the request may begin, or wait. Overloaded, DeadlineExceeded."""
        wish = need.wish
        if self._closed:
            raise _stopping()
        if wish.deadline <= wish.since:
            raise DeadlineExceeded
        if any(place.has_slot(wish) for place in self._places.values()):
            return
        if not any(place.key == wish.key and not place.leaving for place in self._places.values()):
            self._check_rested(need)
        if self.waiting >= max(self._settings.max_queue, 1):
            raise self._full(None, "in all", "PUNA_MAX_QUEUE")
        most = self._settings.max_model_queue
        if most and self._waiting_for(wish.key) >= most:
            raise self._full(wish.key, f"for {need.model.name.short}", "PUNA_MAX_MODEL_QUEUE")

    def _check_rested(self, need: Need) -> None:
        """Overloaded while a model rests that ended its runners again and again."""
        resting = self._failures.resting(need.wish.key, self._now())
        if resting is not None:
            raise Overloaded(
                f"the runner of {need.model.name.short} ended {resting.times} times in the last "
                f"{failures.WINDOW / 60:g} minutes, and answered nothing between; last of all: {resting.cause}. "
                f"It is loaded again in {resting.seconds:.0f} s at the earliest",
                retry_after=resting.seconds,
            )

    def _waiting_for(self, key: Key) -> int:
        return self._line.count(key) + sum(place.over for place in self._places.values() if place.key == key)

    def _full(self, key: Key | None, where: str, setting: str) -> Overloaded:
        after = self._rates[key].come_back(self._now())
        return Overloaded(
            f"server busy: too many requests wait {where} already ({setting}); try again in {after:.0f} s",
            retry_after=after,
        )

    async def _acquire(self, need: Need, use: Use) -> Place:
        """A place with this request counted among its users."""
        loop = asyncio.get_running_loop()
        ticket = Ticket(need, use, loop.create_future())
        self._line.add(ticket)
        self._advance()
        timers = [] if ticket.place.done() else [*self._timers(ticket)]
        try:
            return await ticket.place
        except asyncio.CancelledError:
            if ticket.place.done() and not ticket.place.cancelled() and ticket.place.exception() is None:
                self._release(ticket.place.result(), use)
            raise
        finally:
            for timer in timers:
                timer.cancel()
            self._line.remove(ticket)
            self._advance()

    def _timers(self, ticket: Ticket) -> Iterator[asyncio.TimerHandle]:
        """What time alone changes for one that waits."""
        loop, wish = asyncio.get_running_loop(), ticket.wish
        yield loop.call_at(wish.since + policy.COLLATE_SECONDS + TICK, self._advance)
        if wish.deadline < inf:
            yield loop.call_at(wish.deadline, self._refuse, ticket, DeadlineExceeded())

    async def _ready(self, place: Place, deadline: float) -> Runner:
        """Wait for the load, which others may have begun; their going away does not end it while one waits."""
        if not place.loading.done():
            left = None if deadline == inf else deadline - self._now()
            await asyncio.wait({place.loading}, timeout=left)
            if not place.loading.done():
                raise DeadlineExceeded
        if place.loading.cancelled():
            raise _stopping()
        return place.loading.result()

    def _release(self, place: Place, use: Use) -> None:
        del place.uses[use]
        place.used = self._now()
        self._begin(place)
        if place.users:
            return
        if place.leaving or place.keep_alive == 0 or not place.loading.done():
            self._leave(place)
        elif not place.gone.is_set():
            self._arm(place)
        self._advance()

    def _begin(self, place: Place) -> None:
        """Count those who begin."""
        for _ in range(place.begin()):
            for key in (None, place.key):
                self._rates[key].note(self._now())

    # --------------------------------------------------------------------------------------------------- the line

    def _advance(self) -> None:
        """Take one step after the other, until nothing can be done before something changes."""
        while (move := policy.next_move(self._snapshot())) is not None:
            self._act(self._line[move.wish], move.act)
        self._quiet_again()

    def _act(self, ticket: Ticket, act: Act) -> None:
        """Whatever it is, the next step is another one: the ticket leaves the line, or a runner leaves."""
        if ticket.place.done():  # cancelled; its task has not been told yet
            self._line.remove(ticket)
            return
        match act:
            case Evict(id=id_):
                self._evict(self._places[id_])
            case Reuse(id=id_):
                self._seat(ticket, self._places[id_])
            case Start():
                try:
                    self._check_rested(ticket.need)
                except Overloaded as error:
                    self._refuse(ticket, error)
                else:
                    self._seat(ticket, self._start(ticket.need, act))
                    self._line.had_turn(ticket.wish.key, self._now())
            case TooLarge():
                self._refuse(ticket, self._too_large(ticket.need, act))
            case AllPinned():
                self._refuse(ticket, _all_pinned(ticket.need))

    def _seat(self, ticket: Ticket, place: Place) -> None:
        self._line.remove(ticket)
        self._take(place, ticket)
        ticket.place.set_result(place)

    def _refuse(self, ticket: Ticket, error: PunaError) -> None:
        self._line.remove(ticket)
        if not ticket.place.done():
            ticket.place.set_exception(error)

    def _too_large(self, need: Need, decision: TooLarge) -> LoadFailed:
        wish, largest = need.wish, self._needs.largest(need, decision.free)
        instead = f"num_ctx {largest} would fit" if largest and largest < wish.load.num_ctx else "none would fit"
        return LoadFailed(
            f"{need.model.name.short} with num_ctx {wish.load.num_ctx} needs about {_memory(decision.need)} of memory, "
            f"of which {_memory(decision.free)} could be had; {instead} ('puna estimate' tells more). "
            "Ask for a smaller num_ctx, or set PUNA_MEMORY_LIMIT",
        )

    def _snapshot(self) -> Snapshot:
        now = self._now()
        return Snapshot(
            held=tuple(place.held(now) for place in self._places.values()),
            free=self._free,
            limit=self._settings.memory_limit,
            most=self._settings.max_loaded_models,
            time=now,
            queue=self._line.queue,
            turns=self._line.turns,
        )

    def _take(self, place: Place, ticket: Ticket) -> None:
        need = ticket.need
        place.uses[ticket.use] = None
        place.names.add(need.model.name)
        place.pinned = place.pinned or need.policy.pin
        if need.keep_alive is not None and not place.pinned:
            place.keep_alive = need.keep_alive
        if place.timer is not None:
            place.timer.cancel()
            place.timer = None
        self._begin(place)

    # ------------------------------------------------------------------------------------------ a runner's life

    def _start(self, need: Need, start: Start) -> Place:
        load = replace(need.wish.load, slots=start.slots, num_ctx=start.num_ctx)
        engine = self._engines[need.choice.engine]
        reason = need.choice.reason
        if start.slots < need.wish.load.slots:
            reason += f"; {start.slots} of {need.wish.load.slots} slots for lack of memory"
        place = Place(
            id=next(self._ids),
            key=need.wish.key,
            load=load,
            size=start.size,
            model=need.model,
            names={need.model.name},
            keep_alive=self._keep_alive(need.policy),
            used=self._now(),
            loading=asyncio.create_task(self._load(engine, need, load, reason)),
            engine=engine.name,
            since=self._now(),
        )
        self._places[place.id] = place
        place.loading.add_done_callback(lambda _: self._loaded(place))
        _log.info("loading", model=need.model.name.short, engine=engine.name, num_ctx=load.num_ctx, slots=load.slots)
        return place

    def _keep_alive(self, policy: ModelPolicy) -> float:
        if policy.keep_alive is not None:
            return policy.keep_alive
        return -1.0 if policy.pin else self._settings.keep_alive

    async def _load(self, engine: Engine, need: Need, load: LoadOptions, reason: str) -> Runner:
        await self._verify(need.model)
        try:
            return await engine.start(need.files, load, reason=reason)
        except LoadFailed as error:
            error.message = named(error.message, need.files)
            if need.choice.instead is None:
                raise
            _log.warning(
                "engine stepped back", model=need.model.name.short, engine=need.choice.engine, cause=error.message
            )
            reason = f"the {need.choice.engine} engine could not load it: {error.message}"
        load = replace(load, slots=self._needs.slots(need.model, load, need.choice.instead.slots))
        try:
            return await self._engines[need.choice.instead.engine].start(need.files, load, reason=reason)
        except LoadFailed as error:
            error.message = named(error.message, need.files)
            raise

    def _loaded(self, place: Place) -> None:
        """The load ended, one way or the other."""
        runner = place.runner
        if runner is None:
            error = None if place.loading.cancelled() else place.loading.exception()
            if isinstance(error, PunaError):
                self._observer.load_failed(place.model.name.short, place.engine, error.code or error.type)
            if isinstance(error, LoadDied | LoadTimeout):
                self._failures.note(place.key, place.model.name.short, error.message, self._now())
            self._gone(place)
            return
        self._observer.loaded(place.model.name.short, runner.info.engine, self._now() - place.since)
        place.size = runner.info.memory or place.size
        place.load = replace(place.load, slots=runner.info.slots)  # another engine may have stepped in
        runner.died.add_done_callback(lambda died: self._died(place, died))
        place.watching = asyncio.create_task(self._watch(place, runner))
        self._begin(place)
        if not place.users:
            self._leave(place)
        self._advance()

    def _died(self, place: Place, died: asyncio.Future[str]) -> None:
        if not place.leaving:
            _log.warning("runner died", model=place.model.name.short, cause=died.result())
            self._failures.note(place.key, place.model.name.short, died.result(), self._now())
            self._observer.runner_ended(place.model.name.short, place.engine)
            self._leave(place, now=True)

    async def _watch(self, place: Place, runner: Runner) -> None:
        limit = self._settings.stall_timeout
        why = await watch(runner, limit, lambda: bool(place.users), lambda: place.used) if limit > 0 else None
        if why is not None:
            _log.warning("ending a runner", model=place.model.name.short, cause=why)
            place.condemned = True
            runner.kill(why)

    def _arm(self, place: Place) -> None:
        """Start the keep-alive timer."""
        if 0 < place.keep_alive < LONGEST:
            place.timer = asyncio.get_running_loop().call_later(place.keep_alive, self._expire, place)

    def _expire(self, place: Place) -> None:
        _log.info("unloading", model=place.model.name.short, keep_alive=place.keep_alive)
        self._leave(place)

    def _evict(self, place: Place) -> None:
        _log.info("making room", model=place.model.name.short, users=place.users)
        self._leave(place)

    def _leave(self, place: Place, *, now: bool = False) -> None:
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

    async def _close(self, place: Place, runner: Runner) -> None:
        try:
            await runner.close()
        finally:
            if place.watching is not None:
                place.watching.cancel()
            self._gone(place)

    def _gone(self, place: Place) -> None:
        self._places.pop(place.id, None)
        place.gone.set()
        self._advance()

    # ------------------------------------------------------------------------------------------------------- quiet

    def _quiet_again(self) -> None:
        """Let the engines prepare in a while, if until then nobody asks for anything."""
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        if not self._closed and not len(self._line) and not any(place.users for place in self._places.values()):
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


def _all_pinned(need: Need) -> Overloaded:
    return Overloaded(
        f"{need.model.name.short} cannot be loaded: as many models are pinned as may be loaded at once "
        "(PUNA_MODEL_POLICY, PUNA_MAX_LOADED_MODELS)",
        retry_after=LATEST,
    )


def _stopping() -> Overloaded:
    return Overloaded("the server is stopping", retry_after=5.0)


def _memory(size: int) -> str:
    """So exact that what is short can be seen."""
    return f"{size / 2**30:.1f} GiB" if size >= 10 << 30 else f"{size / 2**20:.0f} MiB"
