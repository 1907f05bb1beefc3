"""What sources have, as a server tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from puna.client.fields import integer_of, objects_of, text_of

if TYPE_CHECKING:
    from puna.types import JsonObject


@dataclass(frozen=True, slots=True)
class Renewal:
    """A line of `puna outdated`. `state`: current, outdated, own, unknown or gone; `reason`: what that comes of.

    `digest`: 64 hex characters of the manifest that is here; `offered`: what the source has, in its own words.
    """

    name: str
    state: str
    digest: str
    source: str
    offered: str
    reason: str

    @classmethod
    def read(cls, item: JsonObject) -> Renewal:
        keys = ("name", "state", "digest", "source", "offered", "reason")
        return cls(**{key: text_of(item, key) for key in keys})


@dataclass(frozen=True, slots=True)
class Offered:
    """What a source has under a name. `manifest`: 'sha256:…', '' if it does not tell; `size`: bytes, None likewise."""

    source: str
    manifest: str
    size: int | None

    @classmethod
    def read(cls, answer: JsonObject) -> Offered:
        return cls(text_of(answer, "source"), text_of(answer, "manifest"), integer_of(answer, "size"))


@dataclass(frozen=True, slots=True)
class Listing:
    """A line of `puna search`. `size`: bytes, None where the source does not tell."""

    name: str
    source: str
    description: str
    size: int | None

    @classmethod
    def read(cls, item: JsonObject) -> Listing:
        name, source, description = (text_of(item, key) for key in ("name", "source", "description"))
        return cls(name, source, description, integer_of(item, "size"))


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`unlisted`: sources that cannot be searched, and why."""

    models: tuple[Listing, ...]
    unlisted: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, answer: JsonObject) -> SearchResult:
        return cls(
            tuple(Listing.read(item) for item in objects_of(answer, "models")),
            tuple((text_of(item, "source"), text_of(item, "reason")) for item in objects_of(answer, "unlisted")),
        )
