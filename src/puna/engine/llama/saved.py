"""What was saved of slots: a file that the engine writes and reads, and a record of what it is. Blocking.

The engine ends when it is told to read a damaged file, so each is read and compared with its record before.
"""

from __future__ import annotations

import contextlib
import struct
from array import array
from collections.abc import Iterable
from hashlib import blake2b, sha256
from pathlib import Path

from puna.engine.deposit import Deposit
from puna.plainfile import open_plain

_RECORD = struct.Struct("<32sQ")
"""Before the tokens: the file's digest and its size."""

_PIECE = 1 << 20

_MOST_RECORD = 1 << 26
"""Bytes of a record: more tokens than any context has."""


class SavedSlots:
    """Of one model, loaded one way. Names are made of tokens."""

    def __init__(self, deposit: Deposit) -> None:
        self._deposit = deposit

    @property
    def directory(self) -> Path:
        """Where the engine writes and reads."""
        return self._deposit.directory

    def all(self) -> dict[str, array[int]]:
        """The tokens of all that is there, by name."""
        records = {name: self._deposit.get(name, _MOST_RECORD) for name in self._deposit.stored()}
        return {name: _tokens(record) for name, record in records.items() if record is not None}

    def part(self) -> Path:
        """Where the engine is to write. DepositError if nowhere."""
        return self._deposit.part()

    def keep(self, part: Path, tokens: array[int]) -> str | None:
        """The engine has written `part`, for these tokens: the name under which it is saved now; None: it is not."""
        name = blake2b(tokens.tobytes(), digest_size=16).hexdigest()
        try:
            record = _RECORD.pack(*_measured(part))
        except OSError:
            return None
        if self._deposit.admit(part, name) and self._deposit.write(name, record + tokens.tobytes()):
            return name
        self._deposit.remove(name)
        return None

    def size(self, part: Path) -> int:
        """Bytes of what the engine has written; 0 if it is not there."""
        try:
            return part.stat().st_size
        except OSError:
            return 0

    def discard(self, part: Path) -> None:
        """The engine could not write it, or nobody wants it any more."""
        with contextlib.suppress(OSError):
            part.unlink()

    def make_room(self) -> None:
        """Something could not be written: perhaps the disk is full, of what is saved here among others."""
        self._deposit.prune()

    def file(self, name: str) -> Path | None:
        """The file that the engine may read; None, and forgotten: it is not what was written."""
        record, path = self._deposit.get(name, _MOST_RECORD), self._deposit.guest(name)
        with contextlib.suppress(OSError):
            if record is not None and _is_whole(path, *_RECORD.unpack_from(record)):
                self._deposit.touch([name])
                return path
        self.forget([name])
        return None

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._deposit.remove(name)


def _is_whole(path: Path, digest: bytes, size: int) -> bool:
    return path.stat().st_size == size and _measured(path) == (digest, size)


def _measured(path: Path) -> tuple[bytes, int]:
    """Digest and size."""
    hashed, size = sha256(), 0
    with open_plain(path) as file:
        while piece := file.read(_PIECE):
            hashed.update(piece)
            size += len(piece)
    return hashed.digest(), size


def _tokens(record: bytes) -> array[int]:
    tokens = array("i")
    tokens.frombytes(record[_RECORD.size :])
    return tokens
