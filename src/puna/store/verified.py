"""Verified: for which files a digest was seen on this disk, so that nothing large is hashed twice.

A log beside the blobs, one line a note: a digest, and the file that had it (inode, date in nanoseconds, size). A file
that was replaced or written to since is another one. Lines are only appended, each in one step, so that several
processes may; `tidy` keeps what still holds. Losing the log costs one more hashing. Blocking and safe to call from
several threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from puna.model.digest import Digest
from puna.store.files import write_file
from puna.store.stamp import Stamp

FILE_NAME = "verified.log"

_NONE = "-"
_KEPT = 4
"""Files of one digest that are remembered: the own store's, and those of others."""


class Verified:
    """Notes of what was hashed and found right.

    `file`: where to remember. A store that cannot be written remembers for the life of the process only.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._notes: dict[str, tuple[Stamp, ...]] = {}
        self._read_to = 0
        self._read_of = 0
        self._lock = threading.Lock()

    def holds(self, digest: Digest, stamp: Stamp) -> bool:
        """Whether the file with that stamp was seen to have that digest."""
        key = digest.hex.lower()
        with self._lock:
            if stamp not in self._notes.get(key, ()):
                self._read()
            return stamp in self._notes.get(key, ())

    def record(self, digest: Digest, stamp: Stamp) -> None:
        """The file with that stamp was hashed, or was written and hashed at once."""
        with self._lock:
            self._write(digest.hex.lower(), f"{stamp.inode} {stamp.modified_ns} {stamp.size}")

    def forget(self, digest: Digest) -> None:
        """A file of that name turned out to be something else."""
        with self._lock:
            if self._notes.get(digest.hex.lower()):
                self._write(digest.hex.lower(), _NONE)

    def tidy(self, files: Mapping[Digest, Stamp]) -> None:
        """Keep the notes of `files`, and of nothing else."""
        with self._lock:
            self._read()
            now = {digest.hex.lower(): stamp for digest, stamp in files.items()}
            self._notes = {key: (now[key],) for key, known in self._notes.items() if now.get(key) in known}
            lines = (
                f"{key} {stamp.inode} {stamp.modified_ns} {stamp.size}\n"
                for key, stamps in self._notes.items()
                for stamp in stamps
            )
            with suppress(OSError):
                if self._file.exists():
                    write_file(self._file, "".join(lines).encode())
                    self._read_to, self._read_of = self._file.stat().st_size, self._file.stat().st_ino

    def _read(self) -> None:
        """What was added since, by whichever process."""
        with suppress(OSError), self._file.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._read_of or status.st_size < self._read_to:
                self._read_to, self._read_of = 0, status.st_ino
            file.seek(self._read_to)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read_to += len(whole)
            for line in whole.decode("ascii", "replace").splitlines():
                self._take(line)

    def _take(self, line: str) -> None:
        """A line that cannot be read is as good as none: the file is hashed once more."""
        key, _, rest = line.partition(" ")
        if rest == _NONE:
            self._notes.pop(key, None)
            return
        with suppress(ValueError, TypeError):
            stamp = Stamp(*map(int, rest.split(" ")))
            self._notes[key] = (stamp, *(other for other in self._notes.get(key, ()) if other != stamp))[:_KEPT]

    def _write(self, key: str, what: str) -> None:
        line = f"{key} {what}\n"
        self._take(line.rstrip("\n"))
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
