"""Waiting for a connection's next bytes, with no turn of the event loop between their coming and the waiter's going on.

A task that waits for a Future is handed to the event loop when that is done, and goes on in its next turn: another look
at every socket, for each token. See docs/performance.md for what that costs beside an engine that spins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context


class Arrival:
    """Awaited as often as need be, by one task at a time, which may be woken for nothing.

    It has the form of what asyncio's tasks can wait for (`asyncio.isfuture`), made inside a running loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asyncio_future_blocking = False
        self._wake: Callable[[Arrival], object] | None = None
        self._context: Context | None = None
        self._cancelled: asyncio.CancelledError | None = None

    def come(self) -> None:
        """Whoever waits goes on inside this call. Only for callbacks of the event loop: a task cannot run in a task."""
        wake, context = self._wake, self._context
        if wake is not None and context is not None:
            self._wake = None
            context.run(wake, self)

    def __await__(self) -> Generator[Arrival, None, None]:
        self._asyncio_future_blocking = True
        yield self

    # ------------------------------------------------------------------------------------- what a task asks of it

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, wake: Callable[[Arrival], object], *, context: Context) -> None:
        self._wake, self._context = wake, context

    def cancel(self, msg: object = None) -> bool:
        """The waiting task's own `cancel`, which is called from other tasks: it learns of it in the next turn."""
        if self._wake is None:
            return False
        self._cancelled = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self._loop.call_soon(self.come)
        return True

    def result(self) -> None:
        """Raises what the task was cancelled with."""
        cancelled, self._cancelled = self._cancelled, None
        if cancelled is not None:
            raise cancelled
