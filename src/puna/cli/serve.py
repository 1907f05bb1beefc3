"""`serve`: the only command that knows the server."""

from __future__ import annotations

from puna.cli.connect import settings
from puna.server.run import run


def serve() -> int:
    """Serves until it is told to stop; the process's exit status."""
    return run(settings())
