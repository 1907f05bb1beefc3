"""Push to a registry: blobs that it has not, then the manifest's own bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from functools import partial

import aiohttp
from yarl import URL

from puna.errors import (
    AccessDenied,
    InvalidName,
    ModelDamaged,
    PunaError,
    SourceAnswer,
    SourceError,
    SourceNotFound,
    SourceUnreachable,
)
from puna.lane import in_uploads
from puna.model.digest import Digest
from puna.model.manifest import Layer, Manifest
from puna.model.name import Name
from puna.sources.registry.access import Access
from puna.sources.registry.endpoint import repository
from puna.sources.registry.session import UploadSession
from puna.sources.worker import Report, Worker
from puna.store.library import Library
from puna.store.transfers import Mailbox, following
from puna.types import Progress

CHUNK = 64 * 1024 * 1024
"""Bytes of one request; what an interruption costs at most."""
_BLOCK = 1024 * 1024
_RANGE = re.compile(r"(?:bytes[ =])?0-([0-9]{1,19})")
_EVERY_SECONDS = 0.06

_OnBytes = Callable[[int], None]


async def push(
    name: Name, data: bytes, manifest: Manifest, library: Library, access: Access
) -> AsyncGenerator[Progress, None]:
    """Send what the registry has not, the manifest last. ModelDamaged before anything that is not intact is sent."""
    sent: set[Digest] = set()
    for layer in manifest.blobs:
        if layer.digest in sent:
            continue
        sent.add(layer.digest)
        looking = Worker(lambda report, layer=layer: _intact(layer, name, library, report))  # type: ignore[misc]
        async for progress in looking.run():
            yield progress
        uploading = _Upload(access, layer, library, name)
        async for progress in uploading.run():
            yield progress
    yield Progress("pushing manifest")
    await access.net.patiently(lambda: _put_manifest(name, data, manifest, access))


def _intact(layer: Layer, name: Name, library: Library, report: Report) -> None:
    def on_bytes(done: int) -> None:
        report(Progress("verifying sha256 digest", str(layer.digest), layer.size, done))

    if not library.blobs.intact(layer.digest, layer.size, on_bytes):
        raise ModelDamaged(f"'{name.short}' is not pushed: its blob {layer.digest} is missing or damaged")


def _mount(layer: Layer, name: Name, library: Library) -> str | None:
    """A repository on the same host that may have the blob: where the manifest says that it came from, else that of a
    model here which has it too, one that was pulled before others. Blocking.
    """

    def elsewhere(other: Name) -> bool:
        return other.host.lower() == name.host.lower() and repository(other) != repository(name)

    if layer.from_:
        with suppress(InvalidName):
            origin = Name.parse(layer.from_)
            if elsewhere(origin):
                return repository(origin)
    sharing = [other for other in library.names() if elsewhere(other) and layer.digest in library.digests(other)]
    found = min(sharing, key=lambda other: library.pulls.of(other) is None, default=None)
    return None if found is None else repository(found)


async def _put_manifest(name: Name, data: bytes, manifest: Manifest, access: Access) -> None:
    url = access.endpoint.manifest(name.tag)
    headers = {"Content-Type": manifest.media_type}
    async with access.open("PUT", url, headers=headers, data=lambda: data) as response:
        if response.status >= 300:
            raise await access.net.refusal(response, "push model manifest")
        said = response.headers.get("Docker-Content-Digest", "")
    if said.startswith("sha256:") and said != str(Digest.of(data)):
        raise SourceError(f"{access.endpoint.host} stored another manifest than it was sent: {said}")


class _Upload:
    """One blob. Progress is `pushing <first 12 hex>`."""

    def __init__(self, access: Access, layer: Layer, library: Library, name: Name) -> None:
        self._access = access
        self._layer = layer
        self._path = library.blobs.path(layer.digest)
        self._mount = partial(_mount, layer, name, library)
        self._session = UploadSession(library.uploads, access.endpoint, layer.digest)
        self._mailbox = Mailbox()
        self._told = 0.0

    def run(self) -> AsyncGenerator[Progress, None]:
        return following(self._send, self._mailbox)

    async def _send(self) -> None:
        self._tell(0)
        if not await self._access.net.patiently(self._there, reached=False):
            with self._session:
                await self._upload()
        self._tell(self._layer.size)

    async def _upload(self) -> None:
        """With the session that a push before this one began, where the registry still has it; else a new one."""
        noted, found = self._session.location, None
        if noted is not None:
            with suppress(PunaError):  # whatever became of it, a new one can be begun
                found = await self._access.net.patiently(lambda: self._resumed(noted), reached=False)
        if found is None:
            found = await self._begun(await asyncio.to_thread(self._mount))
        if found is not None:
            await self._fill(*found)
        self._session.forget()

    async def _begun(self, mount: str | None = None) -> tuple[URL, int] | None:
        """A new session; None when the registry has the blob by now."""
        try:
            location = await self._access.net.patiently(lambda: self._begin(mount))
        except (AccessDenied, SourceNotFound):
            if mount is None:
                raise
            return await self._begun()  # who may not read there may still send it here
        return None if location is None else (location, 0)

    async def _there(self) -> bool:
        async with self._access.open("HEAD", self._access.endpoint.blob(self._layer.digest)) as response:
            if response.status == 200:
                return True
            if response.status != 404:
                raise await self._refusal(response)
            return False

    async def _begin(self, mount: str | None) -> URL | None:
        """Where to send it; None when the registry had it in another repository, and has it here now."""
        url = self._access.endpoint.uploads(self._layer.digest if mount else None, mount)
        async with self._access.open("POST", url, headers={"Content-Length": "0"}) as response:
            if response.status == 201:
                return None
            if response.status != 202:
                raise await self._refusal(response)
            return self._location(response)

    async def _fill(self, location: URL, at: int) -> None:
        """In chunks, from where the registry says it is after one that failed; all anew where it does not say."""
        patience, most, failures = self._access.net.patience, at, 0
        while True:
            try:
                while at < self._layer.size:
                    await asyncio.to_thread(self._session.note, location)
                    location, at = await self._patch(location, at)
                await asyncio.to_thread(self._session.note, location)
                await self._finish(location)
                return
            except (SourceUnreachable, SourceAnswer) as error:  # noqa: PERF203 - it is a network
                # Failures in a row: what came further than ever before is none.
                failures = 1 if at > most else failures + 1
                most = max(most, at)
                await asyncio.sleep(patience.pause(failures, error))
                found = await self._where(location)
                if found is None:
                    return
                location, at = found

    async def _patch(self, location: URL, at: int) -> tuple[URL, int]:
        end = min(at + CHUNK, self._layer.size)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - at),
            "Content-Range": f"{at}-{end - 1}",
        }
        async with self._access.open(
            "PATCH", location, headers=headers, data=lambda: self._bytes(at, end), follow=False
        ) as response:
            if response.status not in {202, 204}:
                raise await self._refused(response)
            return self._location(response), end

    async def _finish(self, location: URL) -> None:
        url = location.update_query({"digest": str(self._layer.digest)})
        async with self._access.open("PUT", url, headers={"Content-Length": "0"}, follow=False) as response:
            if response.status not in {201, 204}:
                raise await self._refused(response)

    async def _where(self, location: URL) -> tuple[URL, int] | None:
        """How far an upload has come, or a new one; None: the registry has the blob, its answer was lost."""
        with suppress(SourceUnreachable):
            found = await self._resumed(location)
            if found is not None:
                return found
        if await self._access.net.patiently(self._there):
            return None
        return await self._begun()

    async def _resumed(self, location: URL) -> tuple[URL, int] | None:
        """Where to send the rest, and how much the registry has; None where it has nothing, or does not say."""
        async with self._access.open("GET", location, follow=False) as response:
            found = _RANGE.fullmatch(response.headers.get("Range", ""))
            if response.status != 204 or found is None:
                return None
            # A registry that has nothing yet says '0-0', as one with a byte does.
            have = int(found[1]) + 1
            return (self._location(response, location), have) if 1 < have <= self._layer.size else None

    def _location(self, response: aiohttp.ClientResponse, fallback: URL | None = None) -> URL:
        text = response.headers.get("Docker-Upload-Location") or response.headers.get("Location") or ""
        if not text and fallback is not None:
            return fallback
        try:
            url = response.url.join(URL(text, encoded=True))
        except ValueError:
            url = URL()
        if not text or url.scheme not in {"http", "https"}:
            raise SourceError(f"{self._access.endpoint.host} does not say where to send a blob")
        if response.url.scheme == "https" and url.scheme == "http":
            # Behind a proxy that ends TLS, some registries name themselves by http.
            url = url.with_scheme("https") if url.host == response.url.host else url
        if response.url.scheme == "https" and url.scheme != "https":
            raise SourceError(f"{self._access.endpoint.host} wants a blob sent without TLS, which is refused")
        return url

    async def _refused(self, response: aiohttp.ClientResponse) -> SourceError:
        if response.status in {404, 416}:  # it has lost the upload, or has another part of it than it said
            return SourceUnreachable(f"{self._access.endpoint.host} has lost an upload")
        return await self._refusal(response)

    async def _refusal(self, response: aiohttp.ClientResponse) -> SourceError:
        what = f"sending {self._layer.digest.short} to {self._access.endpoint.host}"
        return await self._access.net.refusal(response, what)

    async def _bytes(self, at: int, end: int) -> AsyncIterator[bytes]:
        with self._path.open("rb") as file:
            await in_uploads(partial(file.seek, at))
            while at < end:
                block = await in_uploads(partial(file.read, min(_BLOCK, end - at)))
                if not block:
                    raise ModelDamaged(f"the blob {self._layer.digest} became shorter while it was sent")
                at += len(block)
                yield block
                self._tell(at)

    def _tell(self, done: int) -> None:
        now = asyncio.get_running_loop().time()
        if done in {0, self._layer.size} or now - self._told >= _EVERY_SECONDS:
            self._told = now
            status = f"pushing {self._layer.digest.short}"
            self._mailbox.put(Progress(status, str(self._layer.digest), self._layer.size, done))
