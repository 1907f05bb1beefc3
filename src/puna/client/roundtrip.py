"""One HTTP/1.1 request and its answer over the standard library, by calls that wait.

The command uses this and not aiohttp, which takes as long to import as a whole `puna list` may.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

CONNECT_SECONDS = 10.0
"""For a connection, where nothing else is asked for."""

_PIECE = 64 * 1024


class NotConnected(Exception):
    """No connection came about; the cause is chained."""


class Broken(Exception):
    """The connection broke, or the other side does not speak HTTP; the cause is chained."""


class TooSlow(Exception):
    """What was waited for did not come in the time that it had."""


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent. `pieces` are drawn where the request is made; `length`: their bytes together."""

    pieces: Iterable[bytes]
    length: int

    @classmethod
    def of(cls, data: bytes) -> Body:
        return cls((data,) if data else (), len(data))


@dataclass(frozen=True, slots=True)
class Request:
    """`connect_seconds`: for the connection. `proxied`: through the proxy that the environment names, if it does."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Body | None
    connect_seconds: float
    proxied: bool


class RoundTrip:
    """A request on its way: `connect`, `send`, `head`, `pieces`, `close`, in this order. `abandon` from any thread."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._connection, self._target, self._more = _connection(request)
        self._socket: socket.socket | None = None
        self.abandoned = False

    def connect(self) -> None:
        """Raises NotConnected."""
        try:
            self._connection.connect()
        except (OSError, http.client.HTTPException) as error:
            raise _caused(NotConnected(), error) from error
        # The connection forgets it once the head of an answer that ends with it has come.
        self._socket = self._connection.sock
        self._socket.settimeout(None)

    def send(self) -> None:
        """Raises Broken."""
        request, connection = self._request, self._connection
        headers = {"connection": "close", **self._more, **request.headers}
        if request.body is not None:
            headers["content-length"] = str(request.body.length)
        try:
            connection.putrequest(request.method, self._target)
            for name, value in headers.items():
                connection.putheader(name, value.encode())
            connection.endheaders()
            # Whoever refuses a long body may answer and close before all of it is sent: the answer counts.
            with suppress(BrokenPipeError, ConnectionResetError):
                for piece in request.body.pieces if request.body is not None else ():
                    if self.abandoned:
                        return
                    connection.send(piece)
        except (OSError, http.client.HTTPException) as error:
            raise _caused(Broken(), error) from error

    def head(self) -> http.client.HTTPResponse:
        """Raises Broken."""
        try:
            return self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise _caused(Broken(), error) from error

    def pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """The body as it arrives. Raises Broken when it ends too early."""
        if self._request.method == "HEAD":
            return
        try:
            while data := response.read1(_PIECE):
                yield data
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
        except (OSError, http.client.HTTPException) as error:
            raise _caused(Broken(), error) from error

    def abandon(self) -> None:
        """Nobody waits for the answer any more: whatever waits for it ends."""
        self.abandoned = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.close()


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def _connection(request: Request) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """The connection to make, what to ask on it, and headers that belong to it."""
    url, seconds = request.url, request.connect_seconds
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    target = parts.path or "/"
    proxy = _proxy(parts.scheme, host) if request.proxied else None
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    if proxy is None:
        return kind(host, port, timeout=seconds), target, {}
    connection = kind(proxy.host, proxy.port, timeout=seconds)
    if parts.scheme == "https":
        connection.set_tunnel(host, port, proxy.headers)
        return connection, target, {}
    return connection, url, proxy.headers


@dataclass(frozen=True, slots=True)
class _Proxy:
    host: str
    port: int
    headers: dict[str, str]


def _proxy(scheme: str, host: str) -> _Proxy | None:
    """What the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY) or the system says."""
    from urllib.request import getproxies, proxy_bypass

    text = getproxies().get(scheme)
    if not text or proxy_bypass(host):
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    headers = {}
    if parts.username is not None:
        import base64

        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["proxy-authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    return _Proxy(parts.hostname or "", parts.port or 80, headers)
