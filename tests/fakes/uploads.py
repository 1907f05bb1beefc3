"""Takers of uploads: a registry that keeps what came of a broken request, as the specification has it; and a proxy that
hands on whole requests, as a web server before a registry does.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web


@asynccontextmanager
async def _served(handler: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(handler, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


@dataclass
class Keeper:
    """`breaks`: of each PATCH in turn, after how many bytes its connection is cut. `received`: bytes of all bodies.

    `mute`: the answer to the end of an upload is lost, though it counted. `elsewhere`: uploads go to another host.
    """

    breaks: list[int] = field(default_factory=list)
    mute: bool = False
    elsewhere: str = ""
    received: int = 0
    begun: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    sessions: dict[str, bytearray] = field(default_factory=dict)
    host: str = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Keeper]:
        app = web.Application()
        app.router.add_route("*", "/v2/{rest:.*}", self._answer)
        async with _served(app) as self.host:
            yield self

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        kind, last = request.path.split("/")[-2:]
        match request.method, kind:
            case "HEAD", "blobs":
                return web.Response(status=200 if last in self.blobs else 404)
            case "POST", "uploads":
                self.begun += 1
                session = secrets.token_hex(8)
                self.sessions[session] = bytearray()
                return self._told(202, session)
            case "PUT", "manifests":
                self.manifests[last] = await request.read()
                return web.Response(status=201)
            case _ if last not in self.sessions:
                return web.Response(status=404)
            case "GET", "uploads":
                return self._told(204, last)
            case "PATCH", "uploads":
                return await self._patch(request, last)
            case _:
                return self._put(request, last)

    def _told(self, status: int, session: str) -> web.Response:
        headers = {"Location": f"{self.elsewhere}/v2/x/blobs/uploads/{session}"}
        if have := len(self.sessions[session]):
            headers["Range"] = f"0-{have - 1}"
        return web.Response(status=status, headers=headers)

    async def _patch(self, request: web.Request, session: str) -> web.Response:
        body = self.sessions[session]
        if request.headers["Content-Range"].partition("-")[0] != str(len(body)):
            return web.Response(status=416)
        left = self.breaks.pop(0) if self.breaks else None
        async for data in request.content.iter_any():
            taken = data if left is None else data[:left]
            body += taken
            self.received += len(taken)
            if left is not None:
                left -= len(taken)
                if left == 0:
                    assert request.transport is not None
                    request.transport.abort()
                    return web.Response()
        return self._told(202, session)

    def _put(self, request: web.Request, session: str) -> web.Response:
        body = bytes(self.sessions.pop(session))
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if request.query["digest"] != digest:
            return web.Response(status=400, text="digest invalid")
        self.blobs[digest] = body
        if self.mute:
            self.mute = False
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=201)


@dataclass
class Buffering:
    """Before the registry at `behind`. `asked`: method and path of each request that was handed on.

    After `passes` of PATCH the next one is held, body and all, until `going_on` is set: `held` says that it came.
    """

    behind: str
    passes: int | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    going_on: asyncio.Event = field(default_factory=asyncio.Event)
    host: str = ""

    def count(self, method: str) -> int:
        return sum(one == method for one, _ in self.asked)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Buffering]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{rest:.*}", self._answer)
        async with aiohttp.ClientSession(auto_decompress=False) as self._session, _served(app) as self.host:
            yield self

    async def _answer(self, request: web.Request) -> web.Response:
        if request.method == "PATCH" and self.passes is not None:
            if self.passes == 0:
                self.held.set()
                await self.going_on.wait()
            self.passes = max(0, self.passes - 1)
        data = await request.read()
        self.asked.append((request.method, request.path))
        kept = {k: v for k, v in request.headers.items() if k.lower() not in {"transfer-encoding", "content-length"}}
        url = f"http://{self.behind}{request.raw_path}"
        async with self._session.request(request.method, url, data=data, headers=kept) as answer:
            body = await answer.read()
            drop = {"content-length", "transfer-encoding", "date", "connection"}
            headers = {k: v for k, v in answer.headers.items() if k.lower() not in drop}
            if request.method == "HEAD":
                headers["Content-Length"] = answer.headers.get("Content-Length", "0")
            return web.Response(status=answer.status, body=None if request.method == "HEAD" else body, headers=headers)
