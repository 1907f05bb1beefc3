"""Writing files so that they are whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from puna.errors import StoreError, StoreReadOnly

_ATTEMPTS = 50


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """Turns an OSError into a StoreError."""
    try:
        yield
    except OSError as error:
        raise store_error(doing, error) from error


@contextmanager
def write_errors(doing: str) -> Iterator[None]:
    """The same around what changes the store: StoreReadOnly where that is not allowed."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise StoreReadOnly(doing, (error.strerror or str(error)).lower()) from error
        raise store_error(doing, error) from error


def store_error(doing: str, error: OSError) -> StoreError:
    """Says what was being done, and whether the disk is full."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreError(f"{doing}: no space left on the disk", code="disk_full")
    return StoreError(f"{doing}: {error.strerror or error}")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when all went well. OSError names `path`'s directory."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def check_directories(models: Path, read_only: Sequence[Path]) -> None:
    """StoreError when a path is no directory, or a read-only one is missing."""
    if models.exists() and not models.is_dir():
        raise StoreError(f"the models directory {models} is not a directory")
    missing = next((path for path in read_only if not path.is_dir()), None)
    if missing is not None:
        raise StoreError(f"the read-only models directory {missing} is not a directory")


SPARE_BYTES = 64 * 1024 * 1024
"""Left free on the disk where sizes are known before the work."""


def check_room(directory: Path, needed: int) -> None:
    """StoreError when `needed` bytes do not fit on the disk of `directory`, which is there."""
    with store_errors("looking at the disk"):
        free = shutil.disk_usage(directory).free
    if needed and free < needed + SPARE_BYTES:
        kept = f", and {SPARE_BYTES} of them are kept free" if free >= needed else ""
        told = f"no space left on the disk: {needed} bytes are needed, {free} are free{kept}"
        raise StoreError(told, code="disk_full")


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` at `path` in one step: a crash leaves the old file or the new one. Makes the directory. OSError."""
    descriptor, temporary = _temporary(path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """With its parents, so that a crash loses none of them. OSError."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def sync_file(path: Path) -> None:
    """Make the bytes of a file last that somebody else wrote. OSError."""
    with path.open("rb") as file:
        if os.name != "nt":  # it wants to write for that
            os.fsync(file.fileno())


def _temporary(directory: Path) -> tuple[int, str]:
    """A new file in `directory`, which is made; again if somebody removes it meanwhile, since it is empty."""
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            make_directory(directory)
            return tempfile.mkstemp(prefix=".", suffix=".tmp", dir=directory)
    make_directory(directory)
    return tempfile.mkstemp(prefix=".", suffix=".tmp", dir=directory)


def is_temporary(path: Path) -> bool:
    """Whether `write_file` named it."""
    return path.name.startswith(".") and path.suffix == ".tmp" and path.is_file()


def sync_directory(path: Path) -> None:
    """Make a rename in `path` last. Does nothing where directories cannot be opened (Windows)."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # removed since, because what was in it was: nothing is left to last
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_empty(path: Path, *, up_to: Path) -> None:
    """Remove `path` and its parents below `up_to` as long as they are empty."""
    with suppress(OSError):
        while path != up_to:
            path.rmdir()
            path = path.parent
