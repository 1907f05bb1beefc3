"""Source: the seam between Names and the places that models come from.

A source knows which Names are its own, brings what it has under one into the store, and sends a model back where that
is possible. Whoever pulls or pushes knows this seam and nothing of any source.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from puna.model.digest import Digest
from puna.model.name import Name
from puna.store.library import Library
from puna.types import Progress


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine, and the digest of its bytes, which only who has read it knows."""

    path: Path
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the caller of one pull or push allows and asks.

    `insecure`: plain http with the Name's host. `literal`: the Name was written with its host, and that host is meant,
    whatever else a Name without one may stand for. `local`: who asks is on this machine, and may name hosts near it.
    `files`: those of this machine that are to become the model, in place of what any other source has.
    `manifest`: the one with that digest and no other; a source that has several under a Name brings that one.
    """

    insecure: bool = False
    literal: bool = False
    local: bool = False
    manifest: Digest | None = None
    files: tuple[LocalFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a source would bring under a Name, known before it is fetched.

    `source`: its title in words. `manifest`: the sha256 of the manifest's bytes, where the source has one.
    `revision`: what the source calls this version. `size`: bytes of all that would be stored. None: not known yet.
    """

    source: str
    manifest: Digest | None = None
    revision: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a source lists: the text to pull it by, and what it says of it. `size` in bytes where it is known."""

    name: str
    source: str
    description: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A place that could not be searched, and why."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search found, and where it could not look."""

    found: tuple[Found, ...] = ()
    unlisted: tuple[Unlisted, ...] = ()


class Source(Protocol):
    """One kind of place. Stateless between calls but for what it may remember of its hosts."""

    @property
    def title(self) -> str:
        """In words, for people: 'the package index', 'registries'."""

    def takes(self, name: Name, terms: Terms) -> bool:
        """Whether that Name is this source's. Pure; the first source that takes a Name has it."""

    def check(self, name: Name, library: Library, terms: Terms) -> None:
        """Refuse what is known to be impossible before anything begins: SourceNotFound, Unsupported, Forbidden.

        Blocking but short, and without network.
        """

    async def offer(self, name: Name, terms: Terms) -> Offer:
        """What a pull would bring now. SourceError and its kinds."""

    def fetch(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        """Get the model, unless exactly it is there and whole: blobs first, the manifest last.

        Ends when `name` is listed, or raises; left early or failed, nothing half-done is ever listed.
        """

    def push(self, name: Name, library: Library, terms: Terms) -> AsyncGenerator[Progress, None]:
        """Send the model under that Name, in steps.

        The call itself refuses, blocking but short: Unsupported where the source takes no models, ModelNotFound.
        """

    async def search(self, word: str, terms: Terms) -> Searched:
        """What the source lists under a word. An error of it is what keeps all of it from being searched."""
