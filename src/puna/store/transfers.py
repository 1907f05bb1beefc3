"""Transfers: long work of one store that several callers can follow, done once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from puna.types import Progress


class Mailbox:
    """Progress for one reader. A slow reader skips steps of the same status, never a status. One event loop only."""

    def __init__(self) -> None:
        self._items: deque[Progress] = deque()
        self._closed = False
        self._news = asyncio.Event()

    def put(self, item: Progress) -> None:
        last = self._items[-1] if self._items else None
        if last is not None and (last.status, last.digest) == (item.status, item.digest):
            self._items.pop()
        self._items.append(item)
        self._news.set()

    def close(self) -> None:
        self._closed = True
        self._news.set()

    async def __aiter__(self) -> AsyncGenerator[Progress, None]:
        """Ends once it is closed and empty."""
        while self._items or not self._closed:
            if not self._items:
                self._news.clear()
                await self._news.wait()
            if self._items:
                yield self._items.popleft()


async def following(
    work: Callable[[], Coroutine[Any, Any, object]], mailbox: Mailbox
) -> AsyncGenerator[Progress, None]:
    """What `work` puts into the mailbox, until it ends; its error is raised. Left early, the work is ended first."""
    task = asyncio.create_task(work())
    task.add_done_callback(lambda _: mailbox.close())
    try:
        async for progress in mailbox:
            yield progress
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Transfers:
    """Work in progress by key. It goes on while somebody follows it and is cancelled when the last one leaves."""

    def __init__(self) -> None:
        self._running: dict[str, _Transfer] = {}

    async def join(self, key: str, start: Callable[[], AsyncGenerator[Progress, None]]) -> AsyncGenerator[Progress]:
        """Follow the work under `key`, starting it if nobody has. Ends as it ends; its error is raised to all."""
        transfer = self._running.get(key)
        if transfer is None:
            transfer = self._running[key] = _Transfer(start())
        mailbox = transfer.follow()
        try:
            async for progress in mailbox:
                yield progress
            await asyncio.shield(transfer.task)
        finally:
            if transfer.leave(mailbox) or transfer.task.done():
                self._forget(key, transfer)
                await transfer.cancel()

    def _forget(self, key: str, transfer: _Transfer) -> None:
        if self._running.get(key) is transfer:
            del self._running[key]


class _Transfer:
    def __init__(self, work: AsyncGenerator[Progress, None]) -> None:
        self._readers: list[Mailbox] = []
        self._last: Progress | None = None
        self.task = asyncio.create_task(self._run(work))

    def follow(self) -> Mailbox:
        mailbox = Mailbox()
        if self._last is not None:
            mailbox.put(self._last)
        if self.task.done():
            mailbox.close()
        self._readers.append(mailbox)
        return mailbox

    def leave(self, mailbox: Mailbox) -> bool:
        """Whether nobody follows any more."""
        self._readers.remove(mailbox)
        return not self._readers

    async def cancel(self) -> None:
        """Returns when the work has ended."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self, work: AsyncGenerator[Progress, None]) -> None:
        try:
            async with aclosing(work):
                async for progress in work:
                    self._last = progress
                    for reader in self._readers:
                        reader.put(progress)
        finally:
            for reader in self._readers:
                reader.close()
