"""The seam: what keeps records. SQLite does today; a server for many machines may stand behind it one day."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from puna.errors import Conflict
from puna.model.digest import Digest
from puna.state.records import Change, Kind, Page, Put, Query, Record

DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class StateLimits:
    """What one owner may have: records, bytes of them and of their contents, and seconds that answers are kept.

    0: no limit.
    """

    records: int = 200_000
    bytes: int = 10 * 1024**3
    seconds: float = 30 * DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Stored:
    digest: Digest
    size: int


class Contents(Protocol):
    """Bytes beside the records, each once. They go when no record holds them any more."""

    async def add(self, chunks: AsyncIterable[bytes], *, most: int) -> Stored:
        """PayloadTooLarge over `most` bytes. A record has to hold them within the hour."""
        ...

    def path(self, digest: Digest) -> Path | None:
        """The file that holds them; None where there is none."""
        ...

    def hold(self, digest: Digest) -> None:
        """It stays, though its records go, until it is discarded (`State.discard`), as often as it was held."""
        ...

    async def read(self, digest: Digest, *, most: int) -> bytes:
        """All of them, seen to be what they were. StateError when they are damaged or missing, or over `most`."""
        ...


class State(Protocol):
    """Records of one server. StateError when they cannot be read or written; Unsupported where the server keeps none.

    A change is whole or not there, whenever the process ends.
    """

    @property
    def kept(self) -> bool:
        """Whether the server keeps anything at all (PUNA_STATE)."""
        ...

    @property
    def contents(self) -> Contents: ...

    async def get(self, kind: Kind, id: str, owner: str) -> Record | None:
        """None: it is not there, its time is over, or it is somebody else's."""
        ...

    async def chain(self, kind: Kind, id: str, owner: str) -> tuple[Record, ...]:
        """The record and all that it goes on from, the oldest first. Empty where it is not there.

        Where an older one is gone, it begins behind it: the first has a `previous` then.
        """
        ...

    async def page(self, kind: Kind, owner: str, query: Query) -> Page:
        """NotFound where `after` or `before` is not there."""
        ...

    async def everyones(self, kind: Kind, having: Mapping[str, str] | None = None) -> tuple[Record, ...]:
        """All records of a kind, whoever owns them, the oldest first: for work that goes on after a restart.

        `having`: pairs that `body` holds. Asking makes nothing on a disk where nothing was ever kept.
        """
        ...

    async def discard(self, digest: Digest) -> None:
        """Let go of bytes that were added, since no record is to hold them. Where one does, they stay."""
        ...

    async def claim(self, work: str, *, own: bool = False) -> bool:
        """Whether a kind of work is this server's, of all that share the state: from the first time that this is true
        until it ends, however it ends. `own`: work that no other server ever claims.
        """
        ...

    async def claimed(self, work: str) -> bool:
        """Whether some server, this one or another, has work that was its own from the beginning."""
        ...

    async def apply(self, *changes: Change) -> None:
        """All of them or none. Conflict for a `new` one that is there, and one to be put over what is no more; NotFound
        for a part of what is gone; StateFull when there is no room.
        """
        ...

    async def check_room(self, owner: str) -> None:
        """Before work whose outcome is to be kept. StateError where it could not be: the disk is full, or (StateFull)
        the owner keeps as much as it may, and nothing of it may go.
        """
        ...

    async def __aenter__(self) -> State: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


async def change(state: State, read: Callable[[], Awaitable[Record]], changed: Callable[[Record], Record]) -> Record:
    """A record becomes what `changed` makes of it, as it is then; whatever others do to it meanwhile. Raises what
    `read` does, when it is gone.
    """
    while True:
        record = await read()
        new = changed(record)
        with suppress(Conflict):
            await state.apply(Put(new, over=record))
            return new
