"""How asking a server fails."""

from __future__ import annotations

import errno
import http.client
import os
from typing import ClassVar

from puna.errors import Code, PunaError
from puna.settings import DEFAULT_PORT, Address


class ServerUnreachable(PunaError):
    """Nothing answers at `url`, or the connection broke."""

    default_code: ClassVar[Code | None] = "server_unreachable"

    def __init__(self, url: str, reason: str = "", *, local: bool = True) -> None:
        """`local`: it would be on this machine, where it can be started."""
        detail = f" ({reason})" if reason else ""
        cure = "run 'puna serve' to start it" if local else "is the address right, and does it run there?"
        super().__init__(f"could not connect to a Puna server at {url}{detail}, {cure}")
        self.url = url


class ConnectionLost(ServerUnreachable):
    """The connection broke in the middle of an answer."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url)
        self.message = f"the connection to {url} was lost in the middle of the answer ({reason})"


class NotPuna(PunaError):
    """Another program has the address: `what` answers at `url`, and it is no Puna."""

    default_code: ClassVar[Code | None] = "not_puna"

    def __init__(self, address: Address, what: str) -> None:
        other = address.port + 1 if address.port < 65535 else DEFAULT_PORT
        super().__init__(
            f"at {address.url} there is {what}, not Puna: stop it, or use another address for Puna, such as "
            f"'--port {other}' with every command or PUNA_HOST=127.0.0.1:{other} in the environment"
        )
        self.url = address.url
        self.what = what


class Vanished(NotPuna):
    """It closed the connection without a word."""


class ServerRefused(PunaError):
    """The server said no. `http_status` is 200 when it said so in the middle of a stream."""

    def __init__(self, http_status: int, message: str) -> None:
        super().__init__(message)
        self.http_status = http_status


class KeyRefused(ServerRefused):
    """The server has keys, and the command sent none, or another."""

    def __init__(self, url: str, *, sent: bool) -> None:
        problem = "does not accept this key" if sent else "asks for a key"
        super().__init__(401, f"the Puna server at {url} {problem}: set PUNA_API_KEYS to one of its keys")


def reason_of(error: BaseException) -> str:
    """What a NotConnected or Broken came of, in a few words."""
    cause = error.__cause__ or error
    if isinstance(cause, http.client.RemoteDisconnected):
        return "it closed the connection"
    if isinstance(cause, http.client.IncompleteRead):
        return "it ended early"
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno in errno.errorcode:
        return os.strerror(cause.errno).lower()
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return text or type(cause).__name__
