"""Mend: check stored models, and bring back what is damaged of them from where it came.

A model is never made another one by it: when a source has another version now, what is stored stays as it is, and the
DamageReport says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from puna.errors import InvalidName, ModelNotFound, PunaError
from puna.model.digest import Digest
from puna.model.name import Name
from puna.sources.source import Terms
from puna.sources.sources import Sources
from puna.sources.worker import Worker
from puna.store.checkup import Checkup, Damage
from puna.store.kept import manifest_fault
from puna.store.library import Library
from puna.types import Progress

_USUAL = Terms()


@dataclass(frozen=True, slots=True)
class DamageReport:
    """Of one Damage. `mended`: it is gone; `reason`: why it is not, where that was tried."""

    damage: Damage
    mended: bool = False
    reason: str = ""


async def verify(
    names: Sequence[Name], library: Library, sources: Sources, *, repair: bool, terms: Terms = _USUAL
) -> AsyncGenerator[Progress | DamageReport, None]:
    """Read every byte of the models, one after the other. With `repair` what can be brought back is, on these terms."""
    checkup = Checkup(library)
    for name in names:
        checking = Worker(partial(checkup.of, name))
        yield Progress(f"verifying {name.short}")
        try:
            async for progress in checking.run():
                yield progress
        except ModelNotFound:
            if len(names) == 1:
                raise
            yield Progress(f"passing over {name.short}: it is not there any more")
            continue
        if not repair:
            for damage in checking.result:
                yield DamageReport(damage)
        elif checking.result:
            async with aclosing(_Mending(name, checking.result, library, sources, terms).run()) as steps:
                async for step in steps:
                    yield step
            checkup = Checkup(library)  # what was mended for this model is so for others that share it


class _Mending:
    """One model with faults."""

    def __init__(self, name: Name, damages: Sequence[Damage], library: Library, sources: Sources, terms: Terms) -> None:
        self._name = name
        self._left = list(damages)
        self._library = library
        self._sources = sources
        self._asking = terms
        self._reasons: list[str] = []

    async def run(self) -> AsyncGenerator[Progress | DamageReport, None]:
        found = list(self._left)
        await asyncio.to_thread(self._restore)
        for name in await asyncio.to_thread(self._origins):
            if not self._left:
                break
            async with aclosing(self._pull(name)) as steps:
                async for progress in steps:
                    yield progress
            await asyncio.to_thread(self._look)
        reason = "; ".join(dict.fromkeys(self._reasons)) or "no source has it: create the model again"
        for damage in found:
            left = damage in self._left
            yield DamageReport(damage, mended=not left, reason=reason if left else "")

    def _restore(self) -> None:
        """A damaged manifest from the copy of what was written."""
        if any(damage.layer is None for damage in self._left):
            _, copies = self._library.stored(self._name)
            if copies:
                self._library.put_back(self._name, copies[0])
        self._look()

    def _look(self) -> None:
        """What is still wrong. What was written meanwhile was hashed as it was, and is not read again."""
        data, copies = self._library.stored(self._name)
        self._left = [
            damage
            for damage in self._left
            if (
                _unread(data, copies)
                if damage.layer is None
                else not self._library.blobs.intact(damage.layer.digest, damage.layer.size)
            )
        ]

    def _origins(self) -> list[Name]:
        """Names whose pull may bring it: the model's own, those of others with the same blobs, those it came from."""
        wanted = {damage.layer.digest for damage in self._left if damage.layer is not None}
        others = [name for name in self._library.names() if wanted & self._library.digests(name)]
        texts = (damage.layer.from_ for damage in self._left if damage.layer is not None)
        return list(dict.fromkeys((self._name, *others, *_names(texts))))

    async def _pull(self, name: Name) -> AsyncGenerator[Progress, None]:
        """And leave the list of models as it was."""
        before = await asyncio.to_thread(self._manifest, name)
        try:
            terms = await asyncio.to_thread(self._terms, name)
            offer = await self._sources.offer(name, terms)
            if before is not None and offer.manifest is not None and offer.manifest != Digest.of(before):
                self._reasons.append(
                    f"{offer.source} has another '{name.short}' now: 'puna pull {name.short}' takes it"
                )
                return
            with self._library.holding(await asyncio.to_thread(self._library.digests, self._name)):
                async with aclosing(self._sources.pull(name, terms)) as steps:
                    async for progress in steps:
                        if progress.status != "success":
                            yield progress
                await asyncio.to_thread(self._as_before, name, before)
        except PunaError as error:
            self._reasons.append(error.message)

    def _terms(self, name: Name) -> Terms:
        """As when it was pulled: two sources may have the Name, one as it is and one with its host."""
        usual, literal = (replace(self._asking, literal=one) for one in (Name.writes_host(name.short), True))
        pulled = self._library.pulls.of(name)
        return literal if pulled is not None and self._sources.source(name, literal).title == pulled.source else usual

    def _manifest(self, name: Name) -> bytes | None:
        """Of a model that is there and can be read."""
        if not self._library.has(name):
            return None
        data, _ = self._library.stored(name)
        return None if _unread(data, ()) else data

    def _as_before(self, name: Name, before: bytes | None) -> None:
        if before is not None:
            if self._library.stored(name)[0] != before:
                self._library.put_back(name, before)
                self._reasons.append(_another("its source", name))
        elif name != self._name:
            self._library.delete(name)


def _another(source: str, name: Name) -> str:
    return f"{source} has another '{name.short}' now: 'puna pull {name.short}' takes it"


def _unread(data: bytes, copies: Sequence[bytes]) -> bool:
    return manifest_fault(data, copies) is not None


def _names(texts: Iterable[str | None]) -> list[Name]:
    """Of models, among what layers say they came from: a file's name is none that a source takes."""
    found = []
    for text in texts:
        if text and not text.lower().endswith(".gguf"):
            try:
                found.append(Name.parse(text))
            except InvalidName:
                continue
    return found
