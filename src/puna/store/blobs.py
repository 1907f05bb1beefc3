"""Blobs: files named by the sha256 of what is in them.

A blob appears under its name only when all of it is written, hashed and on the disk. Until then it is a temporary file
in the same directory that no lookup finds. It is trusted only after its digest was seen on this disk: whoever writes
one hashes it as he does, what was there already is hashed once. Blocking: call from a thread when a file is large.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from weakref import WeakValueDictionary

from puna.errors import Cancelled, DigestMismatch, ModelDamaged, StoreError
from puna.model.digest import Digest
from puna.model.manifest import Layer
from puna.plainfile import open_plain, read_plain
from puna.store.faults import MISSING, Fault, unreadable, wrong_bytes, wrong_size
from puna.store.files import (
    check_room,
    make_directory,
    store_error,
    store_errors,
    sync_directory,
    sync_file,
    write_errors,
)
from puna.store.stamp import Stamp, StampedFile
from puna.store.verified import FILE_NAME, Verified

CHUNK = 1 << 20
SMALL = 64 * 1024
"""Bytes up to which a blob is hashed whenever it is looked at: a note of it would cost as much."""
_FICLONE = 0x40049409
"""Linux: let a file share the blocks of another, copied when one is written to."""

_PATIENCE = 0.5
"""Seconds between two looks at whether the work is to stop, while another hashes the same file."""
_ATTEMPTS = 5

OnBytes = Callable[[int], None]
"""Told how many bytes are done so far; may raise to stop the work."""


class Blobs:
    """The blob directory of one store, and those of read-only stores beside it for lookups.

    `verified`: what is known of the files; a log beside the directory when nothing is said.
    """

    def __init__(self, directory: Path, read_only: Sequence[Path] = (), verified: Verified | None = None) -> None:
        self.directory = directory
        self._directories = tuple(map(str, (directory, *read_only)))
        self._verified = verified or Verified(directory.parent / FILE_NAME)
        self._hashing: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
        self._turns = threading.Lock()

    def find(self, digest: Digest) -> Path | None:
        """Where the blob is: in the own store first; under either way of writing its name."""
        found = self.locate(digest)
        return None if found is None else Path(found.path)

    def locate(self, digest: Digest) -> StampedFile | None:
        """As `find`, for who looks for thousands."""
        for directory in self._directories:
            for path in (f"{directory}/sha256-{digest.hex}", f"{directory}/sha256:{digest.hex}"):
                try:
                    status = os.stat(path)  # noqa: PTH116
                except OSError:
                    continue
                if S_ISREG(status.st_mode):
                    return StampedFile(path, Stamp.told(status))
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

    def looks_whole(self, digest: Digest, size: int) -> bool:
        """Whether a file of that size is there; what is in it nobody has looked at."""
        path = self.find(digest)
        with suppress(OSError):
            return path is not None and path.stat().st_size == size
        return False

    def size(self, digest: Digest) -> int:
        """Bytes; StoreError when it is not there."""
        with store_errors(f"reading blob {digest}"):
            return self.path(digest).stat().st_size

    def read(self, digest: Digest, *, limit: int, path: str | None = None) -> bytes:
        """A small blob, checked against its digest each time. ModelDamaged when it is missing or not what it should be.

        StoreError when it is larger than `limit` bytes. `path`: where it was found a moment ago.
        """
        if path is None:
            found = self.locate(digest)
            if found is None:
                raise damaged(MISSING, digest)
            path = found.path
        try:
            data = read_plain(path, limit)
            if hashlib.sha256(data).hexdigest() != digest.hex.lower():
                raise damaged(wrong_bytes(Path(path)), digest)
        except OSError as error:
            raise store_error(f"reading blob {digest}", error) from error
        return data

    def intact(self, digest: Digest, size: int | None = None, on_bytes: OnBytes | None = None) -> bool:
        """Whether the blob is there and can be trusted: what a source asks before it leaves out a layer.

        Hashes it, unless that was done since it was last changed. `size`: bytes that it should have.
        """
        return self.fault(digest, size, on_bytes) is None

    def fault(
        self,
        digest: Digest,
        size: int | None = None,
        on_bytes: OnBytes | None = None,
        *,
        anew: bool = False,
        path: Path | None = None,
    ) -> Fault | None:
        """What is wrong with the blob; None: nothing. As `intact`.

        `anew`: its bytes are read, whatever is known. `path`: of the file that has to hold it, where that is known.
        """
        turn = self._turn(digest)
        while not turn.lock.acquire(timeout=_PATIENCE):
            if on_bytes is not None:
                on_bytes(0)
        try:
            for _ in range(_ATTEMPTS):
                where = path or self.find(digest)
                if where is None:
                    return MISSING
                with suppress(_Moved):
                    return self._look(where, digest, size, on_bytes, anew)
            return MISSING if self.find(digest) is None else Fault("changed", "is damaged: it changes as it is read")
        finally:
            turn.lock.release()

    def _look(self, path: Path, digest: Digest, size: int | None, on_bytes: OnBytes | None, anew: bool) -> Fault | None:
        """_Moved when somebody stored it anew meanwhile."""
        try:
            before = Stamp.of(path)
            if size is not None and before.size != size:
                fault: Fault | None = wrong_size(before.size, size)
            elif not anew and self._verified.holds(digest, before):
                return None
            else:
                right = hash_file(path, on_bytes).hex == digest.hex.lower()
                fault = None if right else wrong_bytes(path)
            if Stamp.of(path) != before:
                raise _Moved
        except FileNotFoundError as error:
            raise _Moved from error
        except OSError as error:
            return unreadable(error)
        if fault is None:
            self._note(digest, before)
        else:
            self._verified.forget(digest)
        return fault

    def _turn(self, digest: Digest) -> _Turn:
        """One file is hashed once, whoever asks; others are meanwhile looked at."""
        key = digest.hex.lower()
        with self._turns:
            turn = self._hashing.get(key)
            if turn is None:
                turn = self._hashing[key] = _Turn()
            return turn

    def _note(self, digest: Digest, stamp: Stamp) -> None:
        if stamp.size > SMALL:
            self._verified.record(digest, stamp)

    def tidy(self, digests: Iterable[Digest]) -> None:
        """Forget what is known of all blobs but these."""
        stamps = {}
        for digest in digests:
            with suppress(OSError):
                stamps[digest] = Stamp.of(self.path(digest))
        self._verified.tidy(stamps)

    def writer(self, expected: Digest | None = None) -> BlobWriter:
        return BlobWriter(self.directory, expected, self._note)

    def add_bytes(self, data: bytes) -> Digest:
        with self.writer() as writer:
            writer.write(data)
        return writer.digest

    def add_layer(self, media_type: str, data: bytes, from_: str | None = None) -> Layer:
        """A small blob as a Layer."""
        return Layer(media_type, self.add_bytes(data), len(data), from_)

    def add_file(
        self,
        path: Path,
        on_bytes: OnBytes | None = None,
        *,
        expected: Digest | None = None,
        on_copied: OnBytes | None = None,
    ) -> Digest:
        """Take in a file without a second copy where possible: shared blocks, else a hard link, else a copy.

        `on_bytes` is told what is hashed, `on_copied` what is copied, so far; each may raise to stop it.
        The file must not change meanwhile (StoreError). After a hard link it is the blob: writing into it in place
        damages the blob, replacing it does not. DigestMismatch when it is not what was `expected`.
        """
        with store_errors(f"reading {path.name}"):
            source = Path(os.path.realpath(path, strict=True))  # `Path.resolve` has an error of its own for loops
            before = source.stat()
            digest = hash_file(source, on_bytes)
            if _changed(before, source.stat()):
                raise StoreError(f"{path.name} changed while it was read")
        if expected is not None and digest.hex != expected.hex.lower():
            raise _mismatch(expected, digest)
        if not self.intact(digest, before.st_size):
            with write_errors(f"storing {path.name}"):
                make_directory(self.directory)
                self._take(source, digest, on_copied)
                if _changed(before, source.stat()):
                    self.remove(digest)
                    raise StoreError(f"{path.name} changed while it was stored")
        self.claim(digest)
        return digest

    def take(self, path: Path, digest: Digest) -> None:
        """A file on the same disk whose bytes were hashed to that digest becomes the blob, and leaves `path`."""
        with write_errors(f"storing blob {digest}"):
            make_directory(self.directory)
            sync_file(path)
            path.chmod(0o644)
            final = self.directory / digest.filename
            path.replace(final)
            sync_directory(self.directory)
            self._note(digest, Stamp.of(final))
        self.claim(digest)

    def adopt(self, digest: Digest) -> OSError | None:
        """Link a blob of a read-only store into the own one; gives why not where that cannot be done without a copy."""
        path, own = self.find(digest), self.directory / digest.filename
        if path is None or own.exists():
            return None
        with write_errors("making the blob directory"):
            make_directory(self.directory)
        try:
            os.link(path, own)
            sync_directory(self.directory)
        except OSError as error:
            return error
        return None

    def remove(self, digest: Digest) -> None:
        """From the own store, under both names; no error if it is not there."""
        with write_errors(f"removing blob {digest}"):
            for name in (digest.filename, str(digest)):
                (self.directory / name).unlink(missing_ok=True)

    def _take(self, source: Path, digest: Digest, on_copied: OnBytes | None) -> None:
        with _temporary(self.directory) as temporary:
            temporary.unlink()
            if not _clone(source, temporary):
                try:
                    os.link(source, temporary)
                except OSError:
                    self._copy(source, digest, on_copied)
                    return
            sync_file(temporary)
            final = self.directory / digest.filename
            temporary.replace(final)
        sync_directory(self.directory)
        self._note(digest, Stamp.of(final))

    def _copy(self, source: Path, digest: Digest, on_copied: OnBytes | None) -> None:
        check_room(self.directory, source.stat().st_size)
        with self.writer(digest) as writer, open_plain(source) as file:
            while data := file.read(CHUNK):
                writer.write(data)
                if on_copied is not None:
                    on_copied(writer.size)


class BlobWriter:
    """Hashes what is written; leaving `with` without an error makes it a blob, leaving with one removes every trace.

    `digest` and `size` are final after `with`. A digest other than the expected one is a DigestMismatch and no blob.
    `path` is the temporary file, for a look at it after `flush` before it becomes a blob.
    """

    def __init__(
        self,
        directory: Path,
        expected: Digest | None,
        note: Callable[[Digest, Stamp], None] = lambda digest, stamp: None,
    ) -> None:
        self.size = 0
        self._note = note
        self._directory = directory
        self._expected = expected
        self._hash = hashlib.sha256()

    def __enter__(self) -> BlobWriter:
        with write_errors("writing a blob"):
            make_directory(self._directory)
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
            self._note(self.digest, Stamp.of(final))


def stop_when(left: Callable[[], bool]) -> OnBytes:
    """Raises Cancelled as soon as `left` says that nobody waits any more."""

    def on_bytes(_: int) -> None:
        if left():
            raise Cancelled("nobody waits for it any more")

    return on_bytes


class _Moved(Exception):
    """The file is another one now."""


class _Turn:
    """Whose turn it is to hash a file."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def damaged(fault: Fault, digest: Digest, what: str = "", name: str = "") -> ModelDamaged:
    """Says what to do. `what`: the file in its user's words; `name`: of the model that it belongs to."""
    whose = name or "--all"
    return ModelDamaged(f"{what or 'a blob'} {fault.words} ({digest}). Mend it with: puna verify {whose} --repair")


def hash_file(path: Path, on_bytes: OnBytes | None = None) -> Digest:
    """As many bytes as it has when this begins. OSError if it cannot be read."""
    digest, done = hashlib.sha256(), 0
    with open_plain(path, whole=True) as file:
        size = os.fstat(file.fileno()).st_size
        while done < size and (data := file.read(min(CHUNK, size - done))):
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
