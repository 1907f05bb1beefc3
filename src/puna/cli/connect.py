"""How a command finds its server: the address from the settings, a Client for it."""

from __future__ import annotations

import os
import sys

from puna import __version__
from puna.client import Client
from puna.settings import Settings


def settings() -> Settings:
    """From the environment; SettingError names the variable that cannot be read."""
    return Settings.from_environment(os.environ)


def client(values: Settings | None = None, *, warn: bool = True) -> Client:
    """`warn`: say on stderr when the server is another version than this command."""
    values = values or settings()
    key = values.api_keys[0] if values.api_keys else None
    if not warn:
        return Client(values.address, api_key=key)
    return Client(values.address, api_key=key, on_identified=_compare)


def _compare(version: str) -> None:
    if version != __version__:
        print(
            f"Warning: the running server is Puna {version}, this command is {__version__}: "
            "'puna serve --stop' ends it, if you started it",
            file=sys.stderr,
        )
