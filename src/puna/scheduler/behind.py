"""Background work, behind interactive work: it has the machine while nobody else wants it, else a small share of it.

A task says that its requests are background work (`in_background`); all others are interactive. Those go first, always
and at once. Background requests begin

- as many as come, when no interactive request has been there for QUIET_SECONDS;
- else one at a time, on a runner that is loaded and has more than one slot, and for SHARE of the time at most: who had
  the machine for a second beside interactive work rests for nine.

When an interactive request comes, background requests give way: all but one are ended, and are to be asked again
(`Background.gave_way`), but for those that say that they have given way often enough. The one that goes on counts into
the share.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from typing import Any

from puna.errors import Cancelled

SHARE = 0.1
"""Of the time, with one background request at work beside interactive ones."""

QUIET_SECONDS = 1.0
"""Without an interactive request, before background work has the machine: the next step of a tool loop comes sooner."""

_LOOK_SECONDS = 1.0
"""How often a background request looks whether its model is loaded by now."""


@dataclass(eq=False, slots=True)
class Background:
    """Says of a task's requests that they are background work. `gives_way`: they may be ended for interactive ones.

    `gave_way`: one of them was.
    """

    gives_way: bool = True
    gave_way: bool = False


_ROLE: ContextVar[Background | None] = ContextVar("background", default=None)


@contextmanager
def in_background(*, gives_way: bool = True) -> Iterator[Background]:
    """Requests of this task, and of those that it starts, are background work."""
    role = Background(gives_way)
    token = _ROLE.set(role)
    try:
        yield role
    finally:
        _ROLE.reset(token)


@dataclass(eq=False, slots=True)
class _Turn:
    """A background request at work. `slots`: of its runner, as it began. `beside`: since when it is beside others."""

    role: Background
    task: asyncio.Task[Any]
    slots: int
    beside: float | None = None
    ended: bool = False


class Behind:
    """Counts the requests of one scheduler, and lets background ones in. `now`: seconds of one clock."""

    def __init__(
        self, *, share: float = SHARE, quiet: float = QUIET_SECONDS, now: Callable[[], float] | None = None
    ) -> None:
        self._rest = 1 / share - 1
        self._quiet = quiet
        self._clock = now
        self._interactive = 0
        self._left = -inf
        self._resting_until = -inf
        self._turns: list[_Turn] = []
        self._line: list[asyncio.Event] = []

    @asynccontextmanager
    async def turn(self, slots: Callable[[], int]) -> AsyncIterator[None]:
        """The stay of one request. `slots`: of the runner that would answer it; 0 while none is loaded.

        Raises Cancelled where a background request gave way.
        """
        role = _ROLE.get()
        if role is None:
            self._come()
            try:
                yield
            finally:
                self._go()
            return
        await self._wait(slots)
        task = asyncio.current_task()
        assert task is not None
        turn = _Turn(role, task, slots(), self._now() if self._busy else None)
        self._turns.append(turn)
        try:
            yield
        except asyncio.CancelledError:
            if turn.ended:
                raise Cancelled("This request gave way to interactive ones.") from None
            raise
        finally:
            self._turns.remove(turn)
            if turn.beside is not None:
                now = self._now()
                self._resting_until = max(self._resting_until, now + (now - turn.beside) * self._rest)
            self._nudge()

    @property
    def _busy(self) -> bool:
        return self._interactive > 0 or self._now() - self._left < self._quiet

    def _come(self) -> None:
        self._interactive += 1
        if self._interactive > 1:
            return
        now = self._now()
        staying = next((turn for turn in self._turns if not turn.role.gives_way or turn.slots > 1), None)
        for turn in self._turns:
            if turn is staying or not turn.role.gives_way:
                turn.beside = turn.beside or now
            elif not turn.ended:
                turn.ended = turn.role.gave_way = True
                turn.task.cancel()

    def _go(self) -> None:
        self._interactive -= 1
        if not self._interactive:
            self._left = self._now()
            self._nudge()

    async def _wait(self, slots: Callable[[], int]) -> None:
        """Returns when the current task may begin. First come, first served."""
        news = asyncio.Event()
        self._line.append(news)
        try:
            while (delay := self._delay(slots) if self._line[0] is news else inf) > 0:
                await _set_within(news, delay)
                news.clear()
        finally:
            self._line.remove(news)
            self._nudge()

    def _delay(self, slots: Callable[[], int]) -> float:
        """Seconds until it is worth while to ask again; 0: it may begin."""
        if not self._busy:
            return 0
        now = self._now()
        quiet = inf if self._interactive else self._left + self._quiet - now
        if self._turns:
            return quiet
        if (rest := self._resting_until - now) > 0:
            return min(quiet, rest)
        return 0 if slots() > 1 else min(quiet, _LOOK_SECONDS)

    def _nudge(self) -> None:
        if self._line:
            self._line[0].set()

    def _now(self) -> float:
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, or the time is over. `asyncio.wait_for` may lose a cancellation, before 3.12."""
    timer = None if seconds == inf else asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        if timer is not None:
            timer.cancel()
