"""A runner from the start of its load until it is gone, and who uses it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from math import inf
from typing import TYPE_CHECKING

from puna.engine.runner import LoadOptions, Runner, RunnerInfo
from puna.scheduler.policy import Held, Key
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
class Place:
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

    def loaded(self, now: float) -> Loaded | None:
        """As a list shows it; None while it loads."""
        runner = self.runner
        if runner is None:
            return None
        return Loaded(self.model, runner.info, self.size, _date(self.expires(now) - now), self.users)

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


def _date(seconds: float) -> datetime | None:
    return None if seconds == inf else datetime.now(timezone.utc) + timedelta(seconds=seconds)
