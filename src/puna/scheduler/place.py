"""A runner from the start of its load until it is gone, and who uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Literal

from puna.engine.runner import LoadOptions, Runner, RunnerInfo
from puna.scheduler.policy import Held, Key, Wish
from puna.settings import LONGEST

if TYPE_CHECKING:
    from puna.model.model import Model
    from puna.model.name import Name


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use `runner` for one request. `load_ns`: how long the request waited for it."""

    runner: Runner
    load_ns: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `size` in bytes; `expires_at` None: never; `users`: requests under way.

    `pinned`: it leaves for no other model.
    """

    model: Model
    info: RunnerInfo
    size: int
    expires_at: datetime | None
    users: int
    pinned: bool

    @property
    def num_ctx(self) -> int:
        return self.info.num_ctx

    @property
    def engine(self) -> str:
        return self.info.engine

    @property
    def reason(self) -> str:
        return self.info.reason


@dataclass(frozen=True, slots=True)
class Waiter:
    """A request that waits. `seconds`: since it came. `position`, from 1: in the line for memory, or at its runner."""

    request: str
    model: str
    state: Literal["queued", "loading"]
    seconds: float
    position: int


@dataclass(eq=False, slots=True)
class Use:
    """One request's use of a place, and its wait for one before. `request`: by what it is known; `since`: it came then.

    `begun`: it has a slot of the runner.
    """

    request: str
    since: float
    begun: bool = False


@dataclass(eq=False, slots=True)
class Place:
    """A runner from the start of its load until it is gone, and who uses it. Times are the event loop's.

    `uses`: in the order in which they came, which is that in which runners give their slots. `condemned`: its runner is
    being killed.
    """

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
    pinned: bool = False
    uses: dict[Use, None] = field(default_factory=dict)
    leaving: bool = False
    condemned: bool = False
    timer: asyncio.TimerHandle | None = None
    closing: asyncio.Task[None] | None = None
    watching: asyncio.Task[None] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def users(self) -> int:
        return len(self.uses)

    @property
    def over(self) -> int:
        """How many of its users wait for others to end."""
        return max(self.users - self.load.slots, 0)

    def has_slot(self, wish: Wish) -> bool:
        """Whether such a request would begin at once, or as soon as the runner is loaded."""
        return (
            self.key == wish.key
            and not self.leaving
            and self.users < self.load.slots
            and (not self.dead and wish.suits(self.load))
        )

    def begin(self) -> int:
        """Let those begin that have a slot now; how many."""
        if self.runner is None:
            return 0
        beginning = [use for use in islice(self.uses, self.load.slots) if not use.begun]
        for use in beginning:
            use.begun = True
        return len(beginning)

    def waiters(self, now: float) -> Iterator[Waiter]:
        """Of those that wait for its load, or for a slot."""
        loading = not self.loading.done()
        for at, use in enumerate(self.uses):
            if loading:
                yield Waiter(use.request, self.model.name.short, "loading", now - use.since, at + 1)
            elif not use.begun:
                at_slots = at + 1 - self.load.slots
                yield Waiter(use.request, self.model.name.short, "queued", now - use.since, max(at_slots, 1))

    @property
    def runner(self) -> Runner | None:
        done = self.loading.done() and not self.loading.cancelled() and self.loading.exception() is None
        return self.loading.result() if done else None

    @property
    def dead(self) -> bool:
        """Its runner ended on its own, or is being killed; who watches for that may not have been told yet."""
        return self.condemned or (self.runner is not None and self.runner.died.done())

    def expires(self, now: float) -> float:
        """As if its last request ended now, while it has any."""
        return inf if not 0 <= self.keep_alive < LONGEST else (now if self.users else self.used) + self.keep_alive

    def loaded(self, now: float) -> Loaded | None:
        """As a list shows it; None while it loads."""
        runner = self.runner
        if runner is None:
            return None
        return Loaded(self.model, runner.info, self.size, _date(self.expires(now) - now), self.users, self.pinned)

    def held(self, now: float) -> Held:
        return Held(
            id=self.id,
            key=self.key,
            load=self.load,
            size=self.size,
            users=self.users,
            loading=not self.loading.done(),
            leaving=self.leaving or self.dead,
            pinned=self.pinned,
            expires=self.expires(now),
            used=self.used,
        )


def _date(seconds: float) -> datetime | None:
    return None if seconds == inf else datetime.now(timezone.utc) + timedelta(seconds=seconds)
