"""The models directory of this machine, for commands that work on it themselves: no server takes part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from puna.cli import servers
from puna.cli.connect import client, is_ours, settings
from puna.errors import InvalidRequest

if TYPE_CHECKING:
    from puna.store.library import Library


def library() -> Library:
    """The store that the settings name.

    InvalidRequest when the server of these settings has another: on another machine, or started with other settings.
    """
    from puna.store.library import Library

    values = settings()
    if not is_ours(client(values), values):
        raise InvalidRequest(
            f"this works on the models directory of this machine, not on the server at {values.address.url}: "
            "run it there, or unset PUNA_HOST"
        )
    server = servers.at(values.address)
    if server is not None and server.models != str(values.models):
        raise InvalidRequest(
            f"the server at {values.address.url} has its models in {server.models}, this command in {values.models}: "
            "let PUNA_MODELS name the one that is meant, or stop the server"
        )
    return Library.open(values.models, read_only=values.read_only_models, no_prune=values.no_prune)
