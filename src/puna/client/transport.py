"""How requests reach an address, whichever way they go: `threaded`, or `direct`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

from puna.client.response import Response
from puna.client.roundtrip import CONNECT_SECONDS, Body, Request
from puna.settings import Address


class Transport(ABC):
    """Requests to one address. `proxied`: through the proxy that the environment names, if it names one."""

    def __init__(self, address: Address, *, proxied: bool) -> None:
        self._url = address.url
        self._proxied = proxied

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Body | None = None,
        *,
        seconds: float | None = None,
    ) -> AbstractAsyncContextManager[Response]:
        """The answer; leaving the block ends the connection. Redirects are answers, too.

        `seconds`: for the connection, and a little more for the answer's head; without, a connection has 10 s, the
        answer as long as it takes. Raises NotConnected, Broken, TooSlow.
        """
        connect = seconds or CONNECT_SECONDS
        return self._answer(Request(method, self._url + path, headers, body, connect, self._proxied), seconds)

    @abstractmethod
    def _answer(self, request: Request, seconds: float | None) -> AbstractAsyncContextManager[Response]:
        """As `request`."""
