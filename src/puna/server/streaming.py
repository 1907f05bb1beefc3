"""Streams: frames out as they come, silence filled with comments that tell how the request stands, work stopped when
the client goes away.

The status line waits for the first frame, so that a fault before it is a real 4xx or 5xx; but not for ever: after
`GRACE` seconds the stream begins with a comment, since clients and proxies give up on a connection that says nothing.
From then on a fault is an error frame and a clean end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from starlette.types import Receive, Scope, Send

from puna.errors import Cancelled, PunaError
from puna.server.body import dump_line, one_line
from puna.server.errors import internal_error, ollama_error, openai_error

GRACE = 5.0
"""Seconds that a stream waits for its first frame before it begins anyway."""

SILENCE = 10.0
"""Seconds without a frame after which a comment is sent."""

Result = TypeVar("Result")

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Framing:
    """How values become bytes on a stream. `comment`: a text that clients skip; None if the framing has none."""

    media_type: str
    comment: Callable[[str], bytes] | None
    error: Callable[[PunaError], bytes]


def sse_data(text: str) -> bytes:
    """One server-sent event. `text` holds no line break, as JSON text does not."""
    return f"data: {one_line(text)}\n\n".encode("utf-8", "replace")


SSE = Framing(
    media_type="text/event-stream; charset=utf-8",
    comment=lambda text: f": {text}\n\n".encode("utf-8", "replace"),
    error=lambda error: b"data: " + dump_line(openai_error(error)) + b"\n",
)
NDJSON = Framing(
    media_type="application/x-ndjson",
    comment=None,
    error=lambda error: dump_line(ollama_error(error)),
)


async def gone(receive: Receive) -> None:
    """Returns when the client has closed its connection. For use after the body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client goes away (Cancelled)."""
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Cancelled("The client closed the connection.")
        return task.result()
    finally:
        await _end(task, watch)
        # An error holds this frame, which holds the task, which holds the error: all that the request had would stay
        # until a full garbage collection.
        del task


class EventStream:
    """An ASGI response that sends `frames` as they come and closes them in any case.

    What else its headers say, the request's Report writes (`puna.server.contract.report`).
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        framing: Framing,
        *,
        grace: float = GRACE,
        silence: float = SILENCE,
    ) -> None:
        self._frames = frames
        self._framing = framing
        self._grace = grace
        self._silence = silence
        self._started = False
        self._over = False
        """No frame comes any more: what is left to tell is the end, or a fault, which may be a real 4xx or 5xx."""
        self._last = 0.0
        self._state: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = self._state = scope.get("state", {})
        request_id: str = state.get("request_id", "unknown")
        send_body: Send = state.get("send_body", send)
        pump = asyncio.ensure_future(self._pump(send, send_body, request_id))
        watch = asyncio.ensure_future(gone(receive))
        comments = asyncio.ensure_future(self._fill_silence(send))
        try:
            await asyncio.wait({pump, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not pump.done():
                raise Cancelled("The client closed the connection.")
            pump.result()
        except asyncio.CancelledError:
            error: PunaError | None = state.get("interrupted")
            if error is None:
                raise
            await _end(comments, pump, watch)
            await self._break_off(send, error)
        finally:
            await _end(comments, pump, watch)
            del pump  # as in `unless_gone`

    async def _break_off(self, send: Send, error: PunaError) -> None:
        """End with an error: as the answer itself where nothing was sent yet."""
        if not self._started:
            raise error
        await self._send_error(send, error)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, send: Send, send_body: Send, request_id: str) -> None:
        now = asyncio.get_running_loop().time
        try:
            async for frame in self._frames:
                if not self._started:
                    await self._start(send)
                await send_body({"type": "http.response.body", "body": frame, "more_body": True})
                self._last = now()
        except PunaError as error:
            self._over = True  # before the first await: what was refused must not begin with a comment meanwhile
            if not self._started:
                raise
            _log.warning("stream failed", error=str(error), code=error.code)
            await self._send_error(send, error)
        except Exception as error:
            self._over = True
            if not self._started:
                raise
            _log.exception("stream failed")
            await self._send_error(send, internal_error(request_id, error))
        finally:
            self._over = True
            await self._frames.aclose()
        if not self._started:
            await self._start(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send) -> None:
        # Set before the first await: the pump and the comments must not both begin the response.
        self._started = True
        headers = {
            "content-type": self._framing.media_type,
            "cache-control": "no-cache",
            "x-accel-buffering": "no",  # nginx would otherwise hold the stream back
        }
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _send_error(self, send: Send, error: PunaError) -> None:
        self._state["failed"] = error.code or error.type
        await send({"type": "http.response.body", "body": self._framing.error(error), "more_body": True})

    async def _fill_silence(self, send: Send) -> None:
        comment = self._framing.comment
        if comment is None:
            return
        now = asyncio.get_running_loop().time
        standing: Callable[[], str] = self._state.get("standing", lambda: "still working")
        await asyncio.sleep(self._grace)
        if not self._started and not self._over:
            await self._start(send)
            self._last = now() - self._silence
        while not self._over:
            idle = now() - self._last
            if idle >= self._silence:
                await send({"type": "http.response.body", "body": comment(standing()), "more_body": True})
                self._last, idle = now(), 0.0
            await asyncio.sleep(self._silence - idle)


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs and wait until it has cleaned up."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
