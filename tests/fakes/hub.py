"""A stand-in hub: the API, the files and the store behind them, as Hugging Face's documentation has them.

The hub answers for lists and small files itself and sends clients elsewhere for large ones: here to a second server on
another port, which must never see a token.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from aiohttp import web

REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".gguf", ".safetensors")


@dataclass
class StandInRepository:
    """`files`: by path. `token`: what it takes to see it. `gated`: anybody sees the list, and only that."""

    files: dict[str, bytes]
    token: str = ""
    gated: bool = False
    license: str = "apache-2.0"
    revision: str = REVISION


@dataclass
class StandInHub:
    """`asked`: method, path and Range of each request to the hub and the store. `tokens`: what came to each server.

    `per_second`: bytes that the store sends in a second, 0: all at once. `lies`: paths whose bytes are others.
    """

    repositories: Mapping[str, StandInRepository]
    per_second: int = 0
    lies: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    tokens: dict[str, set[str]] = field(default_factory=lambda: {"hub": set(), "store": set()})
    sent: int = 0
    url: str = ""
    _store: str = ""
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def downloads(self) -> list[str]:
        """Paths that the store was asked for."""
        return [path for _, path, _ in self.asked if path.startswith("/store/")]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[StandInHub]:
        hub, store = web.Application(), web.Application()
        hub.router.add_get("/api/models", self._search)
        hub.router.add_get("/api/models/{org}/{repo}/revision/{revision}", self._listing)
        hub.router.add_get("/{org}/{repo}/resolve/{revision}/{path:.+}", self._resolve)
        store.router.add_get("/store/{org}/{repo}/{path:.+}", self._give)
        runners = [web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1) for app in (hub, store)]
        urls = []
        for runner in runners:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            urls.append(f"http://{host}:{port}")
        self.url, self._store = urls
        try:
            yield self
        finally:
            self._ended.set()
            for runner in runners:
                await runner.cleanup()

    def _note(self, request: web.Request, server: str) -> str:
        self.asked.append((request.method, request.path, request.headers.get("Range", "")))
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.tokens[server].add(token)
        return token

    def _repository(self, request: web.Request) -> tuple[str, StandInRepository]:
        token = self._note(request, "hub")
        wanted = f"{request.match_info['org']}/{request.match_info['repo']}"
        for name, repository in self.repositories.items():
            visible = repository.gated or not repository.token or token == repository.token
            if name.lower() == wanted.lower() and visible:
                return name, repository
        # Who sends no token learns no more of a private repository than of none.
        headers = {"X-Error-Code": "RepoNotFound"}
        raise web.HTTPNotFound(headers=headers) if token else web.HTTPUnauthorized(headers=headers)

    async def _listing(self, request: web.Request) -> web.Response:
        name, repository = self._repository(request)
        blobs = request.query.get("blobs") == "true"
        siblings = [
            self._sibling(path, data) if blobs else {"rfilename": path} for path, data in repository.files.items()
        ]
        return web.json_response(
            {
                "id": name,
                "sha": repository.revision,
                "gated": "auto" if repository.gated else False,
                "private": bool(repository.token) and not repository.gated,
                "tags": ["gguf", f"license:{repository.license}"],
                "siblings": siblings,
            }
        )

    @staticmethod
    def _sibling(path: str, data: bytes) -> dict[str, object]:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        told: dict[str, object] = {"rfilename": path, "size": len(data), "blobId": blob}
        if path.endswith(LARGE):
            told["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return told

    async def _resolve(self, request: web.Request) -> web.Response:
        name, repository = self._repository(request)
        path = request.match_info["path"]
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository.gated and token != repository.token:
            raise web.HTTPForbidden(headers={"X-Error-Code": "GatedRepo"})
        if path not in repository.files or request.match_info["revision"] != repository.revision:
            raise web.HTTPNotFound(headers={"X-Error-Code": "EntryNotFound"})
        data = repository.files[path]
        if not path.endswith(LARGE):
            return web.Response(body=data, headers={"ETag": hashlib.sha1(data).hexdigest()})
        headers = {
            "X-Repo-Commit": repository.revision,
            "X-Linked-Size": str(len(data)),
            "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
            "Location": f"{self._store}/store/{name}/{path}?Signature=for-a-while",
        }
        return web.Response(status=302, headers=headers)

    async def _give(self, request: web.Request) -> web.StreamResponse:
        self._note(request, "store")
        name = f"{request.match_info['org']}/{request.match_info['repo']}"
        path = request.match_info["path"]
        data = self.repositories[name].files[path]
        if path in self.lies:
            data = bytes(byte ^ 1 for byte in data)
        asked = request.http_range
        start, end = asked.start or 0, len(data) if asked.stop is None else asked.stop
        response = web.StreamResponse(status=206 if "Range" in request.headers else 200)
        if response.status == 206:
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        response.content_length = end - start
        await response.prepare(request)
        step = max(self.per_second // 50, 1) if self.per_second else end - start
        for at in range(start, end, max(step, 1)):
            piece = data[at : min(at + step, end)]
            await response.write(piece)
            self.sent += len(piece)
            if self.per_second:
                await self._tick()
        await response.write_eof()
        return response

    async def _tick(self) -> None:
        """A moment of a slow link."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._ended.wait(), 0.02)

    async def _search(self, request: web.Request) -> web.Response:
        self._note(request, "hub")
        word = request.query.get("search", "").lower()
        found = [{"id": name, "downloads": 3} for name in self.repositories if word in name.lower()]
        return web.json_response(found)
