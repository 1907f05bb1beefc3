"""How a command finds its server: the address from the settings, a Client for it."""

from __future__ import annotations

import os

from puna.client import Client
from puna.settings import Settings


def settings() -> Settings:
    """From the environment; SettingError names the variable that cannot be read."""
    return Settings.from_environment(os.environ)


def client(values: Settings | None = None) -> Client:
    values = values or settings()
    return Client(values.address, api_key=values.api_keys[0] if values.api_keys else None)
