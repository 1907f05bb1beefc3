"""A hub over HTTP: what it lists of a repository, its small files, and where its large ones come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from puna.addresses import Reach
from puna.errors import AccessDenied, DigestMismatch, SourceError, SourceNotFound
from puna.sources.hub.access import HubAccess
from puna.sources.hub.repository import RepoFile, Repository, parse_repository
from puna.sources.net import Net
from puna.types import JsonValue

MAX_LISTING_BYTES = 32 * 1024 * 1024
MAX_TEXT_BYTES = 1024 * 1024
"""Of a file that is read whole: a template, parameters, a licence."""
_FOUND = 20


@dataclass(frozen=True, slots=True)
class HubApi:
    """Of one operation. `title`: the hub as the caller names it, 'hf.co'."""

    net: Net
    access: HubAccess
    reach: Reach
    title: str

    async def repository(self, id_: str, revision: str = "main") -> Repository:
        """AccessDenied: private or gated, SourceNotFound: there is none; both say whose token was sent."""
        url = self._url(f"/api/models/{quote(id_)}/revision/{quote(revision, safe='')}?blobs=true")
        async with self._open("GET", url) as response:
            if response.status != 200:
                raise await self._refused(response, id_)
            data = await self.net.read(response, MAX_LISTING_BYTES, "the list of files")
        return parse_repository(_json(data, id_), id_)

    async def small(self, repository: Repository, file: RepoFile) -> bytes:
        """All of a small file, checked against the id that the hub lists. DigestMismatch when it is another."""
        async with self._open("GET", self._file(repository, file)) as response:
            if response.status != 200:
                raise await self._refused(response, repository.id)
            data = await self.net.read(response, min(file.size, MAX_TEXT_BYTES), file.path)
        if file.digest is not None:
            right = hashlib.sha256(data).hexdigest() == file.digest.hex
        else:
            # Git's id of a blob: its length is a part of what is hashed.
            named = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
            right = file.blob_id is None or named == file.blob_id
        if not right or len(data) != file.size:
            raise DigestMismatch(f"{self.title}/{repository.id}: {file.path} is not the file that the hub lists")
        return data

    async def check(self, repository: Repository, file: RepoFile) -> None:
        """Whether the file would be given, before much is done: who may see a list may not get what is in it."""
        async with self._open("HEAD", self._file(repository, file), follow=False) as response:
            if response.status >= 400:
                raise await self._refused(response, repository.id)
            linked = response.headers.get("X-Linked-Etag", "").strip('"').removeprefix("sha256:")
            if file.digest is not None and len(linked) == 64 and linked != file.digest.hex:
                raise SourceError(f"{self.title}/{repository.id}: {file.path} is another than the hub lists")

    async def search(self, word: str) -> list[tuple[str, str]]:
        """Repositories with GGUF files, most downloaded first: 'ORG/REPO', and what is said of each."""
        query = urlencode({"search": word, "filter": "gguf", "sort": "downloads", "direction": -1, "limit": _FOUND})
        async with self._open("GET", self._url(f"/api/models?{query}")) as response:
            if response.status != 200:
                raise await self.net.refusal(response, f"searching {self.title}")
            found = _json(await self.net.read(response, MAX_LISTING_BYTES, "the list of models"), "the search")
        return [
            (name, _downloads(item))
            for item in (found if isinstance(found, list) else [])
            if isinstance(item, dict) and isinstance(name := item.get("id"), str) and name.count("/") == 1
        ]

    def origin(self, repository: Repository, file: RepoFile) -> HubOrigin:
        return HubOrigin(self, self._file(repository, file))

    def open_file(self, url: URL, headers: Mapping[str, str]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._open("GET", url, headers=headers)

    @asynccontextmanager
    async def _open(
        self, method: str, url: URL, *, headers: Mapping[str, str] | None = None, follow: bool = True
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        token = self.access.token
        async with self.net.open(
            method,
            url,
            reach=self.reach,
            headers=headers,
            authorization=None if token is None else token.header,
            follow=follow,
        ) as response:
            yield response

    def _url(self, rest: str) -> URL:
        return URL(self.access.endpoint + rest, encoded=True)

    def _file(self, repository: Repository, file: RepoFile) -> URL:
        return self._url(f"/{quote(repository.id)}/resolve/{repository.revision}/{quote(file.path)}")

    async def _refused(self, response: aiohttp.ClientResponse, id_: str) -> SourceError:
        """What the hub's code says (`X-Error-Code`); without a token a private repository looks like none."""
        what, whose = f"{self.title}/{id_}", self.access.whose
        code = response.headers.get("X-Error-Code", "")
        if code == "GatedRepo":
            page = f"{self.access.endpoint}/{id_}"
            return AccessDenied(f"{what} is gated: accept its terms at {page} ({whose})", param="model")
        if code == "RepoNotFound" or response.status == 404:
            if code in {"EntryNotFound", "RevisionNotFound"}:
                return SourceNotFound(f"{what} has no such file or revision any more", param="model")
            return SourceNotFound(f"{what}: there is no such repository, or it is private ({whose})", param="model")
        if response.status in {401, 403}:
            return AccessDenied(f"{what}: access denied ({whose})", param="model")
        return await self.net.refusal(response, what)


@dataclass(frozen=True, slots=True)
class HubOrigin:
    """A large file. Each request asks the hub, which says where the bytes are for the moment."""

    api: HubApi
    url: URL

    @property
    def host(self) -> str:
        return self.api.title

    def open(self, headers: Mapping[str, str]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self.api.open_file(self.url, headers)

    def renew(self) -> None:
        """Nothing is remembered of where it was."""


def _json(data: bytes, what: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"the hub's answer about {what} is not JSON") from error
    return value


def _downloads(item: Mapping[str, JsonValue]) -> str:
    count = item.get("downloads")
    return f"{count} downloads" if isinstance(count, int) else ""
