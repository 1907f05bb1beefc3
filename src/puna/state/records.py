"""One object that is remembered, what is asked for, and what is changed. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from puna.model.digest import Digest
from puna.types import JsonObject

Kind: TypeAlias = Literal[
    "response", "conversation", "item", "hold", "chat", "file", "upload", "part", "batch", "line", "event"
]

YIELDING: tuple[Kind, ...] = ("response", "conversation", "chat")
"""Kinds whose oldest go when a limit is reached. All others stay for as long as they were promised to."""

DATED: tuple[Kind, ...] = ("response", "chat")
"""Kinds that go after the days that the settings give, where nothing else was said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`id`: with its prefix (`resp_…`) one over all kinds. `owner`: who made it, and alone sees it.

    `body`: what a dialect shows of it, and what it needs again. `created`, `expires`: seconds since 1970.
    `parent`: the id of the record that it is part of, and goes with. `previous`: the id of the record of its kind that
    it goes on from. `content`: bytes that lie beside, `content_size` of them.
    """

    kind: Kind
    id: str
    owner: str
    body: JsonObject
    created: float
    parent: str = ""
    previous: str = ""
    expires: float | None = None
    content: Digest | None = None
    content_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which records of a kind: parts of `parent` (none: those that are part of nothing), behind the one with the id
    `after` and before that with the id `before` in the order asked for, at most `limit` (None: all).

    `where`: pairs that `body["metadata"]` holds; `having`: that `body` holds itself.
    """

    parent: str = ""
    after: str | None = None
    before: str | None = None
    limit: int | None = 20
    newest_first: bool = True
    where: Mapping[str, str] = field(default_factory=dict)
    having: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """Records in the order asked for. `more`: there are others behind them (before them, where `before` was asked)."""

    records: tuple[Record, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Put:
    """A record as it is from now on; one that is there keeps its place. NotFound where its parent is not there.

    `new`: Conflict when it is there. `over`: the record as it was read; Conflict when it is another by now, or gone.
    """

    record: Record
    new: bool = False
    over: Record | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """A record and all that is part of it, if it is there."""

    kind: Kind
    id: str
    owner: str


Change: TypeAlias = Put | Delete
