"""Requests whose answers are read from the event loop; each is made in a thread of its own.

Threads are daemons: one that waits for a network does not keep the process when its user has had enough.
"""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

from puna.client.response import Response, lower
from puna.client.roundtrip import Request, RoundTrip, TooSlow
from puna.client.transport import Transport

_GRACE = 0.25

_Event: TypeAlias = "http.client.HTTPResponse | bytes | Exception | None"
"""The answer's head, then its pieces, None at its end; or what went wrong."""


class ThreadedTransport(Transport):
    """For who has an event loop."""

    @asynccontextmanager
    async def _answer(self, request: Request, seconds: float | None) -> AsyncIterator[Response]:
        work = _Work(request)
        threading.Thread(target=work.run, name="http", daemon=True).start()
        try:
            # A little longer than the connection may take, which so tells of itself.
            head = await work.next(None if seconds is None else seconds + _GRACE)
            if isinstance(head, Exception):
                raise head
            assert isinstance(head, http.client.HTTPResponse)
            yield Response(head.status, head.reason, lower(head), work.piece)
        finally:
            work.abandon()


class _Work:
    """A request's thread, and what comes of it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._trip: RoundTrip | None = None
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._abandoned = False

    def run(self) -> None:
        try:
            self._trip = RoundTrip(self._request)
            try:
                self._answer(self._trip)
            finally:
                self._trip.close()
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is awaited
            self._post(error)

    def _answer(self, trip: RoundTrip) -> None:
        trip.connect()
        if self._abandoned:
            return
        trip.send()
        head = trip.head()
        self._post(head)
        for piece in trip.pieces(head):
            self._post(piece)
        self._post(None)

    async def next(self, seconds: float | None) -> _Event:
        """TooSlow when nothing comes in time."""
        if seconds is None:
            return await self._events.get()
        try:
            return await asyncio.wait_for(self._events.get(), seconds)
        except asyncio.TimeoutError:
            raise TooSlow from None

    async def piece(self, seconds: float | None) -> bytes | None:
        event = await self.next(seconds)
        if isinstance(event, Exception):
            raise event
        assert not isinstance(event, http.client.HTTPResponse)
        return event

    def abandon(self) -> None:
        """From the loop."""
        self._abandoned = True
        if self._trip is not None:
            self._trip.abandon()

    def _post(self, event: _Event) -> None:
        if not self._abandoned:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._events.put_nowait, event)
