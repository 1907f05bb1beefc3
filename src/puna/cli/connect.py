"""How a command finds its server: the address from the settings, a Client for it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from puna import __version__
from puna.client.client import Client
from puna.client.errors import ServerUnreachable
from puna.settings import Settings


def settings() -> Settings:
    """From the environment; SettingError names the variable that cannot be read."""
    return Settings.from_environment(os.environ)


def client(values: Settings | None = None, *, warn: bool = True, direct: bool = False) -> Client:
    """`warn`: say on stderr when the server is another version than this command. `direct`: see Client."""
    values = values or settings()
    key = values.api_keys[0] if values.api_keys else None
    if not warn:
        return Client(values.address, api_key=key, direct=direct)
    return Client(values.address, api_key=key, on_identified=_compare, direct=direct)


def is_ours(server: Client, values: Settings) -> bool:
    """Whether a server at that address would be this machine's, so that its models directory is at hand without it."""
    return server.local and values.address.scheme == "http"


@asynccontextmanager
async def store(values: Settings | None = None) -> AsyncIterator[Client]:
    """A Client for what needs no more than the models directory: of the server, or, where none runs, of this process.

    Both answer with the same routes. Nothing is served here for an address that is not this machine's.
    """
    values = values or settings()
    async with client(values) as server:
        try:
            await server.identify()
        except ServerUnreachable:
            if not is_ours(server, values):
                raise
        else:
            yield server
            return
    from puna.cli.local import local_client

    async with local_client(values) as server:
        yield server


def _compare(version: str) -> None:
    if version != __version__:
        print(
            f"Warning: the running server is Puna {version}, this command is {__version__}: "
            "'puna serve --stop' ends it, if you started it",
            file=sys.stderr,
        )
