"""Pull from a registry: the manifest's own bytes, and those of its blobs that are not here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp
import structlog

from puna.errors import (
    DigestMismatch,
    ModelFileError,
    SourceAnswer,
    SourceNotFound,
    SourceUnreachable,
)
from puna.model.digest import Digest
from puna.model.manifest import MAX_MANIFEST_BYTES, Layer, Manifest, parse_config
from puna.model.name import Name
from puna.sources.download import Parts, download
from puna.sources.partial import remove_leftover
from puna.sources.quota import Quota
from puna.sources.registry.access import Access
from puna.sources.registry.document import ACCEPTED, check_config, is_file, read_document
from puna.sources.worker import Report, Worker
from puna.store.library import Library
from puna.store.reading import part_of
from puna.types import Progress

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest as it came. `access`: of the endpoint that gave it."""

    access: Access
    data: bytes
    manifest: Manifest

    @property
    def digest(self) -> Digest:
        return Digest.of(self.data)


async def ask(name: Name, accesses: Sequence[Access], reference: str | None = None) -> Fetched:
    """The manifest, from the first endpoint that has it: a mirror that has not, or is not there, is passed over.

    `reference`: a tag or a digest; None: the Name's tag. SourceNotFound, AccessDenied, the errors of `read_document`.
    """
    *mirrors, own = accesses
    for mirror in mirrors:
        try:
            return await mirror.net.patiently(partial(_ask, name, mirror, reference or name.tag), reached=False)
        except (SourceNotFound, SourceUnreachable, SourceAnswer) as error:  # noqa: PERF203 - it is a network
            _log.info("mirror passed over", mirror=mirror.endpoint.host, model=name.short, reason=str(error))
    return await own.net.patiently(partial(_ask, name, own, reference or name.tag), reached=False)


async def _ask(name: Name, access: Access, reference: str) -> Fetched:
    headers = {"Accept": ACCEPTED}
    async with access.open("GET", access.endpoint.manifest(reference), headers=headers) as response:
        if response.status != 200:
            raise await access.net.refusal(response, "pull model manifest")
        data = await access.net.read(response, MAX_MANIFEST_BYTES, "the manifest")
        said = response.headers.get("Docker-Content-Digest", "")
        kind = response.headers.get("Content-Type", "")
    found = str(Digest.of(data))
    wanted = {text.lower() for text in (said, reference) if text.startswith("sha256:")}
    if wanted - {found}:
        raise DigestMismatch(f"the manifest of '{name.short}' is not what its digest says: got {found}")
    return Fetched(access, data, read_document(data, kind, name))


async def pull(
    name: Name, given: Fetched, library: Library, parts: Parts, quota: Quota
) -> AsyncGenerator[Progress, None]:
    """Bring what a manifest names, list the model last. What is here and intact is not fetched again.

    Forbidden: more would have to be downloaded than the quota has, by what the manifest says.
    """
    manifest = given.manifest
    quota.check(f"'{name.short}'", await asyncio.to_thread(_missing, manifest, library))
    # What it is comes before what it weighs: a model that cannot run is refused before its weights are fetched.
    async with aclosing(_bring(manifest.config, name, given, library, parts, quota)) as steps:
        async for progress in steps:
            yield progress
    reading = Worker(lambda _: parse_config(library.blobs.read(manifest.config.digest, limit=MAX_MANIFEST_BYTES)))
    async for progress in reading.run():
        yield progress
    check_config(reading.result, manifest, name)
    for layer in manifest.layers:
        async with aclosing(_bring(layer, name, given, library, parts, quota)) as steps:
            async for progress in steps:
                yield progress
    yield Progress("verifying sha256 digest")
    checking = Worker(lambda _: _check_files(name, manifest, library))
    async for progress in checking.run():
        yield progress
    yield Progress("writing manifest")
    listing = Worker(lambda _: library.write_manifest(name, given.data))
    async for progress in listing.run():
        yield progress
    if listing.result:
        yield Progress("removing unused layers")


async def _bring(
    layer: Layer, name: Name, given: Fetched, library: Library, parts: Parts, quota: Quota
) -> AsyncGenerator[Progress, None]:
    looking = Worker(lambda report: _have(layer, library, report))
    async for progress in looking.run():
        yield progress
    if looking.result:
        yield Progress(f"pulling {layer.digest.short}", str(layer.digest), layer.size, layer.size)
        return
    quota.take(f"'{name.short}'", layer.size)
    origin = BlobOrigin(given.access, layer.digest)
    async with aclosing(download(given.access.net, origin, layer.digest, layer.size, library, parts=parts)) as steps:
        async for progress in steps:
            yield progress


def _missing(manifest: Manifest, library: Library) -> int:
    """Bytes of blobs that are not here, by a look at their sizes."""
    sizes = {layer.digest: layer.size for layer in manifest.blobs}
    return sum(size for digest, size in sizes.items() if not library.blobs.looks_whole(digest, size))


def _have(layer: Layer, library: Library, report: Report) -> bool:
    """Whether the blob is here and its digest was seen on this disk. It stays for a while, then."""

    def on_bytes(done: int) -> None:
        report(Progress("verifying sha256 digest", str(layer.digest), layer.size, done))

    library.blobs.claim(layer.digest)
    whole = library.blobs.intact(layer.digest, layer.size, on_bytes)
    if whole:
        remove_leftover(library.partials, layer.digest)
    return whole


def _check_files(name: Name, manifest: Manifest, library: Library) -> None:
    """That every file of the model can be read as what it is. ModelFileError names it."""
    for layer in manifest.layers:
        path = library.blobs.find(layer.digest)
        if is_file(layer.media_type) and path is not None:
            try:
                library.header(path, part_of(layer, name))
            except ModelFileError as error:
                raise ModelFileError(f"'{name.short}' is not listed: {error}") from error


class BlobOrigin:
    """A blob of a registry, for `download`. Remembers nothing: each part is asked for where the registry says then."""

    def __init__(self, access: Access, digest: Digest) -> None:
        self._access = access
        self._url = access.endpoint.blob(digest)

    @property
    def host(self) -> str:
        return self._access.endpoint.host

    @asynccontextmanager
    async def open(self, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._access.open("GET", self._url, headers=headers) as response:
            yield response

    def renew(self) -> None:
        """Nothing is kept that could be stale."""
