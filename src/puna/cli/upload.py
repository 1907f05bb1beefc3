"""Bring a file of this machine into the server's store, without a second copy where both share the file system."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from puna.cli.nofile import no_file
from puna.cli.progress import Bars, Lines
from puna.client import Client
from puna.errors import InvalidRequest
from puna.plainfile import open_plain
from puna.types import Progress

_CHUNK = 1 << 20


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
    """The file's digest ('sha256:…'). NotFound."""
    reading, size = f"reading {path.name}", _size(path)
    return await asyncio.to_thread(
        file_digest, path, lambda done: shown.show(Progress(reading, digest=f"read {path}", total=size, completed=done))
    )


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
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        while count < size and (data := file.read(min(_CHUNK, size - count))):
            digest.update(data)
            count += len(data)
            done(count)
    return f"sha256:{digest.hexdigest()}"
