"""The server's end as its requests meet it: how many are under way, and the moment after which none may go on.

A request that is told to end says so to its client: an error event on a stream that has begun, a 503 where nothing was
sent yet. It is never a connection that is cut.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from puna.errors import ServerStopping


class Ending:
    """One event loop only."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()
        self.now = False
        """No request may go on. One that comes all the same is refused."""

    @property
    def running(self) -> int:
        """How many requests are under way."""
        return len(self._tasks)

    async def idle(self) -> None:
        """Returns when no request is under way."""
        await self._none_left.wait()

    def end_all(self) -> None:
        """Interrupt every request; each ends soon, with an error that its client can read."""
        self.now = True
        for task in self._tasks:
            task.cancel()

    def enter(self) -> None:
        """The current task serves a request. ServerStopping when it is too late for one."""
        if self.now:
            raise ServerStopping
        self._tasks.add(_current())
        self._none_left.clear()

    def leave(self) -> None:
        self._tasks.discard(_current())
        if not self._tasks:
            self._none_left.set()


class Ends:
    """ASGI middleware, just inside the one that renders errors: counts requests, and interrupts them at the end."""

    def __init__(self, app: ASGIApp, ending: Ending) -> None:
        self._app = app
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["ending"] = self._ending
        self._ending.enter()
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._ending.now:
                raise
            raise ServerStopping from None
        finally:
            self._ending.leave()


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
