"""A server of one blob, honest until a test has it misbehave."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from yarl import URL

from puna.addresses import Reach
from puna.model.digest import Digest
from puna.sources.net import Net


@dataclass
class BlobServer:
    """`faults`: what goes wrong with the next requests, one each; `always`: with all others. `asked`: the ranges
    [start, end) of the requests, None: of everything. `sent`: bytes of bodies that were given to the system.

    Faults: drop (half of it, then no connection), stall (half, then silence), trickle (a byte now and then), wrong
    (flipped bytes), some (20,000 bytes at most of a range, and says so), few (ten bytes), total (another size in
    Content-Range), shifted (another range), whole (200 with everything), more (200 that never ends), early (chunked,
    and ends early), missing (404), or a status.
    """

    data: bytes
    faults: deque[str] = field(default_factory=deque)
    always: str = ""
    per_second: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[int, int] | None] = field(default_factory=list)
    heads: list[Mapping[str, str]] = field(default_factory=list)
    sent: int = 0
    url: URL = field(default_factory=URL)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def digest(self) -> Digest:
        return Digest(hashlib.sha256(self.data).hexdigest())

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[BlobServer]:
        app = web.Application()
        app.router.add_get("/blob", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = URL(f"http://{host}:{port}/blob")
        try:
            yield self
        finally:
            self._ended.set()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        fault = self.faults.popleft() if self.faults else self.always
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        start, end = (int(found[1]), int(found[2]) + 1) if found else (0, len(self.data))
        self.asked.append((start, end) if found else None)
        self.heads.append(request.headers)
        if fault.isdigit():
            return web.Response(status=int(fault), text="not now", headers=self.headers)
        if fault == "missing":
            return web.Response(status=404)
        if fault in {"whole", "more"} or not found:
            start, end = 0, len(self.data)
        return await self._send(request, fault, start, end, ranged=bool(found) and fault not in {"whole", "more"})

    async def _send(
        self, request: web.Request, fault: str, start: int, end: int, *, ranged: bool
    ) -> web.StreamResponse:
        if fault in {"some", "few"}:
            end = min(end, start + (10 if fault == "few" else 20_000))
        body, rest = self.data[start:end], self.data[end:end]
        response = web.StreamResponse(status=206 if ranged else 200)
        if ranged:
            total = len(self.data) + (1 if fault == "total" else 0)
            shift = 1 if fault == "shifted" else 0
            response.headers["Content-Range"] = f"bytes {start + shift}-{end - 1}/{total}"
        if fault in {"early", "more"}:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(body)
        await response.prepare(request)
        if fault == "wrong":
            body = bytes(len(body))
        if fault in {"drop", "stall", "early", "trickle"}:
            body, rest = body[: len(body) // 2], body[len(body) // 2 :]
        with suppress(ConnectionError):
            await self._write(response, body)
            await self._after(request, response, fault, rest)
        return response

    async def _write(self, response: web.StreamResponse, body: bytes) -> None:
        step = self.per_second // 50 or len(body) or 1
        for at in range(0, len(body), step):
            await response.write(body[at : at + step])
            self.sent += len(body[at : at + step])
            if self.per_second:
                await self._tick()

    async def _tick(self) -> None:
        """A moment of a slow link."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._ended.wait(), 0.02)

    async def _after(self, request: web.Request, response: web.StreamResponse, fault: str, rest: bytes) -> None:
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
        elif fault == "stall":
            await self._ended.wait()
        elif fault == "trickle":
            for at in range(len(rest)):
                await response.write(rest[at : at + 1])
                await self._tick()
        elif fault == "more":
            while not self._ended.is_set():
                await response.write(bytes(65536))


@dataclass
class BlobOrigin:
    """The Origin of a BlobServer."""

    net: Net
    url: URL
    renewed: int = 0
    host: str = "the test's server"

    @asynccontextmanager
    async def open(self, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self.net.open("GET", self.url, reach=Reach.LOOPBACK, headers=headers) as response:
            yield response

    def renew(self) -> None:
        self.renewed += 1
