"""The server's routes for one command that needs the store and finds no server: gone when the command is done."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from puna.server.engines import engines, stand_in_for
from puna.server.log import configure_logging
from puna.server.run import Server, bound, listening, parts
from puna.settings import Address, Settings


@asynccontextmanager
async def local_server(settings: Settings) -> AsyncIterator[Settings]:
    """The settings by which a client reaches it: a free port of loopback, and a key that nobody else knows.

    What a server would log as a warning goes to stderr.
    """
    configure_logging(debug=settings.debug, quiet=not settings.debug)
    own = replace(settings, address=Address("127.0.0.1", 0), api_keys=(secrets.token_urlsafe(32),))
    found = engines(own)
    with listening(own.address) as listener:
        async with parts(own, found, stand_in_for(found), prune=False) as services:
            ready = asyncio.Event()
            server = Server(services, on_ready=ready.set, works=False)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            reached = replace(own, address=bound(listener, own.address))
            try:
                await ready.wait()
                yield reached
            finally:
                # Whoever used it has his answers, or wants none of them any more.
                server.stop()
                server.stop()
                await serving
