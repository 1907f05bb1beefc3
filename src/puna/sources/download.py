"""Download: one blob over HTTP into the store, in parts that are asked for beside one another, resumed after a kill.

Every source that has blobs behind URLs uses it. Such a source gives an `Origin`; who calls gets Progress and, at the
end, a blob whose size and sha256 were checked as it came. What is on the disk is never asked for again, except where a
server ignores ranges.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import aiohttp

from puna.errors import (
    AccessDenied,
    DigestMismatch,
    SourceAnswer,
    SourceError,
    SourceNotFound,
    SourceUnreachable,
    StoreError,
)
from puna.lane import gone, in_downloads, in_hashing
from puna.model.digest import Digest
from puna.sources.coding import coding
from puna.sources.net import Net, Patience
from puna.sources.partial import Partial
from puna.store.blobs import stop_when
from puna.store.files import check_room
from puna.store.library import Library
from puna.store.transfers import Mailbox, following
from puna.types import Progress

T = TypeVar("T")

_MB = 1 << 20
_BLOCK = 1 * _MB
"""Bytes that are written at once."""
_BLOCK_SECONDS = 1.0
"""After which fewer are: what a kill costs on a slow link."""
_HASHED = 32 * _MB
"""Bytes that are hashed before another look at whether to stop."""
_EVERY_SECONDS = 0.06
_LOCKED_SECONDS = 0.25
_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)


class Origin(Protocol):
    """Where the bytes of one blob can be asked for."""

    @property
    def host(self) -> str:
        """In words."""

    def open(self, headers: Mapping[str, str]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """GET it with these headers besides what it takes to be let in; the answer whatever its status is.

        As `Net.open`, redirects followed. May be called by several tasks at once.
        """

    def renew(self) -> None:
        """What it knows of (a URL signed for a while, a token) was refused or failed: find it out anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """How a blob is cut: about `number` parts of `least` to `most` bytes, `parallel` of them under way at once."""

    least: int = 8 * _MB
    most: int = 64 * _MB
    number: int = 64
    parallel: int = 8

    def size(self, blob: int) -> int:
        """Bytes of a part of a blob."""
        return max(self.least, min(self.most, -(-blob // self.number)))


USUAL = Parts()


async def download(
    net: Net, origin: Origin, digest: Digest, size: int, library: Library, *, parts: Parts = USUAL
) -> AsyncGenerator[Progress, None]:
    """Bring the blob of that digest and size into `library.blobs`.

    Yields Progress('pulling <first 12 hex>', digest, total, completed), the last of them complete, and a status in
    words while another process or a host is waited for. A download of the same digest under way is joined. Left early,
    cancelled or killed, it leaves what came under `library.partials`, from where the next one goes on. Nothing is left
    there when it ends well or with DigestMismatch.

    SourceNotFound, AccessDenied, SourceAnswer, SourceUnreachable: as the host answers, after the tries that `net` has
    patience for. SourceError: another size than was said, or ranges that were not asked for. DigestMismatch: all bytes,
    and they are wrong. StoreError: the disk.
    """
    key = f"blob {digest.hex.lower()} {size}"
    work = library.transfers.join(key, lambda: _Download(net, origin, digest, size, library, parts).run())
    async with aclosing(work):
        async for progress in work:
            yield progress


class _RangesIgnored(Exception):
    """The server gave all when it was asked for a part."""


class _Download:
    def __init__(self, net: Net, origin: Origin, digest: Digest, size: int, library: Library, parts: Parts) -> None:
        self._net = net
        self._patience: Patience = net.patience
        self._origin = origin
        self._digest = digest
        self._size = size
        self._library = library
        self._parallel = parts.parallel
        self._partial = Partial(library.partials, digest, size, parts.size(size))
        self._mailbox = Mailbox()
        self._news = asyncio.Event()
        self._told = 0.0
        self._jobs: set[Future[Any]] = set()

    def run(self) -> AsyncGenerator[Progress, None]:
        return following(self._work, self._mailbox)

    async def _work(self) -> None:
        try:
            if await self._opened():
                await self._fill()
        finally:
            try:
                # Short: a thread writes or hashes one block, and files are closed behind it.
                await _to_its_end(asyncio.ensure_future(self._idle()))
            finally:
                self._partial.close()

    async def _idle(self) -> None:
        """Returns when no thread works for this download any more."""
        for job in [*self._jobs]:
            await gone(job)

    async def _opened(self) -> bool:
        """Whether there is anything to do, once no other process does it."""
        # Before the lock, which cannot be had on a full disk and would be waited for; and before a size that was made
        # up gets a file.
        await self._in_thread(lambda: self._check_space(self._size - self._partial.held))
        while not await self._in_thread(self._partial.try_open):
            self._mailbox.put(Progress("waiting for another process that fetches the same"))
            await asyncio.sleep(_LOCKED_SECONDS)
            if await in_hashing(
                lambda left: self._library.blobs.intact(self._digest, self._size, on_bytes=stop_when(left))
            ):
                return False
        return True

    async def _fill(self) -> None:
        resumed = self._partial.completed > 0
        self._tell(force=True)
        found = await self._bytes()
        if found.hex != self._digest.hex.lower() and resumed:
            # What an earlier run left may be at fault, after a crash of the machine: all of it once more.
            await self._in_thread(self._partial.restart)
            found = await self._bytes()
        if found.hex != self._digest.hex.lower():
            await self._in_thread(self._partial.remove)
            raise DigestMismatch(f"digest mismatch, file must be downloaded again: want {self._digest}, got {found}")
        await self._in_thread(self._store)
        self._tell(force=True)

    def _store(self) -> None:
        self._partial.sync()
        self._library.blobs.take(self._partial.path, self._digest)
        self._partial.remove()

    async def _bytes(self) -> Digest:
        """Get all that is missing; the digest of what is there then."""
        hashing, syncing = asyncio.create_task(self._hash()), asyncio.create_task(self._sync())
        getting = asyncio.create_task(self._get())
        try:
            _, found = await asyncio.gather(getting, hashing)
            return found
        finally:
            await _cancelled(getting, hashing, syncing)

    async def _get(self) -> None:
        try:
            await self._get_parts()
        except _RangesIgnored:
            await self._patiently(self._stream, lambda: 0)

    async def _get_parts(self) -> None:
        waiting = deque(self._partial.unfinished)

        async def work() -> None:
            while waiting:
                part = waiting.popleft()
                await self._patiently(partial(self._ask, part), partial(self._partial.done.__getitem__, part))

        tasks = [asyncio.create_task(work()) for _ in range(min(self._parallel, len(waiting)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _cancelled(*tasks)

    async def _patiently(self, attempt: Callable[[], Awaitable[None]], gained: Callable[[], int]) -> None:
        """Try until it is done. Failures that brought nothing to speak of are counted; each is followed by a pause."""
        failures, refused = 0, False
        enough = min(_MB, self._partial.part_size // 16)
        cause: SourceError
        while True:
            before = gained()
            try:
                await attempt()
                return
            except (AccessDenied, SourceNotFound) as error:
                if refused:
                    raise
                refused, cause = True, error
            except (SourceAnswer, SourceUnreachable) as error:
                cause = error
            failures = 1 if gained() - before >= enough else failures + 1
            seconds = self._patience.pause(failures, cause)
            self._origin.renew()
            self._mailbox.put(Progress(f"trying again in {seconds:.0f} s: {cause}"))
            await asyncio.sleep(seconds)

    async def _ask(self, part: int) -> None:
        """The rest of one part. A server may give less than it was asked for at once: it is asked for the next then."""
        first = part * self._partial.part_size
        end = first + self._partial.length(part)
        while (start := first + self._partial.done[part]) < end:
            await self._ask_range(start, end)
            if self._partial.done[part] + first - start < min(self._patience.least, end - start):
                raise SourceUnreachable(f"{self._origin.host} gives next to nothing at once")

    async def _ask_range(self, start: int, end: int) -> None:
        async with self._origin.open({"Range": f"bytes={start}-{end - 1}"}) as response:
            if response.status == 200:
                raise _RangesIgnored
            if response.status == 416:
                raise SourceError(f"{self._origin.host} has fewer bytes of {self._digest.short} than {self._size}")
            if response.status != 206:
                raise await self._net.refusal(response, f"{self._digest.short}")
            given = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if given is None or int(given[1]) != start or not start <= int(given[2]) < self._size:
                raise SourceError(f"{self._origin.host} gave another range than it was asked for")
            self._check_size(response, None if given[3] == "*" else int(given[3]))
            await self._receive(response, start, min(end, int(given[2]) + 1))

    async def _stream(self) -> None:
        """All of it from the start on. What is there is not written again."""
        async with self._origin.open({}) as response:
            if response.status != 200:
                raise await self._net.refusal(response, f"{self._digest.short}")
            self._check_size(response, response.content_length)
            await self._receive(response, 0, self._size, whole=True)

    def _check_size(self, response: aiohttp.ClientResponse, said: int | None) -> None:
        if compressed := coding(response.headers.get("Content-Encoding", "")):
            what = f"{self._origin.host} gives {self._digest.short} compressed ({compressed[:80]})"
            raise SourceError(f"{what}, which was not asked for")
        if said is not None and said != self._size:
            what = f"{self._digest.short} has {said} bytes by {self._origin.host} and {self._size} by its manifest"
            raise SourceError(what)

    async def _receive(self, response: aiohttp.ClientResponse, at: int, end: int, *, whole: bool = False) -> None:
        """The body up to `end`. A server that sends more is not listened to any longer; one that trickles neither."""
        block = bytearray()
        since, brought = time.monotonic(), 0
        written = since
        try:
            async for chunk in response.content.iter_any():
                now = time.monotonic()
                room = end - at - len(block)
                if whole and len(chunk) > room:
                    raise SourceError(f"{self._origin.host} sends more than the {self._size} bytes of its manifest")
                block += chunk if len(chunk) <= room else chunk[:room]
                brought += len(chunk)
                if len(block) >= _BLOCK or len(block) == end - at or now - written >= _BLOCK_SECONDS:
                    full, block, written = block, bytearray(), now
                    at = await self._write(at, full)
                    if at == end and not whole:
                        return
                if now - since >= self._patience.stall:
                    if brought < self._patience.least:
                        raise SourceUnreachable(f"{self._origin.host} sends next to nothing")
                    since, brought = now, 0
        finally:
            if block:
                at = await self._write(at, block)
        if at < end:
            raise SourceUnreachable(f"{self._origin.host} ended the answer before all bytes of it came")

    async def _write(self, at: int, block: bytearray) -> int:
        # To its end, even when this task is cancelled: what came is kept, and whoever writes next finds it there.
        try:
            await _to_its_end(asyncio.ensure_future(self._in_thread(lambda: self._partial.write(at, block))))
        finally:
            self._news.set()
            self._tell()
        return at + len(block)

    async def _hash(self) -> Digest:
        """Follows what is there from the start on, while the rest comes."""
        digest, at, buffer = hashlib.sha256(), 0, bytearray(_BLOCK)
        with self._partial.path.open("rb", buffering=0) as file:

            def update(end: int) -> None:
                nonlocal at
                view = memoryview(buffer)
                while at < end:
                    count = file.readinto(view[: min(len(view), end - at)])
                    if not count:
                        raise StoreError("a download was changed while it was under way")
                    digest.update(view[:count])
                    at += count

            while at < self._size:
                end = min(self._partial.frontier(at), at + _HASHED)
                if end - at < _BLOCK and end < self._size:
                    self._news.clear()
                    await self._news.wait()
                else:
                    await self._in_thread(partial(update, end))
        return Digest(digest.hexdigest())

    async def _sync(self) -> None:
        """Have what came on the disk while more comes, so that little is left to do at the end."""
        at = 0
        while at < self._size - _HASHED:
            end = self._partial.frontier(at)
            if end - at < _HASHED:
                await asyncio.sleep(_LOCKED_SECONDS)
                continue
            await self._in_thread(self._partial.sync)
            at = end

    def _check_space(self, needed: int) -> None:
        root = self._library.root
        check_room(next(path for path in (root, *root.absolute().parents) if path.exists()), max(0, needed))

    def _tell(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._told >= _EVERY_SECONDS:
            self._told = now
            status = f"pulling {self._digest.short}"
            self._mailbox.put(Progress(status, str(self._digest), self._size, self._partial.completed))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        job = in_downloads.begin(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return await asyncio.wrap_future(job)


async def _to_its_end(work: asyncio.Future[None]) -> None:
    """Returns, or raises, when the work has ended, not before: its own error, or that this task was cancelled."""
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:  # noqa: PERF203 - once
            cancelled = True
    error = work.exception()
    if cancelled:
        raise asyncio.CancelledError from error
    if error is not None:
        raise error


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
