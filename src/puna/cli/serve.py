"""`serve` in the foreground: the only command that knows the server."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

import structlog

from puna import __version__
from puna.cli import servers
from puna.cli.connect import client, settings
from puna.client.errors import ServerUnreachable
from puna.errors import PunaError
from puna.server.log import configure_logging
from puna.server.run import AddressInUse, run
from puna.settings import Address, SettingError, unknown

_log = structlog.stdlib.get_logger(__name__)


def serve(log: Path | None) -> int:
    """Serves until it is told to stop; the process's exit status. `log`: instead of stderr."""
    values = settings()
    log = log.absolute() if log is not None else None
    try:
        configure_logging(debug=values.debug, file=log, form=values.log_format)
    except OSError as error:
        raise SettingError("--log", str(log), f"a file that can be written ({error.strerror or error})") from error
    for name in unknown(os.environ):
        _log.warning(f"{name} is no setting of this version: it has no effect")
    kept: list[Path] = []

    def ready(address: Address) -> None:
        server = servers.this_process(address, version=__version__, models=values.models, log=log)
        if (path := servers.record(server)) is not None:
            kept.append(path)
        else:
            print("Warning: there is no place to note that this server runs: --stop will not know it", file=sys.stderr)

    try:
        return run(values, on_ready=ready)
    except AddressInUse as error:
        raise asyncio.run(_taken(error.address)) from error
    finally:
        for path in kept:
            with suppress(OSError):
                path.unlink()


_SILENCE = 1.0
"""Seconds for which who has the address may keep silent. The user waits for the start of a server already."""


async def _taken(address: Address) -> PunaError:
    """Who has the address."""
    from puna.cli.background import ServerNotStarted, already_there
    from puna.occupant import process_on

    async with client(warn=False) as server:
        try:
            return ServerNotStarted(already_there(address, await server.identify(_SILENCE)))
        except ServerUnreachable:  # it listens, on another interface than we look at
            who = process_on(address.port) or "another program"
            return ServerNotStarted(
                f"port {address.port} is taken by {who}: stop it, or choose another port with --port or PUNA_HOST"
            )
        except PunaError as error:
            return error
