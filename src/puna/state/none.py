"""The state of a server that keeps nothing (PUNA_STATE=off)."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from pathlib import Path
from types import TracebackType

from puna.errors import Unsupported
from puna.model.digest import Digest
from puna.state.records import Change, Kind, Page, Query, Record
from puna.state.state import Stored


class NoContents:
    async def add(self, chunks: AsyncIterable[bytes], *, most: int) -> Stored:
        raise _off()

    def path(self, digest: Digest) -> Path | None:
        return None

    def hold(self, digest: Digest) -> None:
        pass

    async def read(self, digest: Digest, *, most: int) -> bytes:
        raise _off()


class NoState:
    """Nothing is there, and whoever wants something kept is told why it cannot be."""

    kept = False
    contents = NoContents()

    async def get(self, kind: Kind, id: str, owner: str) -> Record | None:
        return None

    async def chain(self, kind: Kind, id: str, owner: str) -> tuple[Record, ...]:
        return ()

    async def page(self, kind: Kind, owner: str, query: Query) -> Page:
        return Page((), False)

    async def everyones(self, kind: Kind, having: Mapping[str, str] | None = None) -> tuple[Record, ...]:
        return ()

    async def discard(self, digest: Digest) -> None:
        pass

    async def claim(self, work: str, *, own: bool = False) -> bool:
        return False

    async def claimed(self, work: str) -> bool:
        return False

    async def apply(self, *changes: Change) -> None:
        raise _off()

    async def check_room(self, owner: str) -> None:
        raise _off()

    async def __aenter__(self) -> NoState:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


def _off() -> Unsupported:
    return Unsupported("This server keeps nothing for its callers: it was started with PUNA_STATE=off.")
