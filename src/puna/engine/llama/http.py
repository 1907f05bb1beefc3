"""HTTP/1.1 to an engine on a Unix socket: JSON out, a body in as it comes. One request a connection.

Why not the HTTP client that the rest of Puna uses: see docs/decisions/engine-http.md. Whatever is wrong with a
connection or with what comes over it is an OSError.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, cast

import httptools
from pydantic_core import from_json, to_json

from puna.engine.llama.arrival import Arrival

Method = Literal["GET", "POST"]

READ_LIMIT = 2**20
"""Bytes of an answer that wait to be read before the engine has to wait, too."""

_END = b"Connection: close\r\n\r\n"


class Exchange(asyncio.Protocol):
    """One request's answer. `status` is known once `begun` has returned."""

    def __init__(self) -> None:
        self.status = 0
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._paused = self._over = False
        self._error: Exception | None = None
        self._arrival = Arrival()

    async def begun(self) -> None:
        """Wait for the status line and the headers."""
        while not self.status:
            await self._more()

    async def read(self) -> bytes:
        """What has come of the body, at least a byte; nothing at its end."""
        pieces = self._pieces
        while not pieces:
            if self._over:
                return b""
            await self._more()
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._waiting = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def json(self) -> Any:
        """The whole body."""
        parts = []
        while data := await self.read():
            parts.append(data)
        return from_json(b"".join(parts))

    def _more(self) -> Arrival:
        """To be awaited: something comes. Raises what ended the connection, if nothing will."""
        if self._error is not None:
            raise self._error
        return self._arrival

    # ----------------------------------------------------------------------------------------- the event loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have all of asyncio's methods, but not its classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"the engine's answer is no HTTP: {error}"))
        if self._waiting > READ_LIMIT and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._arrival.come()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._over:
            self._fail(error or ConnectionResetError("the engine closed the connection"))

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._arrival.come()

    # --------------------------------------------------------------------------------------------- the parser's side

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)
        self._waiting += len(data)

    def on_message_complete(self) -> None:
        self._over = True


SPARE_SECONDS = 2.0
"""How long a connection that was opened ahead is kept. Not longer: an idle one wakes the engine ninety times a second,
and after five seconds the engine closes it."""

_Connection = tuple[asyncio.Transport, Exchange]


class EngineSocket:
    """Where an engine listens."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self._spare: asyncio.Task[_Connection] | None = None
        self._closed = False

    @asynccontextmanager
    async def open(
        self, method: Method, path: str, body: Mapping[str, Any] | None = None, *, more: bool = False
    ) -> AsyncGenerator[Exchange]:
        """Ask, and wait for the status. Leaving closes the connection, which ends the engine's work.

        `more`: another request follows soon, and its connection is opened while this one is answered.
        """
        transport, exchange = await self._next()
        try:
            transport.write(_request(method, path, body))
            if more:
                self.open_ahead()
            await exchange.begun()
            yield exchange
        finally:
            transport.abort()

    async def ask(self, method: Method, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Status and value of an answer."""
        async with self.open(method, path, body) as exchange:
            return exchange.status, await exchange.json()

    def close(self) -> None:
        """Drop what was opened ahead, and open nothing ahead from now on."""
        self._closed = True
        if self._spare is not None:
            self._drop(self._spare)

    def open_ahead(self) -> None:
        """Open a connection for the next request, should it come within SPARE_SECONDS."""
        if self._spare is None and not self._closed:
            spare = self._spare = asyncio.ensure_future(self._connect())
            spare.add_done_callback(_failed)  # looked at, lest asyncio complain of an error that nobody wants
            asyncio.get_running_loop().call_later(SPARE_SECONDS, self._drop, spare)

    async def _connect(self) -> _Connection:
        return await asyncio.get_running_loop().create_unix_connection(Exchange, self._socket)

    async def _next(self) -> _Connection:
        """The connection that was opened ahead, if there is one and it is still good."""
        spare, self._spare = self._spare, None
        if spare is not None:
            with contextlib.suppress(OSError):
                transport, exchange = await spare
                if not transport.is_closing():
                    return transport, exchange
        return await self._connect()

    def _drop(self, spare: asyncio.Task[_Connection]) -> None:
        """Unless somebody has taken it."""
        if self._spare is spare:
            self._spare = None
            spare.add_done_callback(_abort)


def _failed(connected: asyncio.Task[_Connection]) -> bool:
    return connected.cancelled() or connected.exception() is not None


def _abort(connected: asyncio.Task[_Connection]) -> None:
    if not _failed(connected):
        connected.result()[0].abort()


def _request(method: Method, path: str, body: Mapping[str, Any] | None) -> bytes:
    data = b"" if body is None else to_json(body)
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: runner\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    )
    return head.encode() + _END + data
