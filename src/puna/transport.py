"""One HTTP/1.1 request and its answer, over the standard library; each in a thread of its own, read from the loop.

The command uses this and not aiohttp, which takes as long to import as a whole `puna list` may. Threads are daemons:
one that waits for a network does not keep the process when its user has had enough.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from puna.settings import Address

_CONNECT_SECONDS = 10.0
_GRACE = 0.25
_PIECE = 64 * 1024


class NotConnected(Exception):
    """No connection came about; the cause is chained."""


class Broken(Exception):
    """The connection broke, or the other side does not speak HTTP; the cause is chained."""


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent. `pieces` are drawn in the request's thread; `length`: their bytes together."""

    pieces: Iterable[bytes]
    length: int

    @classmethod
    def of(cls, data: bytes) -> Body:
        return cls((data,) if data else (), len(data))


_Event: TypeAlias = "http.client.HTTPResponse | bytes | Exception | None"
"""The answer's head, then its pieces, None at its end; or what went wrong."""


@dataclass(slots=True)
class Response:
    """An answer whose head has come. Names of headers in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    _events: asyncio.Queue[_Event]
    _ended: bool = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Broken when it ends too early."""
        while not self._ended:
            event = await self._events.get()
            if isinstance(event, bytes):
                yield event
                continue
            self._ended = True
            if isinstance(event, Exception):
                raise event

    async def read(self, limit: int | None = None) -> bytes:
        """The whole body, or not much more of it than `limit` bytes."""
        data = bytearray()
        async for piece in self.pieces():
            data += piece
            if limit is not None and len(data) >= limit:
                break
        return bytes(data)


class Transport:
    """Requests to one address. `proxied`: through the proxy that the environment names, if it names one."""

    def __init__(self, address: Address, *, proxied: bool) -> None:
        self._url = address.url
        self._proxied = proxied

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Body | None = None,
        *,
        seconds: float | None = None,
    ) -> AsyncIterator[Response]:
        """The answer; leaving the block ends the connection. Redirects are answers, too.

        `seconds`: for the connection, and a little more for the answer's head; without, a connection has 10 s, the
        answer as long as it takes. Raises NotConnected, Broken, asyncio.TimeoutError.
        """
        work = _Work(method, self._url + path, dict(headers), body, seconds or _CONNECT_SECONDS, self._proxied)
        threading.Thread(target=work.run, name="http", daemon=True).start()
        try:
            # A little longer than the connection may take, which so tells of itself.
            head = await asyncio.wait_for(work.events.get(), None if seconds is None else seconds + _GRACE)
            if isinstance(head, Exception):
                raise head
            assert isinstance(head, http.client.HTTPResponse)
            headers = {name.lower(): value for name, value in head.getheaders()}
            yield Response(head.status, head.reason, headers, work.events)
        finally:
            work.abandon()


@dataclass(slots=True)
class _Work:
    """The thread's side of a request."""

    method: str
    url: str
    headers: dict[str, str]
    body: Body | None
    connect_seconds: float
    proxied: bool
    events: asyncio.Queue[_Event] = field(default_factory=asyncio.Queue)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _connection: http.client.HTTPConnection | None = None
    _socket: socket.socket | None = None
    _abandoned: bool = False

    def run(self) -> None:
        try:
            self._exchange()
        except (NotConnected, Broken) as error:
            self._post(error)
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is awaited
            self._post(error)
        finally:
            if self._connection is not None:
                self._connection.close()

    def abandon(self) -> None:
        """From the loop: nobody waits for the answer any more."""
        self._abandoned = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _exchange(self) -> None:
        connection, target, more = _connection(self.url, self.connect_seconds, self.proxied)
        self._connection = connection
        try:
            connection.connect()
        except (OSError, http.client.HTTPException) as error:
            raise _caused(NotConnected(), error) from error
        # The connection forgets it once the head of an answer that ends with it has come.
        self._socket = connection.sock
        self._socket.settimeout(None)
        if self._abandoned:
            return
        try:
            self._send(connection, target, more)
            response = connection.getresponse()
            self._post(response)
            if self.method != "HEAD":
                self._receive(response)
        except (OSError, http.client.HTTPException) as error:
            raise _caused(Broken(), error) from error
        self._post(None)

    def _send(self, connection: http.client.HTTPConnection, target: str, more: Mapping[str, str]) -> None:
        connection.putrequest(self.method, target)
        headers = {"connection": "close", **more, **self.headers}
        if self.body is not None:
            headers["content-length"] = str(self.body.length)
        for name, value in headers.items():
            connection.putheader(name, value.encode())
        connection.endheaders()
        # Whoever refuses a long body may answer and close before all of it is sent: the answer counts.
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in self.body.pieces if self.body is not None else ():
                if self._abandoned:
                    return
                connection.send(piece)

    def _receive(self, response: http.client.HTTPResponse) -> None:
        while data := response.read1(_PIECE):
            self._post(data)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)

    def _post(self, event: _Event) -> None:
        if not self._abandoned:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self.events.put_nowait, event)


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def _connection(url: str, seconds: float, proxied: bool) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """The connection to make, what to ask on it, and headers that belong to it."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    target = parts.path or "/"
    proxy = _proxy(parts.scheme, host) if proxied else None
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
