"""Blobs: files named by the sha256 of what is in them.

A blob appears under its name only when all of it is written, hashed and on the disk. Until then it is a temporary file
in the same directory that no lookup finds. Blocking: call from a thread when a file is large.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from puna.errors import DigestMismatch, StoreError
from puna.model.digest import Digest
from puna.model.manifest import Layer
from puna.store.files import store_errors, sync_directory, write_errors

CHUNK = 1 << 20
_FICLONE = 0x40049409
"""Linux: let a file share the blocks of another, copied when one is written to."""

OnBytes = Callable[[int], None]
"""Told how many bytes are done so far; may raise to stop the work."""


class Blobs:
    """The blob directory of one store, and those of read-only stores beside it for lookups."""

    def __init__(self, directory: Path, read_only: Sequence[Path] = ()) -> None:
        self.directory = directory
        self._read_only = tuple(read_only)

    def find(self, digest: Digest) -> Path | None:
        """Where the blob is: in the own store first; under either way of writing its name."""
        for directory in (self.directory, *self._read_only):
            for name in (digest.filename, str(digest)):
                path = directory / name
                if path.is_file():
                    return path
        return None

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be in the own store."""
        return self.find(digest) or self.directory / digest.filename

    def has(self, digest: Digest) -> bool:
        return self.find(digest) is not None

    def stored_since(self, digest: Digest, moment: float) -> bool:
        """Whether the blob of the own store was put there, or claimed, after `moment` (seconds of the clock)."""
        for name in (digest.filename, str(digest)):
            with suppress(OSError):
                status = (self.directory / name).stat()
                if max(status.st_mtime, status.st_ctime) > moment:
                    return True
        return False

    def claim(self, digest: Digest) -> None:
        """Say of a blob that is there already that somebody is about to use it; see `stored_since`."""
        for name in (digest.filename, str(digest)):
            path = self.directory / name
            with suppress(OSError):
                path.chmod(path.stat().st_mode)  # its date of change, and nothing else

    def size(self, digest: Digest) -> int:
        """Bytes; StoreError when it is not there."""
        with store_errors(f"reading blob {digest}"):
            return self.path(digest).stat().st_size

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """A small blob. StoreError when it is missing or larger than `limit` bytes."""
        with store_errors(f"reading blob {digest}"), self.path(digest).open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise StoreError(f"blob {digest} is larger than the {limit} bytes that its kind may have")
        return data

    def intact(self, digest: Digest, size: int, on_bytes: OnBytes | None = None) -> bool:
        """Whether the blob is there with that size and its bytes still have that digest."""
        path = self.find(digest)
        if path is None:
            return False
        with store_errors(f"reading blob {digest}"):
            return path.stat().st_size == size and hash_file(path, on_bytes).hex == digest.hex.lower()

    def writer(self, expected: Digest | None = None) -> BlobWriter:
        return BlobWriter(self.directory, expected)

    def add_bytes(self, data: bytes) -> Digest:
        with self.writer() as writer:
            writer.write(data)
        return writer.digest

    def add_layer(self, media_type: str, data: bytes, from_: str | None = None) -> Layer:
        """A small blob as a Layer."""
        return Layer(media_type, self.add_bytes(data), len(data), from_)

    def add_file(self, path: Path, on_bytes: OnBytes | None = None, *, expected: Digest | None = None) -> Digest:
        """Take in a file without a second copy where possible: shared blocks, else a hard link, else a copy.

        The file must not change meanwhile (StoreError). After a hard link it is the blob: writing into it in place
        damages the blob, replacing it does not. DigestMismatch when it is not what was `expected`.
        """
        with store_errors(f"reading {path.name}"):
            source = path.resolve(strict=True)
            before = source.stat()
            digest = hash_file(source, on_bytes)
            if _changed(before, source.stat()):
                raise StoreError(f"{path.name} changed while it was read")
        if expected is not None and digest.hex != expected.hex.lower():
            raise _mismatch(expected, digest)
        if not self.has(digest) or self.size(digest) != before.st_size:
            with write_errors(f"storing {path.name}"):
                self.directory.mkdir(parents=True, exist_ok=True)
                self._take(source, digest)
        self.claim(digest)
        return digest

    def take(self, path: Path, digest: Digest) -> None:
        """A file on the same disk whose bytes were hashed to that digest becomes the blob, and leaves `path`."""
        with write_errors(f"storing blob {digest}"):
            self.directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path.chmod(0o644)
            path.replace(self.directory / digest.filename)
            sync_directory(self.directory)
        self.claim(digest)

    def remove(self, digest: Digest) -> None:
        """From the own store, under both names; no error if it is not there."""
        with write_errors(f"removing blob {digest}"):
            for name in (digest.filename, str(digest)):
                (self.directory / name).unlink(missing_ok=True)

    def _take(self, source: Path, digest: Digest) -> None:
        with _temporary(self.directory) as temporary:
            temporary.unlink()
            if not _clone(source, temporary):
                try:
                    os.link(source, temporary)
                except OSError:
                    self._copy(source, digest)
                    return
            temporary.replace(self.directory / digest.filename)
        sync_directory(self.directory)

    def _copy(self, source: Path, digest: Digest) -> None:
        with self.writer(digest) as writer, source.open("rb") as file:
            while data := file.read(CHUNK):
                writer.write(data)


class BlobWriter:
    """Hashes what is written; leaving `with` without an error makes it a blob, leaving with one removes every trace.

    `digest` and `size` are final after `with`. A digest other than the expected one is a DigestMismatch and no blob.
    `path` is the temporary file, for a look at it after `flush` before it becomes a blob.
    """

    def __init__(self, directory: Path, expected: Digest | None) -> None:
        self.size = 0
        self._directory = directory
        self._expected = expected
        self._hash = hashlib.sha256()

    def __enter__(self) -> BlobWriter:
        with write_errors("writing a blob"):
            self._directory.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix="sha256-", suffix=".tmp", dir=self._directory)
        self.path = Path(name)
        self._file = os.fdopen(descriptor, "wb")
        return self

    @property
    def digest(self) -> Digest:
        return Digest(self._hash.hexdigest())

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)
        with write_errors("writing a blob"):
            self._file.write(data)

    def flush(self) -> None:
        with write_errors("writing a blob"):
            self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            # Closing flushes, which a full disk can refuse a second time: the first error is the one to tell.
            with suppress(OSError):
                self._file.close()
            self.path.unlink(missing_ok=True)

    def _commit(self) -> None:
        if self._expected is not None and self.digest.hex != self._expected.hex.lower():
            raise _mismatch(self._expected, self.digest)
        final = self._directory / self.digest.filename
        with write_errors("writing a blob"):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self.path.chmod(0o644)
            # In place of one that is already there: this one is known to be right, and its date keeps it from pruning.
            self.path.replace(final)
            sync_directory(self._directory)


def hash_file(path: Path, on_bytes: OnBytes | None = None) -> Digest:
    """OSError if it cannot be read."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(CHUNK):
            digest.update(data)
            done += len(data)
            if on_bytes is not None:
                on_bytes(done)
    return Digest(digest.hexdigest())


def _mismatch(expected: Digest, got: Digest) -> DigestMismatch:
    return DigestMismatch(f'digest mismatch, expected "{expected}", got "{got}"')


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_mtime_ns, before.st_size, before.st_ino) != (after.st_mtime_ns, after.st_size, after.st_ino)


@contextmanager
def _temporary(directory: Path) -> Iterator[Path]:
    """A name for a temporary file, removed afterwards if it is still there."""
    descriptor, name = tempfile.mkstemp(prefix="sha256-", suffix=".tmp", dir=directory)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _clone(source: Path, target: Path) -> bool:
    """Make `target` share the blocks of `source`. False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        with source.open("rb") as reading, target.open("wb") as writing:
            fcntl.ioctl(writing.fileno(), _FICLONE, reading.fileno())
            os.fsync(writing.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        return False
    shutil.copymode(source, target)
    return True
