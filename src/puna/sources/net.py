"""Net: the one way out to hosts that models come from.

What holds for every request: it reaches no further than its `Reach`, checked on the very address that is connected to;
redirects are followed here, so that what authorizes a request never leaves its host, and lead nowhere less public than
where they came from; bodies are bounded; a connection that brings nothing is given up. Proxies and certificates come
from the environment: HTTP_PROXY, HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR, else the system's trust.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import platform
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from puna import __version__
from puna.addresses import PrivateAddress, Reach, check_reach, needed
from puna.errors import AccessDenied, Forbidden, SourceAnswer, SourceError, SourceNotFound, SourceUnreachable
from puna.sources.coding import decoded
from puna.sources.source import Terms

T = TypeVar("T")

MAX_REDIRECTS = 10
MAX_ERROR_BYTES = 8 * 1024
"""So much of an answer that is an error is read, and a part of that is told."""
_TOLD = 300
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same may be asked again."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUFFER = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long is waited, in seconds, and how often is tried.

    `stall`: in each such time a body must bring `least` bytes. `tries`: failures in a row, each followed by twice the
    pause of the one before, from `first` up to `most`; a server that says when to come again is believed up to
    `longest`.
    """

    connect: float = 15.0
    stall: float = 30.0
    least: int = 4096
    tries: int = 6
    first: float = 1.0
    most: float = 16.0
    longest: float = 60.0

    def pause(self, failures: int, error: SourceError) -> float:
        """Seconds before the next try, after so many failures in a row; raises `error` where there is to be none."""
        asked = (error.retry_after if isinstance(error, SourceAnswer) else None) or 0.0
        if isinstance(error, SourceAnswer) and error.answer not in RETRIED:
            raise error
        if failures >= self.tries or asked > self.longest:
            later = f" (it asks to come again in {asked:.0f} s)" if asked else ""
            error.message = f"max retries exceeded: {error.message}{later}"
            raise error
        return float(max(asked, min(self.first * 2 ** (failures - 1), self.most)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Destinations:
    """Which hosts may be called, from settings.

    `allowed`: patterns ('registry.example', 'registry.example:5000', '*.example', '*'); empty: any, and no private
    address. `configured`: hosts that settings name elsewhere (mirrors): called wherever they are.
    """

    allowed: tuple[str, ...] = ()
    configured: frozenset[str] = frozenset()

    def permits(self, host: str) -> bool:
        """Whether a Name may have that host (`host[:port]`)."""
        return not self.allowed or self._listed(host, self.allowed)

    def reach(self, host: str, terms: Terms) -> Reach:
        """How far a request for a Name on that host may go.

        A host that settings name is the administrator's choice. A caller on this machine who writes a port, or asks for
        plain http, means a host near him; nobody means an address of a link.
        """
        if host.lower() in self.configured or self._listed(host, [one for one in self.allowed if one != "*"]):
            return Reach.ANY
        near = terms.insecure or ":" in host or host.lower() == "localhost"
        return Reach.LOOPBACK if terms.local and near else Reach.PUBLIC

    @property
    def named(self) -> tuple[str, ...]:
        """The hosts that are allowed by their names, not by a pattern."""
        return tuple(one.lower() for one in self.allowed if not set(one) & set("*?["))

    @staticmethod
    def _listed(host: str, patterns: Sequence[str]) -> bool:
        whole = host.lower()
        return any(fnmatchcase(one, pattern.lower()) for pattern in patterns for one in (whole, _hostname(whole)))


def _hostname(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


@dataclass(slots=True)
class Net:
    """Connections of one server, made when first needed, closed by `close`. One event loop only."""

    destinations: Destinations = field(default_factory=Destinations)
    patience: Patience = field(default_factory=Patience)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _sessions: dict[Reach, aiohttp.ClientSession] = field(default_factory=dict)
    _trust: ssl.SSLContext | None = None
    _resolved: dict[str, Reach] = field(default_factory=dict)

    async def close(self) -> None:
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await session.close()

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: URL,
        *,
        reach: Reach,
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
        data: Any = None,
        follow: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, and its answer whatever its status is, its body unread.

        `authorization` goes to the URL's own host and port over the same scheme only. Redirects are followed (`follow`)
        as long as they lead to http or https, not from https to http, and nowhere less public than where they came
        from. SourceUnreachable: no connection, or it broke, also in the body of `async with`. Forbidden: an address
        out of reach. SourceError: too many redirects.
        """
        origin = url.origin()
        for _ in range(MAX_REDIRECTS + 1):
            sent = dict(headers or {})
            if authorization is not None and url.origin() == origin:
                sent["Authorization"] = authorization
            async with self._once(method, url, reach, sent, data) as response:
                if not (follow and response.status in _REDIRECTS and "location" in response.headers):
                    yield response
                    return
                url, reach = self._next(response, reach)
        raise SourceError(f"maximum redirects exceeded ({MAX_REDIRECTS}) for {origin}")

    async def patiently(self, attempt: Callable[[], Awaitable[T]], *, reached: bool = True) -> T:
        """Try a small request again while that may help. `reached`: also when there is no connection."""
        failures = 0
        while True:
            try:
                return await attempt()
            except (SourceUnreachable, SourceAnswer) as error:  # noqa: PERF203 - it is a network
                if isinstance(error, SourceUnreachable) and not reached:
                    raise
                failures += 1
                await asyncio.sleep(self.patience.pause(failures, error))

    async def read(self, response: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
        """A body of `limit` bytes at most, its coding taken off, or SourceError. `what`: the body in words."""
        try:
            # All of it in the time that a stalled one is given: it is small.
            data = await asyncio.wait_for(_most(response, limit + 1), self.patience.stall)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise self._broken(response.url, error) from error
        told = f"{what} of {response.url.host}"
        if len(data) <= limit:
            data = decoded(data, response.headers.get("Content-Encoding", ""), limit, told)
        if len(data) > limit:
            raise SourceError(f"{told} is larger than the {limit} bytes it may have")
        return data

    async def refusal(self, response: aiohttp.ClientResponse, what: str) -> SourceError:
        """An answer that is an error, as ours. `what`: what was asked for, in words."""
        text = _reason(await self._start(response))
        match response.status:
            case 404:
                return SourceNotFound(f"{what}: file does not exist", param="model")
            case 401 | 403:
                told = f": {text}" if text else ""
                return AccessDenied(f"{what}: unauthorized: access denied by {response.url.authority}{told}")
            case status:
                said = f"{what}: {status}: {text or response.reason or 'no reason told'}"
                return SourceAnswer(said, status, retry_after(response.headers))

    async def _start(self, response: aiohttp.ClientResponse) -> str:
        try:
            data = await asyncio.wait_for(_most(response, MAX_ERROR_BYTES), self.patience.stall)
            plain = decoded(data, response.headers.get("Content-Encoding", ""), MAX_ERROR_BYTES, "the answer")
            return plain.decode("utf-8", "replace")
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, SourceError):
            return ""

    @asynccontextmanager
    async def _once(
        self, method: str, url: URL, reach: Reach, headers: Mapping[str, str], data: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if url.scheme not in {"http", "https"} or not url.host:
            raise SourceError(f"{url} is no http(s) URL")
        proxy = self.proxy(url)
        if proxy is not None or _is_address(url.host):
            # What a proxy resolves is its own matter; an address says itself where it leads.
            self._check(url, url.host if _is_address(url.host) else "8.8.8.8", reach)
        try:
            async with self._session(Reach.ANY if proxy is not None else reach).request(
                method, url, headers=headers, data=data, proxy=proxy, allow_redirects=False
            ) as response:
                yield response
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
            if isinstance(cause, PrivateAddress):
                raise self._private(url, str(cause)) from error
            raise self._broken(url, error, proxy) from error

    def _next(self, response: aiohttp.ClientResponse, reach: Reach) -> tuple[URL, Reach]:
        """Where a redirect leads, and how far that may be."""
        try:
            target = response.url.join(URL(response.headers["location"]))
            host = target.authority.lower()
        except ValueError as error:
            raise SourceError(f"{response.url.host} redirects to what is no URL") from error
        if target.scheme not in {"http", "https"} or not target.host:
            raise SourceError(f"{response.url.host} redirects to what is no http(s) URL")
        if response.url.scheme == "https" and target.scheme != "https":
            raise SourceError(f"{response.url.host} redirects from https to {target.scheme}, which is refused")
        if target.origin() == response.url.origin():
            return target, reach
        if host in self.destinations.configured:
            return target, Reach.ANY
        return target, min(reach, self._from(response))

    def _from(self, response: aiohttp.ClientResponse) -> Reach:
        """How far away who answered is. An answer without a body has given its connection back already.

        A connection to a proxy says nothing of that.
        """
        connection = response.connection if self.proxy(response.url) is None else None
        transport = None if connection is None else connection.transport
        peer = None if transport is None else transport.get_extra_info("peername")
        return needed(str(peer[0])) if peer else self.distance(response.url)

    def distance(self, url: URL) -> Reach:
        """How far away a host is that was called before, seen from here; that of one behind a proxy is not known."""
        host = url.host or ""
        if _is_address(host):
            return needed(host)
        return Reach.PUBLIC if self.proxy(url) is not None else self._resolved.get(host, Reach.PUBLIC)

    def proxy(self, url: URL) -> URL | None:
        """The proxy for a URL, by the environment; never for this machine itself. SourceError for one of a kind
        that is not spoken to.
        """
        host = (url.host or "").lower()
        found = self._variable(f"{url.scheme}_proxy")
        if not found or host == "localhost" or (_is_address(host) and needed(host) is Reach.LOOPBACK):
            return None
        if any(_excepted(item.strip().lower(), host, url.port) for item in self._variable("no_proxy").split(",")):
            return None
        proxy = URL(found if "://" in found else f"http://{found}")
        if proxy.scheme not in {"http", "https"}:
            raise SourceError(f"a proxy of the kind {proxy.scheme} is not supported: {proxy.with_user(None)}")
        return proxy

    def _variable(self, name: str) -> str:
        return self.environment.get(name, "") or self.environment.get(name.upper(), "")

    def _session(self, reach: Reach) -> aiohttp.ClientSession:
        session = self._sessions.get(reach)
        if session is None:
            session = self._sessions[reach] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._trusted(),
                    resolver=_Resolver(reach, self._resolved),
                    limit=0,
                    use_dns_cache=False,
                    socket_factory=lambda target: _socket(target, reach),
                ),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self.patience.connect, sock_read=self.patience.stall
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                auto_decompress=False,
                read_bufsize=_BUFFER,
                max_line_size=16 * 1024,
                trust_env=False,
            )
        return session

    def _trusted(self) -> ssl.SSLContext:
        if self._trust is None:
            # OpenSSL takes a file that is not there for an empty one, and then nothing is trusted.
            for name, there in (("SSL_CERT_FILE", Path.is_file), ("SSL_CERT_DIR", Path.is_dir)):
                value = self.environment.get(name)
                if value and not any(there(Path(one)) for one in value.split(os.pathsep)):
                    raise SourceError(f"{name}={value!r} is not there: no certificate can be checked")
            self._trust = ssl.create_default_context()
        return self._trust

    def _check(self, url: URL, address: str, reach: Reach) -> None:
        try:
            check_reach(address, reach)
        except PrivateAddress as error:
            raise self._private(url, str(error)) from error

    @staticmethod
    def _private(url: URL, cause: str) -> Forbidden:
        return Forbidden(
            f"{url.host} is not called: {cause.partition('] ')[2] or cause}. To allow it, list '{url.authority}' in "
            "PUNA_REGISTRIES, where the server runs (with '*' beside it to allow all others too)",
            code="private_address",
        )

    @staticmethod
    def _broken(url: URL, error: BaseException, proxy: URL | None = None) -> SourceUnreachable:
        if isinstance(error, asyncio.TimeoutError):
            return SourceUnreachable(f"{url.host} does not answer, or its answer stalled")
        if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | ConnectionResetError):
            return SourceUnreachable(f"{url.authority} broke off the connection")
        if proxy is not None and isinstance(error, aiohttp.ClientHttpProxyError):
            # Its own words hold the proxy's URL, with the password in it.
            return SourceUnreachable(
                f"{url.authority} cannot be reached: the proxy {_place(proxy)} says {error.status} {error.message}"
            )
        if proxy is not None and isinstance(error, aiohttp.ClientProxyConnectionError):
            return SourceUnreachable(
                f"{url.authority} cannot be reached: the proxy {_place(proxy)} cannot be reached: {_cause(error)}"
            )
        cause = _cause(error)
        hint = ""
        if isinstance(error, aiohttp.ClientSSLError) and "WRONG_VERSION_NUMBER" in cause.upper():
            hint = ". It speaks plain http: use --insecure if you trust the network"
        elif isinstance(error, aiohttp.ClientConnectorCertificateError):
            hint = ". SSL_CERT_FILE names the certificates that are trusted"
        return SourceUnreachable(f"{url.authority} cannot be reached: {cause}{hint}")


def _place(url: URL) -> str:
    """Host and port, without the name and the password that may stand before them."""
    return url.with_user(None).authority


def _cause(error: BaseException) -> str:
    """Why, without the host that is named already. aiohttp's own words name it again, and "ssl" where there is none."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error
        # Of a name that cannot be resolved the number is none of the system's errors.
        if isinstance(reason, ssl.SSLError) or not reason.errno or reason.errno < 0:
            return reason.strerror or str(reason)
        return os.strerror(reason.errno)
    return str(error) or type(error).__name__


USER_AGENT = f"ollama/0 ({platform.machine()} {sys.platform}) puna/{__version__}"
"""Some registries give their models only to what calls itself so."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait; None where it does not say, or says a date."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 8 else None


def _reason(body: str) -> str:
    """What the body of an error says: a registry's own errors (`{"errors": [{"message"}]}`), or all of a plain text."""
    try:
        shape = json.loads(body)
    except (ValueError, RecursionError):
        shape = None
    errors = shape.get("errors") if isinstance(shape, dict) else None
    texts = [one.get("message") or one.get("code") for one in errors or () if isinstance(one, dict)]
    text = "; ".join(one for one in texts if isinstance(one, str)) if isinstance(errors, list) else ""
    if not text and body.lstrip()[:1] == "<":
        return ""  # a page for people, of a proxy or a login
    return " ".join("".join(one if one.isprintable() else " " for one in text or body).split())[:_TOLD]


async def _most(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """A body, or its first `limit` bytes and perhaps some more."""
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) >= limit:
            break
    return bytes(data)


class _Resolver(AbstractResolver):
    """Gives the connector those addresses of a host that are in reach. PrivateAddress when none is."""

    def __init__(self, reach: Reach, resolved: dict[str, Reach]) -> None:
        """`resolved`: takes note of the most public address of each host."""
        self._inner = ThreadedResolver()
        self._reach = reach
        self._resolved = resolved

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        kept = [one for one in found if needed(one["host"]) <= self._reach]
        for one in found if not kept else ():
            check_reach(one["host"], self._reach)
        self._resolved[host] = min((needed(one["host"]) for one in kept), default=Reach.PUBLIC)
        return kept

    async def close(self) -> None:
        await self._inner.close()


def _socket(target: AddrInfoType, reach: Reach) -> socket.socket:
    """The socket of one connection: the last look, at the very address."""
    family, kind, protocol, _, address = target
    check_reach(str(address[0]), reach)
    return socket.socket(family=family, type=kind, proto=protocol)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _excepted(item: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY has a host: '*', a name and what is below it, a port with it, a network."""
    if item == "*":
        return True
    if "/" in item and _is_address(host):
        with suppress(ValueError):
            return ipaddress.ip_address(host) in ipaddress.ip_network(item, strict=False)
    name, colon, given = item.rpartition(":")
    if colon and given.isdigit() and _is_address(item) is False:
        if int(given) != port:
            return False
        item = name
    item = item.removeprefix("*").removeprefix(".")
    return bool(item) and (host == item or host.endswith(f".{item}"))
