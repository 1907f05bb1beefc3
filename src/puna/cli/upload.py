"""Bring a file of this machine into the server's store, without a second copy where both share the file system."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from puna.cli.nofile import no_file
from puna.cli.progress import Bars, Lines
from puna.client.client import Client
from puna.errors import Cancelled, InvalidRequest, Unsupported
from puna.model.gguf import MAGIC
from puna.plainfile import NotPlain, open_plain
from puna.types import Progress

_CHUNK = 1 << 20
_LENGTH = 8
"""Bytes at the start of a safetensors file, which say how many its description has."""


async def bring(server: Client, path: Path, shown: Bars | Lines) -> str:
    """The file's digest ('sha256:…'), once the server has it as a blob."""
    absolute, size = path.resolve(), _size(path)  # noqa: ASYNC240  # one look at a local file
    digest = await digest_of(path, shown)
    if await server.has_blob(digest):
        return digest
    if server.local and await server.offer_file(digest, absolute):
        return digest
    copying = f"copying {path.name}"
    await server.upload(
        digest, path, lambda done: shown.show(Progress(copying, digest=digest, total=size, completed=done))
    )
    return digest


async def digest_of(path: Path, shown: Bars | Lines) -> str:
    """The file's digest ('sha256:…'). NotFound, and what `check_kind` raises. Cancelled: it is read no further."""
    reading, size, left = f"reading {path.name}", _size(path), threading.Event()
    check_kind(path)

    def tell(done: int) -> None:
        if left.is_set():
            raise Cancelled("nobody waits for the digest")
        shown.show(Progress(reading, digest=f"read {path}", total=size, completed=done))

    try:
        return await asyncio.to_thread(file_digest, path, tell)
    except NotPlain as error:
        raise InvalidRequest(f"{path} is {error.strerror}") from error
    finally:
        left.set()


def _size(path: Path) -> int:
    if not path.is_file():
        raise no_file(path)
    size = path.stat().st_size
    if not size:
        raise InvalidRequest(f"{path} is empty")
    return size


def file_digest(path: Path, done: Callable[[int], None]) -> str:
    """sha256 of the file; `done` is told the bytes so far."""
    digest, count = hashlib.sha256(), 0
    with open_plain(path, whole=True) as file:
        size = os.fstat(file.fileno()).st_size
        while count < size and (data := file.read(min(_CHUNK, size - count))):
            digest.update(data)
            count += len(data)
            done(count)
    return f"sha256:{digest.hexdigest()}"


def check_kind(path: Path) -> None:
    """Before gigabytes are read and sent."""
    suffix = path.suffix.lower()
    if suffix in {".json", ".jinja", ".model", ".txt"}:
        return
    try:
        with open_plain(path) as file:
            start, size = file.read(_LENGTH), os.fstat(file.fileno()).st_size
    except NotPlain as error:
        raise InvalidRequest(f"{path} is {error.strerror}") from error
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    if suffix == ".safetensors":
        if not 1 < int.from_bytes(start or b"", "little") <= size - _LENGTH:
            raise Unsupported(f"{path} is not a safetensors file")
    elif (start or b"")[: len(MAGIC)] != MAGIC:
        raise Unsupported(f"{path} is not a GGUF file")
