"""Late: a Source that is imported when it is first used, since what it speaks HTTP with takes a while to load."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import cached_property

from puna.model.name import Name
from puna.sources.source import Offer, Searched, Source, Terms
from puna.store.library import Library
from puna.types import Progress


class Late:
    """`takes`: which Names are the source's, without it; `make`: imports and builds it, once."""

    def __init__(self, title: str, takes: Callable[[Name, Terms], bool], make: Callable[[], Source]) -> None:
        self.title = title
        self._takes = takes
        self._make = make

    @cached_property
    def _source(self) -> Source:
        return self._make()

    def takes(self, name: Name, terms: Terms) -> bool:
        return self._takes(name, terms)

    def check(self, name: Name, library: Library, terms: Terms) -> None:
        self._source.check(name, library, terms)

    async def offer(self, name: Name, terms: Terms) -> Offer:
        return await self._source.offer(name, terms)

    async def fetch(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        async with aclosing(self._source.fetch(name, library, terms)) as steps:
            async for progress in steps:
                yield progress

    def push(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        return self._source.push(name, library, terms)

    async def search(self, word: str, terms: Terms) -> Searched:
        return await self._source.search(word, terms)
