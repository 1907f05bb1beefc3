"""Bytes beside the records: content-addressed files, as the models' store has them.

Servers that share a state share them too. Whoever still awaits a record for some bytes marks them, in a file beside
them; what is marked by another is left, and is the other's to remove.
"""

from __future__ import annotations

import asyncio
import secrets
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
from puna.store.blobs import Blobs, BlobWriter

_PIECE = 1 << 20
"""Bytes that are gathered before they are written."""

_MARK = ".awaited-"
"""Ends, with what tells servers apart, the names of files that mark bytes."""

UNCLAIMED_SECONDS = 3600.0
"""How long bytes may lie here that no record holds: their record is about to come."""


class BlobContents:
    """Contents in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self._blobs = Blobs(directory)
        self._directory = directory
        self._awaited: Counter[Digest] = Counter()
        self._lock = threading.Lock()
        self._mark = f"{_MARK}{secrets.token_hex(8)}"

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
            except BaseException as error:
                failure = error
                raise
            finally:
                # Not to be cancelled: it ends with a file that is whole, or with none.
                await asyncio.shield(in_uploads(partial(self._finish, writer, failure)))
        return Stored(writer.digest, writer.size)

    def _finish(self, writer: BlobWriter, failure: BaseException | None) -> None:
        """Marked before it is there, so that nobody removes it in between."""
        if failure is not None:
            writer.__exit__(type(failure), failure, None)
            return
        self.hold(writer.digest)
        try:
            writer.__exit__(None, None, None)
        except BaseException:
            self.held(writer.digest)
            raise

    def path(self, digest: Digest) -> Path | None:
        return self._blobs.find(digest)

    async def read(self, digest: Digest, *, most: int) -> bytes:
        with _state_errors():
            return await asyncio.to_thread(self._blobs.read, digest, limit=most)

    def hold(self, digest: Digest) -> None:
        with self._lock:
            self._awaited[digest] += 1
            if self._awaited[digest] == 1:
                with self._alone():
                    self._marked(digest).touch()

    def held(self, digest: Digest) -> None:
        """A record holds what was added for it."""
        with self._lock:
            if self._awaited[digest] > 0:
                self._awaited[digest] -= 1
                if not self._awaited[digest]:
                    del self._awaited[digest]
                    self._marked(digest).unlink(missing_ok=True)

    def remove(self, digest: Digest) -> None:
        """Blocking. What was added anew stays, though the records that held it are gone: another is about to."""
        with _state_errors(), self._lock:
            if self._awaited.get(digest) or not self._directory.is_dir():
                return
            with self._alone():
                marks = f"{digest.filename}{_MARK}"
                if not any(path.name.startswith(marks) for path in self._directory.iterdir()):
                    self._blobs.remove(digest)

    def _marked(self, digest: Digest) -> Path:
        return self._directory / f"{digest.filename}{self._mark}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other server marks or removes meanwhile."""
        from filelock import FileLock

        self._directory.mkdir(parents=True, exist_ok=True)
        with FileLock(self._directory.with_name(f"{self._directory.name}.lock")):
            yield

    def close(self) -> None:
        """No record is awaited any more. Blocking."""
        with self._lock:
            for digest in self._awaited:
                self._marked(digest).unlink(missing_ok=True)
            self._awaited.clear()

    def unclaimed(self, held: frozenset[str]) -> list[Digest]:
        """Those that no record holds (`held`: the digests' texts), and have not for an hour. Blocking."""
        before, found = time.time() - UNCLAIMED_SECONDS, []
        for path in self._directory.iterdir() if self._directory.is_dir() else ():
            try:
                old = path.name.startswith("sha256-") and path.stat().st_mtime < before
            except FileNotFoundError:  # another server is at work
                continue
            if not old:
                continue
            if path.suffix == ".tmp" or path.suffix.startswith(_MARK):
                path.unlink(missing_ok=True)
            elif str(digest := Digest.parse(path.name)) not in held:
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
