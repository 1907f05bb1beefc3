"""`pull` and `push`."""

from __future__ import annotations

from puna.cli.connect import store
from puna.cli.progress import error_console, follow, stopping


async def pull(model: str, *, insecure: bool) -> None:
    console = error_console()
    async with store() as server:
        with stopping(pull_stopped(model), console):
            await follow(server.pull(model, insecure=insecure), console)


async def push(model: str, *, insecure: bool) -> None:
    console = error_console()
    async with store() as server:
        with stopping(f"Stopped before all of {model} was sent: 'puna push {model}' begins again.", console):
            await follow(server.push(model, insecure=insecure), console)


def pull_stopped(model: str) -> str:
    return f"Stopped before {model} was fetched: nothing half-done is listed, 'puna pull {model}' begins again."
