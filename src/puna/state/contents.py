"""Bytes beside the records: content-addressed files, as the models' store has them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from puna.errors import ModelDamaged, PayloadTooLarge, StateError, StoreError
from puna.lane import in_uploads
from puna.model.digest import Digest
from puna.state.state import Stored
from puna.store.blobs import Blobs

_PIECE = 1 << 20
"""Bytes that are gathered before they are written."""

UNCLAIMED_SECONDS = 3600.0
"""How long bytes may lie here that no record holds: their record is about to come."""


class BlobContents:
    """Contents in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self._blobs = Blobs(directory)
        self._directory = directory
        self._awaited: Counter[Digest] = Counter()
        self._lock = threading.Lock()

    async def add(self, chunks: AsyncIterable[bytes], *, most: int) -> Stored:
        with _state_errors():
            writer = self._blobs.writer()
            await in_uploads(writer.__enter__)
            failure: BaseException | None = None
            try:
                piece = bytearray()
                async for chunk in chunks:
                    piece += chunk
                    if writer.size + len(piece) > most:
                        raise PayloadTooLarge(f"The content has more than {most} bytes.")
                    if len(piece) >= _PIECE:
                        await in_uploads(partial(writer.write, bytes(piece)))
                        piece.clear()
                await in_uploads(partial(writer.write, bytes(piece)))
                with self._lock:
                    self._awaited[writer.digest] += 1
            except BaseException as error:
                failure = error
                raise
            finally:
                # Not to be cancelled: it ends with a file that is whole, or with none.
                kind = None if failure is None else type(failure)
                await asyncio.shield(in_uploads(partial(writer.__exit__, kind, failure, None)))
        return Stored(writer.digest, writer.size)

    def path(self, digest: Digest) -> Path | None:
        return self._blobs.find(digest)

    async def read(self, digest: Digest, *, most: int) -> bytes:
        with _state_errors():
            return await asyncio.to_thread(self._blobs.read, digest, limit=most)

    def hold(self, digest: Digest) -> None:
        with self._lock:
            self._awaited[digest] += 1

    def held(self, digest: Digest) -> None:
        """A record holds what was added for it."""
        with self._lock:
            self._awaited[digest] -= self._awaited[digest] > 0

    def remove(self, digest: Digest) -> None:
        """Blocking. What was added anew stays, though the records that held it are gone: another is about to."""
        with _state_errors(), self._lock:
            if not self._awaited[digest]:
                self._blobs.remove(digest)

    def unclaimed(self, held: frozenset[str]) -> list[Digest]:
        """Those that no record holds (`held`: the digests' texts), and have not for an hour. Blocking."""
        before, found = time.time() - UNCLAIMED_SECONDS, []
        for path in self._directory.glob("sha256-*") if self._directory.is_dir() else ():
            if path.suffix == ".tmp":
                if path.stat().st_mtime < before:
                    path.unlink(missing_ok=True)
                continue
            digest = Digest.parse(path.name)
            if str(digest) not in held and path.stat().st_mtime < before:
                found.append(digest)
        return found


@contextmanager
def _state_errors() -> Iterator[None]:
    """The store of models speaks of models."""
    try:
        yield
    except ModelDamaged as error:
        raise StateError("what the server keeps: a content is missing or damaged") from error
    except StoreError as error:
        raise StateError(f"what the server keeps: {error.message}", code=error.code) from error
