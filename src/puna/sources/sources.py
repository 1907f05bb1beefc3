"""Sources: a Name finds its source. The one door to pulling and pushing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace

from puna.errors import (
    ModelFileError,
    ModelNotFound,
    PunaError,
    SourceNotFound,
    SourceUnreachable,
    StoreError,
    Unsupported,
)
from puna.lane import in_hashing
from puna.model.digest import Digest
from puna.model.manifest import parse_manifest
from puna.model.name import Name
from puna.model.reference import Reference
from puna.sources.freshness import Freshness, Standing, compare
from puna.sources.source import Offer, Searched, Source, Terms, Unlisted
from puna.store.blobs import stop_when
from puna.store.library import Library
from puna.store.pulls import Pulled
from puna.types import Progress

_USUAL = Terms()
PATIENCE = 20.0
"""Seconds that a source may take to say what it has, when many are asked."""


AT_ONCE = 4
"""Sources that are asked at a time."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that is here: its Name, and the digest of its manifest."""

    name: Name
    manifest: Digest


class Sources:
    """The sources of one library, in order: the first that takes a Name has it."""

    def __init__(self, library: Library, ordered: Sequence[Source]) -> None:
        self._library = library
        self._ordered = tuple(ordered)

    def source(self, name: Name, terms: Terms = _USUAL) -> Source:
        """Whose that Name is. SourceNotFound when nobody's."""
        found = self._find(name, terms)
        if found is None:
            raise SourceNotFound(f"'{name.short}' can be had from no source", param="model")
        return found

    def _find(self, name: Name, terms: Terms) -> Source | None:
        return next((source for source in self._ordered if source.takes(name, terms)), None)

    def check(self, name: Name, terms: Terms = _USUAL) -> None:
        """Refuse a Name that cannot be pulled or pushed, before anything begins. Blocking but short."""
        self.source(name, terms).check(name, self._library, terms)

    async def offer(self, name: Name, terms: Terms = _USUAL) -> Offer:
        """What a pull would bring now. Refused as a pull would be: no host is asked that settings do not allow."""
        source = self.source(name, terms)
        await asyncio.to_thread(source.check, name, self._library, terms)
        return await source.offer(name, terms)

    async def pull(self, name: Name, terms: Terms = _USUAL) -> AsyncGenerator[Progress, None]:
        """Get the model, unless it is there and whole. Ends with Progress('success'), or raises.

        A pull of the same Name on the same terms that is under way is joined. Leaving early stops the work, unless
        another follows it; nothing half-done is ever listed.
        """
        name = await asyncio.to_thread(self._library.spelled, name)
        source = self.source(name, terms)
        yield Progress("pulling manifest")
        if terms.manifest is not None and await in_hashing(lambda left: self._has(name, terms, left)):
            yield Progress("success")
            return
        await asyncio.to_thread(source.check, name, self._library, terms)
        key = f"pull {'/'.join(name.folded)} {terms}"
        work = self._library.transfers.join(key, lambda: source.fetch(name, self._library, terms))
        async with aclosing(work) as steps:
            with _saying(f"cannot pull '{name.short}'"):
                async for progress in steps:
                    yield progress
        await asyncio.to_thread(self._note, name, source, terms)
        yield Progress("success")

    def _has(self, name: Name, terms: Terms, left: Callable[[], bool]) -> bool:
        """Whether the one manifest that is meant is here, and whole: then nobody need be asked for it."""
        try:
            manifest = parse_manifest(self._library.manifest_bytes(Reference(name, terms.manifest)))
        except (ModelNotFound, ModelFileError, StoreError):
            return False
        return all(self._library.intact(layer, stop_when(left)) for layer in manifest.blobs)

    def _note(self, name: Name, source: Source, terms: Terms) -> None:
        """What came, and from where. A source that calls it by a version of its own has noted that."""
        data = self._library.manifest_bytes(Reference(name, terms.manifest))
        digest, noted = Digest.of(data), self._library.pulls.of(name)
        if noted is None or (noted.source, noted.manifest) != (source.title, digest):
            self._library.pulls.note(name, Pulled(source=source.title, manifest=digest))

    async def freshness(self, stored: Sequence[StoredModel], terms: Terms = _USUAL) -> list[Freshness]:
        """Of each, whether its source has another one by now. Some sources are asked at a time.

        `terms`: for all of them; whether a Name writes its host is seen in it.
        """
        bound = asyncio.Semaphore(AT_ONCE)

        async def answer(asked: _Asked) -> Freshness:
            async with bound:
                return await asked.answer()

        # Of thousands most can be told without asking anybody: in one thread, and no task for each.
        looked = await asyncio.to_thread(lambda: [self._look(one, terms) for one in stored])
        answers = iter(await asyncio.gather(*(answer(one) for one in looked if isinstance(one, _Asked))))
        return [next(answers) if isinstance(one, _Asked) else one for one in looked]

    def _look(self, one: StoredModel, terms: Terms) -> Freshness | _Asked:
        """Blocking. Who is to be asked; or what is known without: a pull would be refused."""
        terms = replace(terms, literal=Name.writes_host(one.name.short))
        pulled = self._library.pulls.of(one.name)
        try:
            source = self.source(one.name, terms)
            source.check(one.name, self._library, terms)
        except PunaError as error:
            return _untold(one, pulled, error)
        if pulled is not None and (pulled.manifest, pulled.source != source.title) == (one.manifest, True):
            reason = f"it came from {pulled.source}, which is not asked by its name"
            return Freshness(name=one.name, state="own", reason=reason, source=pulled.source, stored=one.manifest)
        return _Asked(one, pulled, source, terms)

    def push(self, name: Name, terms: Terms = _USUAL) -> AsyncGenerator[Progress, None]:
        """Send the model where its Name says. Its steps end with Progress('success'), or raise.

        What is known to be impossible is refused by the call itself, which is blocking but short.
        """
        name = self._library.spelled(name)
        return _to_success(self.source(name, terms).push(name, self._library, terms), f"cannot push '{name.short}'")

    async def search(self, word: str, terms: Terms = _USUAL) -> Searched:
        """What all sources list under a word, in their order; and what of them cannot be searched."""

        async def ask(source: Source) -> Searched:
            try:
                return await asyncio.wait_for(source.search(word, terms), PATIENCE)
            except PunaError as error:
                reason = error.message
            except asyncio.TimeoutError:
                reason = f"it did not say within {PATIENCE:g} s"
            return Searched(unlisted=(Unlisted(source.title, reason),))

        answers = await asyncio.gather(*(ask(source) for source in self._ordered))
        return Searched(
            tuple(one for answer in answers for one in answer.found),
            tuple(one for answer in answers for one in answer.unlisted),
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question to a source, of one stored model."""

    stored: StoredModel
    pulled: Pulled | None
    source: Source
    terms: Terms

    async def answer(self) -> Freshness:
        try:
            offer = await asyncio.wait_for(self.source.offer(self.stored.name, self.terms), PATIENCE)
        except (PunaError, asyncio.TimeoutError) as error:
            return _untold(self.stored, self.pulled, error)
        return compare(self.stored.name, self.stored.manifest, self.pulled, offer)


def _untold(stored: StoredModel, pulled: Pulled | None, error: BaseException) -> Freshness:
    """Of a model whose source says nothing of it."""
    name, manifest = stored.name, stored.manifest
    if pulled is None or pulled.manifest != manifest:
        return Freshness(name=name, state="own", reason="it was not pulled by this Puna", stored=manifest)
    state: Standing = "gone" if isinstance(error, SourceNotFound | Unsupported) else "unknown"
    reason = str(error) or f"{pulled.source} did not say within {PATIENCE:g} s"
    return Freshness(name=name, state=state, reason=reason, source=pulled.source, stored=manifest)


@contextmanager
def _saying(cannot: str) -> Iterator[None]:
    """A host that is not reached is told with what it was for. Those who follow one work have its one error."""
    try:
        yield
    except SourceUnreachable as error:
        if not error.message.startswith(cannot):
            error.message = f"{cannot}: {error.message}"
        raise


async def _to_success(steps: AsyncGenerator[Progress, None], cannot: str) -> AsyncGenerator[Progress, None]:
    async with aclosing(steps):
        with _saying(cannot):
            async for progress in steps:
                yield progress
    yield Progress("success")
