"""A deposit: what an engine computed, in files that outlive its processes.

Files lie in a directory for each kind of content, whose name says all that decides what the bytes mean, and are named
by a key. What is read is what was written under that very name, or nothing: each file begins with a digest of its
kind, its key and its bytes. Several processes may share a deposit, any file may be deleted at any moment, and a
process may be killed at any instant. It is as private as what it was computed from: only this user may enter it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from puna.plainfile import NotPlain, open_plain

DEPOSIT = "prompts"
"""Its directory's name, in the one of settings: nothing else in that is touched."""

DIGEST = 32
"""Bytes before those that were deposited."""

PART = ".part"
"""Suffix of a file that is being written."""

GUEST = ".guest"
"""Suffix of a file that another program writes and reads itself."""

ABANDONED = 600.0
"""Seconds after which one that is still there belongs to nobody."""

FULL, ROOMY = 0.95, 0.9
"""Shares of the limit: more than the first is not waited for before files are removed, down to the second."""

_KIND = re.compile(r"[0-9a-f]{32}")
_KEY = re.compile(rf"[0-9a-f]+({re.escape(PART)}|{re.escape(GUEST)})?")

Buffer: TypeAlias = "bytes | bytearray | memoryview"


class DepositError(OSError):
    """The directory cannot be had, or others could read it."""


@dataclass(frozen=True, slots=True)
class _File:
    used: float
    size: int
    path: Path


class Deposit:
    """One kind of content of the deposit in `root`, of which all kinds together take at most `limit` bytes, and at most
    half of what the disk would have free without them.

    Safe to use from several threads. DepositError where `root` cannot be had for this user alone.
    """

    def __init__(self, root: Path, kind: str, limit: int) -> None:
        self._root = root
        self._kind = kind
        self._limit = limit
        self._directory = root / kind
        self._written = limit  # how much others have left here is not known: the first write looks
        _private(root)
        _private(self._directory)

    @property
    def directory(self) -> Path:
        """Of this kind."""
        return self._directory

    def stored(self) -> set[str]:
        """The keys of what is there now."""
        return {entry.name for entry in _entries(self._directory, _KEY) if "." not in entry.name}

    def write(self, key: str, content: Buffer) -> bool:
        """Deposit it, whole or not at all. False: it could not be written, or is larger than all that may be kept."""
        size = DIGEST + len(content)
        if size > self._limit:
            return False
        try:
            part = self.part()
        except OSError:
            return False
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", 0) as file:
                for piece in (self._digest(key, content), content):
                    if file.write(piece) != len(piece):
                        raise OSError("the disk is full")
            part.replace(self._directory / key)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            return False
        self._wrote(size)
        return True

    def read(self, key: str, room: memoryview) -> bool:
        """Fill `room` with what was deposited under `key`. False: there is nothing of that length, or it is damaged,
        and is removed; what `room` holds then is nobody's.
        """
        path = self._directory / key
        try:
            with open_plain(path) as file:
                told = file.read(DIGEST)
                whole = file.readinto(room) == len(room) and not file.read(1)
        except NotPlain:
            told, whole = b"", False
        except OSError:
            return False
        if whole and told == self._digest(key, room):
            return True
        with contextlib.suppress(OSError):
            path.unlink()
        return False

    def get(self, key: str, most: int) -> bytes | None:
        """What was deposited under `key`, of whatever length up to `most`, else as `read`."""
        try:
            size = (self._directory / key).stat().st_size - DIGEST
        except OSError:
            return None
        room = bytearray(min(max(size, 0), most))
        return bytes(room) if self.read(key, memoryview(room)) else None

    def guest(self, key: str) -> Path:
        """Where another program finds a file of its own again. Whether it is whole is for the caller to know."""
        return self._directory / f"{key}{GUEST}"

    def part(self) -> Path:
        """A new name for a file until it is whole. DepositError if there is no place for it."""
        self._have()
        return self._directory / f"{secrets.token_hex(8)}{PART}"

    def admit(self, part: Path, key: str) -> bool:
        """A part that another program wrote is whole: it is the guest of that name now. False: it is not there."""
        try:
            size = part.stat().st_size
            part.chmod(0o600)
            part.replace(self.guest(key))
        except OSError:
            return False
        self._wrote(size)
        return True

    def remove(self, key: str) -> None:
        """And the guest of that name."""
        for path in (self._directory / key, self.guest(key)):
            with contextlib.suppress(OSError):
                path.unlink()

    def touch(self, keys: Sequence[str]) -> None:
        """They were used now, the first of them last of all: it is removed after the others."""
        now = time.time_ns()
        for place, key in enumerate(keys):
            for path in (self._directory / key, self.guest(key)):
                with contextlib.suppress(OSError):
                    os.utime(path, ns=(now, now - place * 1_000_000))

    def _have(self) -> None:
        """The directory, which somebody may have deleted."""
        if not self._directory.is_dir():
            _private(self._root)
            _private(self._directory)

    def _wrote(self, size: int) -> None:
        self._written += size
        if self._written > self._limit * (1 - FULL):
            self.prune()

    def prune(self) -> None:
        """Remove what was left longest ago, as far as there is more than may be, and what was never finished."""
        self._written = 0
        files = sorted(self._files(), key=lambda file: file.used)
        total = sum(file.size for file in files)
        try:
            limit = min(self._limit, (total + shutil.disk_usage(self._root).free) // 2)
        except OSError:
            return
        if total <= limit * FULL:
            return
        for file in files:
            if total <= limit * ROOMY:
                return
            with contextlib.suppress(OSError):
                file.path.unlink()
            total -= file.size

    def _files(self) -> Iterator[_File]:
        now = time.time()
        for kind in _entries(self._root, _KIND):
            empty = True
            for entry in _entries(kind.path, _KEY):
                empty = False
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(PART) and found.st_mtime < now - ABANDONED:
                        Path(entry.path).unlink()
                    else:
                        yield _File(found.st_mtime, found.st_size, Path(entry.path))
            if empty and kind.name != self._kind:
                with contextlib.suppress(OSError):
                    Path(kind.path).rmdir()

    def _digest(self, key: str, content: Buffer) -> bytes:
        hashed = sha256(f"{self._kind}\n{key}\n".encode())
        hashed.update(content)
        return hashed.digest()


def kind_of(parts: Iterable[object]) -> str:
    """The name of a kind of content, from all that decides what its bytes mean."""
    return sha256("\n".join(map(repr, parts)).encode()).hexdigest()[:32]


def _private(directory: Path) -> None:
    """Have it, and for this user alone."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise DepositError(f"{directory} is no directory")
        if os.name != "nt" and found.st_uid != os.getuid():
            raise DepositError(f"{directory} belongs to another user")
        if os.name != "nt" and found.st_mode & 0o077:
            directory.chmod(0o700)
    except DepositError:
        raise
    except OSError as error:
        raise DepositError(f"{directory} cannot be used: {error.strerror or error}") from error


def _entries(directory: Path | str, name: re.Pattern[str]) -> list[os.DirEntry[str]]:
    """Of that directory, what has such a name: nothing else in it is touched."""
    try:
        with os.scandir(directory) as found:
            return [entry for entry in found if name.fullmatch(entry.name)]
    except OSError:
        return []
