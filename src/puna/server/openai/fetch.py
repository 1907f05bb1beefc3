"""Remote images, fetched within limits. Imported only when some image is remote: its HTTP client takes a while to load.

A server that fetches what a stranger names can be made to call the machines around it. So: http and https only, public
addresses only (unless the settings say otherwise), checked on the very addresses that are then connected to, at every
redirect; no proxies, no cookies, no credentials; limits of size and time.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Iterable, Iterator

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from puna.errors import InvalidRequest
from puna.server.media import MAX_IMAGE, check_image

FETCH_SECONDS = 15.0
MAX_REDIRECTS = 3


class _PrivateAddress(OSError):
    """A name that leads to an address which is not public."""


async def fetch_image(url: str, param: str, *, private: bool = False) -> bytes:
    """The image at an http(s) URL, or InvalidRequest. `private`: addresses of the local network may be called."""
    try:
        async with _session(private) as session:
            data = await _follow(session, URL(url))
        return await asyncio.to_thread(check_image, data, param)
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
        cause = str(error) or type(error).__name__
        raise InvalidRequest(
            f"Invalid '{param}': the image could not be fetched: {cause}.", param=param, code="invalid_image_url"
        ) from error


def _session(private: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=_PublicResolver(private),
            use_dns_cache=False,
            force_close=True,
            socket_factory=None if private else _public_socket,
        ),
        timeout=aiohttp.ClientTimeout(total=FETCH_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


async def _follow(session: aiohttp.ClientSession, url: URL) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError(f"it is no http(s) URL: {url}")
        async with session.get(url.with_user(None), allow_redirects=False) as response:
            if response.status in {301, 302, 303, 307, 308} and "location" in response.headers:
                url = url.join(URL(response.headers["location"]))
                continue
            if response.status != 200:
                raise ValueError(f"the server answered {response.status}")
            return await _read(response)
    raise ValueError(f"more than {MAX_REDIRECTS} redirects")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MAX_IMAGE:
            raise ValueError(f"it has more than {MAX_IMAGE} bytes")
    return bytes(data)


def check_public(addresses: Iterable[str]) -> None:
    """OSError if one of them is not a public unicast address, also behind IPv6's ways to write an IPv4 address."""
    for text in addresses:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError as error:
            raise _private(text) from error
        if not all(one.is_global and not one.is_multicast for one in (address, *_inside(address))) or _local(address):
            raise _private(text)


def _private(address: str) -> _PrivateAddress:
    # With a number, since aiohttp shows the words of an error that has one.
    return _PrivateAddress(errno.EACCES, f"{address} is not a public address")


_EMBEDDED = tuple(
    (ipaddress.IPv6Network(network), shift)
    for network, shift in (
        ("::/96", 0),  # IPv4-compatible
        ("::ffff:0:0/96", 0),  # IPv4-mapped
        ("::ffff:0:0:0/96", 0),  # IPv4-translated
        ("64:ff9b::/96", 0),  # NAT64
        ("2002::/16", 80),  # 6to4
        ("2001::/32", 64),  # Teredo: its server
    )
)
"""Where IPv6 addresses hold an IPv4 address, and how far from the end."""

_TEREDO = ipaddress.IPv6Network("2001::/32")
_LOCAL = tuple(map(ipaddress.IPv6Network, ("64:ff9b:1::/48", "fec0::/10")))
"""Gateways and addresses of one site, whatever the Python that runs this says of them."""


def _inside(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that something on the way may make of an address."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    number = int(address)
    for network, shift in _EMBEDDED:
        if address in network:
            yield ipaddress.IPv4Address(number >> shift & 0xFFFFFFFF)
    if address in _TEREDO:
        yield ipaddress.IPv4Address(~number & 0xFFFFFFFF)
    if number >> 32 & 0xFCFFFFFF == 0x5EFE:  # ISATAP
        yield ipaddress.IPv4Address(number & 0xFFFFFFFF)


def _local(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _LOCAL)


def _public_socket(target: AddrInfoType) -> socket.socket:
    """The socket of one connection. Here is the last look, at the very address, however the host was written."""
    family, kind, protocol, _, address = target
    check_public([str(address[0])])
    return socket.socket(family=family, type=kind, proto=protocol)


class _PublicResolver(AbstractResolver):
    """Gives the connector only addresses that it may connect to: what is checked is what is called."""

    def __init__(self, private: bool) -> None:
        self._inner = ThreadedResolver()
        self._private = private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if not self._private:
            check_public(one["host"] for one in found)
        return found

    async def close(self) -> None:
        await self._inner.close()
