"""A command without a server: the server's own routes, in this process, for as long as the command runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from puna.client.client import Client
from puna.server.local import local_server
from puna.settings import Settings


@asynccontextmanager
async def local_client(settings: Settings) -> AsyncIterator[Client]:
    async with local_server(settings) as own, Client(own.address, api_key=own.api_keys[0]) as client:
        yield client
