"""`--host` and `--port`, which every command that speaks to a server has: they stand for PUNA_HOST, and win over it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import click

from puna.settings import ROWS, Address, parse_address

VARIABLE = "PUNA_HOST"


def addressed(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the two options. What they say is in the environment when it runs, for what it starts too."""

    @click.option("--host", metavar="HOST", help=f"The server's address, over {VARIABLE}.")
    @click.option("--port", metavar="PORT", type=click.IntRange(0, 65535), help="The server's port.")
    @functools.wraps(command)
    def with_address(*, host: str | None, port: int | None, **arguments: Any) -> None:
        if host is not None or port is not None:
            try:
                os.environ[VARIABLE] = address_text(host, port, os.environ)
            except ValueError as error:
                message = f"{host!r} is no address such as 127.0.0.1:11434"
                raise click.BadParameter(message, param_hint="--host") from error
        command(**arguments)

    return with_address


def address_text(host: str | None, port: int | None, environment: Mapping[str, str]) -> str:
    """PUNA_HOST of the two options, each over the environment. ValueError when `host` is no address."""
    if host is None:
        names = next(row.names for row in ROWS if row.field == "address")
        told = (environment.get(name, "").strip().strip("\"'") for name in names)
        host = next((text for text in told if text), Address().host)
    address = parse_address(host)
    if port is None:
        return host
    inner = f"[{address.host}]" if ":" in address.host else address.host
    return f"{address.scheme}://{inner}:{port}{address.path}"
