"""Remote images, fetched within limits. Imported only when some image is remote: its HTTP client takes a while to load.

A server that fetches what a stranger names can be made to call the machines around it. So: http and https only, public
addresses only (unless the settings say otherwise), checked on the very addresses that are then connected to, at every
redirect; no proxies, no cookies, no credentials; limits of size and time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

import aiohttp
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
            data = await _follow(session, URL(url), private)
        return await asyncio.to_thread(check_image, data, param)
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
        cause = str(error) or type(error).__name__
        raise InvalidRequest(
            f"Invalid '{param}': the image could not be fetched: {cause}.", param=param, code="invalid_image_url"
        ) from error


def _session(private: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=_PublicResolver(private), use_dns_cache=False, force_close=True),
        timeout=aiohttp.ClientTimeout(total=FETCH_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


async def _follow(session: aiohttp.ClientSession, url: URL, private: bool) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError(f"it is no http(s) URL: {url}")
        if not private:
            _check_literal(url.host)
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


def _check_literal(host: str) -> None:
    """A host that is an address is not resolved, so it is looked at here."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    check_public([str(address)])


def check_public(addresses: Iterable[str]) -> None:
    """OSError if one of them is not a public unicast address, also behind IPv6's ways to write an IPv4 address."""
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        inner = None
        if isinstance(address, ipaddress.IPv6Address):
            inner = address.ipv4_mapped or address.sixtofour or _nat64(address)
        if any(not one.is_global or one.is_multicast for one in (address, inner) if one is not None):
            raise _PrivateAddress(f"{text} is not a public address")


def _nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    prefix = ipaddress.IPv6Network("64:ff9b::/96")
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in prefix else None


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
