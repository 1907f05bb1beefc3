"""Stamp: what of a file changes when it is replaced or written to; StampedFile: which file that was."""

from __future__ import annotations

from datetime import datetime, timezone
from os import stat_result
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """Changes when a file is replaced or written to."""

    inode: int
    modified_ns: int
    size: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """OSError if it is not there."""
        return cls.told(path.stat())

    @classmethod
    def told(cls, status: stat_result) -> Stamp:
        return cls(status.st_ino, status.st_mtime_ns, status.st_size)

    @property
    def modified(self) -> datetime:
        return datetime.fromtimestamp(self.modified_ns / 1e9, timezone.utc)


class StampedFile(NamedTuple):
    """Where a file is, and the stamp that it had there. `path` is a text: of thousands, a Path takes longer than to
    look.
    """

    path: str
    stamp: Stamp
