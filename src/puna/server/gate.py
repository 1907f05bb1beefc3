"""Requests begin one after another: however many come at once, what is asked between them waits for a few at most.

What begins a request (its body is parsed, checked and converted) takes the event loop some milliseconds. A hundred
that came together would take them all before anybody else was heard.
"""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from puna.server.keys import OPEN_PATHS

AHEAD = OPEN_PATHS | {"/api/version"}
"""Paths whose answers take no time: nobody waits for them, and they for nobody."""


class Gate:
    """ASGI middleware, the innermost: a route is entered in a turn, and goes on in one once its body is whole.

    One event loop only. Between two turns the loop looks at its sockets and runs what is ready.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False
        self._turn: asyncio.Task[object] | None = None
        """Whose turn it is; None between the moment when one is given and the one when it is begun."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in AHEAD:
            await self._app(scope, receive, send)
            return

        async def whole() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                await self._take()
            return message

        await self._take()
        await self._app(scope, whole, send)

    async def _take(self) -> None:
        """Returns when it is the current task's turn."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._pass_on)
        elif self._turn is not task:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append(turn)
            await turn
        self._turn = task

    def _pass_on(self) -> None:
        """To the one that waits longest; whoever has gone meanwhile is passed over."""
        self._turn = None
        waiting = next((turn for turn in iter(self._next, None) if not turn.done()), None)
        if waiting is None:
            self._taken = False
        else:
            waiting.set_result(None)
            asyncio.get_running_loop().call_soon(self._pass_on)

    def _next(self) -> asyncio.Future[None] | None:
        return self._waiting.popleft() if self._waiting else None
