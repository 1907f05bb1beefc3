"""`pull` and `push`."""

from __future__ import annotations

from puna.cli.connect import store
from puna.cli.progress import error_console, follow


async def pull(model: str, *, insecure: bool) -> None:
    async with store() as server:
        await follow(server.pull(model, insecure=insecure), error_console())


async def push(model: str, *, insecure: bool) -> None:
    async with store() as server:
        await follow(server.push(model, insecure=insecure), error_console())
