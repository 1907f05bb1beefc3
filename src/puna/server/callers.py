"""Each request is known by its id to all that works for it, and ends when the time is over that it gave itself.

`x-puna-deadline` of a request holds for whatever it asks: a duration (`30s`, `1m30s`) or seconds, from the arrival of
its head to the end of its answer. What has not begun by then never does; what has is cut, with an error that its client
can read, as at the server's end.

With `x-puna-background: true` it is answered behind interactive requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, nullcontext
from math import inf
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from puna.errors import DeadlineExceeded
from puna.inference.caller import Caller, calls, current_caller
from puna.scheduler.behind import in_background
from puna.scheduler.place import Waiter
from puna.server.contract.reading import read_background, read_deadline
from puna.server.ending import interrupt


class Callers:
    """ASGI middleware. `waiter`: how a request stands that waits; `scope["state"]["standing"]` tells it in words."""

    def __init__(self, app: ASGIApp, waiter: Callable[[str], Waiter | None]) -> None:
        self._app = app
        self._waiter = waiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        request: str = state["request_id"]
        state["standing"] = lambda: _told(self._waiter(request))
        headers = Headers(scope=scope)
        seconds, background = read_deadline(headers), read_background(headers)
        calls(Caller(request, inf if seconds is None else asyncio.get_running_loop().time() + seconds))
        with keeping_deadline(state), in_background(gives_way=False) if background else nullcontext():
            await self._app(scope, receive, send)


@contextmanager
def keeping_deadline(state: MutableMapping[str, Any]) -> Iterator[None]:
    """The current task is interrupted when the time is over of whoever it works for. `state`: its request's."""
    deadline, task = current_caller().deadline, asyncio.current_task()
    if deadline == inf or task is None:
        yield
        return
    timer = asyncio.get_running_loop().call_at(deadline, interrupt, state, task, DeadlineExceeded())
    try:
        yield
    finally:
        timer.cancel()


def _told(waiter: Waiter | None) -> str:
    if waiter is None:
        return "still working"
    if waiter.state == "loading":
        return f"loading {waiter.model}"
    return f"queued: number {waiter.position} in line for {waiter.model}"
