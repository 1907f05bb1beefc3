"""A child of the cpu engine that has not been told yet what to load, and the one that is kept so.

Of the time from a request to its first token, half went into what a child imports. A child that has done so waits in
its first read: it takes some memory, and no time of a processor.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import psutil

from puna.engine.cpu.link import Link
from puna.engine.cpu.protocol import SOCKET
from puna.engine.process import ChildProcess, child_environment, private_directory, python

ROOM = 1 << 30
"""Bytes that the system must have free for a child to be kept in spare, of which it takes 25 MB."""


class Recruit:
    """A child and the connection that it makes. Who closes it ends both."""

    def __init__(self, child: ChildProcess, link: Link, environment: Mapping[str, str]) -> None:
        self.child = child
        self.link = link
        self._environment = environment

    @classmethod
    async def start(cls, module: str) -> Recruit:
        """It runs `module`. LoadFailed if it cannot be run."""
        directory = private_directory()
        link = Link()
        server = await asyncio.get_running_loop().create_unix_server(lambda: link, str(directory / SOCKET))
        link.connected.add_done_callback(lambda _: server.close())
        environment = child_environment(os.environ)
        try:
            child = await ChildProcess.start(python(module), directory)
        except BaseException:
            server.close()
            raise
        child.died.add_done_callback(lambda _: server.close())
        return cls(child, link, environment)

    @property
    def fit(self) -> bool:
        """It lives, and is what a child started now would be."""
        return self.child.running and self._environment == child_environment(os.environ)

    async def close(self) -> None:
        self.link.close()
        await self.child.close()


class Spare:
    """At most one Recruit that runs `module`, for whoever needs one next."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._kept: Recruit | None = None

    async def fill(self) -> None:
        """Have one, where there is memory for it. LoadFailed if it cannot be run."""
        kept = self._kept
        if kept is not None and not kept.fit:
            await self.close()
        if self._kept is None and psutil.virtual_memory().available > ROOM:
            self._kept = await Recruit.start(self._module)

    async def take(self) -> Recruit:
        """The one that is kept, or a new one. LoadFailed if that cannot be run."""
        kept, self._kept = self._kept, None
        if kept is not None and kept.fit:
            return kept
        if kept is not None:
            await kept.close()
        return await Recruit.start(self._module)

    async def close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.close()
