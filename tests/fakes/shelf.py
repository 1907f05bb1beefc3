"""A source whose models lie in another store: it brings what is not there and whole, and tells what it brought."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from puna.errors import SourceNotFound, Unsupported
from puna.model.digest import Digest
from puna.model.manifest import parse_manifest
from puna.model.name import Name
from puna.sources.source import Offer, Searched, Terms
from puna.store.library import Library
from puna.types import Progress


class Shelf:
    """`brought`: the blobs that it sent, in order. `tells`: it knows a manifest's digest before it sends it."""

    title = "the shelf"

    def __init__(self, stock: Library, *, tells: bool = True) -> None:
        self.stock = stock
        self.tells = tells
        self.brought: list[Digest] = []

    def takes(self, name: Name, terms: Terms) -> bool:
        return True

    def check(self, name: Name, library: Library, terms: Terms) -> None:
        if not self.stock.has(name):
            raise SourceNotFound(f"the shelf has no {name.short}", param="model")

    async def offer(self, name: Name, terms: Terms) -> Offer:
        digest = Digest.of(self.stock.manifest_bytes(name)) if self.tells else None
        return Offer(source=self.title, manifest=digest)

    async def fetch(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        self.check(name, library, terms)
        data = self.stock.manifest_bytes(name)
        for layer in dict.fromkeys(parse_manifest(data).blobs):
            if library.intact(layer):
                continue
            self.brought.append(layer.digest)
            yield Progress(f"pulling {layer.digest.short}", str(layer.digest), layer.size, layer.size)
            with library.blobs.writer(layer.digest) as writer:
                writer.write(self.stock.blobs.path(layer.digest).read_bytes())
        library.write_manifest(name, data)

    def push(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        raise Unsupported("the shelf takes nothing", param="model")

    async def search(self, word: str, terms: Terms) -> Searched:
        return Searched()
