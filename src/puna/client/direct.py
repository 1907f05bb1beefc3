"""Requests that are made where they are asked for, one after the other, without an event loop.

To import one takes as long as the rest of a short command. What uses only this never waits for anything else:
`without_loop` runs it.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

from puna.client.response import Response, lower
from puna.client.roundtrip import Broken, Request, RoundTrip, TooSlow
from puna.client.transport import Transport

_T = TypeVar("_T")


class DirectTransport(Transport):
    """For who has none."""

    @asynccontextmanager
    async def _answer(self, request: Request, seconds: float | None) -> AsyncIterator[Response]:
        trip = RoundTrip(request)
        try:
            trip.connect()
            trip.send()
            head = _within(trip, seconds, trip.head)
            pieces = trip.pieces(head)

            async def piece(seconds: float | None) -> bytes | None:
                return _within(trip, seconds, lambda: next(pieces, None))

            yield Response(head.status, head.reason, lower(head), piece)
        finally:
            trip.close()


def _within(trip: RoundTrip, seconds: float | None, wait: Callable[[], _T]) -> _T:
    """TooSlow when all of it takes longer: a socket's own time begins anew with each byte."""
    if seconds is None:
        return wait()
    timer = threading.Timer(seconds, trip.abandon)
    timer.daemon = True
    timer.start()
    try:
        outcome = wait()
    except Broken as error:
        if trip.abandoned:
            raise TooSlow from error
        raise
    finally:
        timer.cancel()
    if trip.abandoned:
        raise TooSlow
    return outcome


def without_loop(work: Coroutine[None, None, _T]) -> _T:
    """The outcome of what never waits for a loop. RuntimeError when it does."""
    try:
        work.send(None)
    except StopIteration as ended:
        outcome: _T = ended.value
        return outcome
    work.close()
    raise RuntimeError("it waits for an event loop, and there is none")
