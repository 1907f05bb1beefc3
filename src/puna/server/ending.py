"""The server's end as its requests meet it: how many are under way, and the moment after which none may go on.

A request that is told to end says so to its client: an error event on a stream that has begun, a 503 where nothing was
sent yet. It is never a connection that is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from puna.errors import PunaError, ServerStopping


def interrupt(state: MutableMapping[str, Any], task: asyncio.Task[Any], error: PunaError) -> None:
    """End a request, which `task` serves: its client is told this error, unless it was ended already."""
    state.setdefault("interrupted", error)
    task.cancel()


class Ending:
    """One event loop only."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], MutableMapping[str, Any]] = {}
        self._resting: set[asyncio.Task[Any]] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()
        self.now = False
        """No request may go on. One that comes all the same is refused."""

    @property
    def running(self) -> int:
        """How many requests are under way."""
        return len(self._tasks) - len(self._resting)

    async def idle(self) -> None:
        """Returns when no request is under way."""
        await self._none_left.wait()

    def end_all(self) -> None:
        """Interrupt every request; each ends soon, with an error that its client can read."""
        self.now = True
        self._resting.clear()
        self._count()
        for task, state in self._tasks.items():
            interrupt(state, task, ServerStopping())

    def enter(self, state: MutableMapping[str, Any], task: asyncio.Task[Any] | None = None) -> None:
        """A task (None: the current one) serves a request, of this state. ServerStopping when it is too late."""
        if self.now:
            raise ServerStopping
        self._tasks[task or _current()] = state
        self._count()

    def leave(self, task: asyncio.Task[Any] | None = None) -> None:
        self._tasks.pop(task or _current(), None)
        self._count()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """The current task's request waits for its client: nobody waits for that, but it is interrupted at the end."""
        task = _current()
        self._resting.add(task)
        self._count()
        try:
            yield
        finally:
            self._resting.discard(task)
            self._count()

    def _count(self) -> None:
        if self.running:
            self._none_left.clear()
        else:
            self._none_left.set()


class Ends:
    """ASGI middleware, just inside the one that renders errors: counts requests, and says why they were interrupted."""

    def __init__(self, app: ASGIApp, ending: Ending) -> None:
        self._app = app
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        self._ending.enter(state)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            error = state.get("interrupted")
            if error is None:
                raise
            raise error from None
        finally:
            self._ending.leave()


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
