"""Remote images and files, fetched within limits. Imported only when one is remote: its HTTP client takes time to load.

A server that fetches what a stranger names can be made to call the machines around it. So: http and https only, public
addresses only (unless the settings say otherwise), checked on the very addresses that are then connected to, at every
redirect; no proxies, no cookies, no credentials; limits of size and time.
"""

from __future__ import annotations

import asyncio
import socket

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from puna.addresses import check_public
from puna.errors import Code, InvalidRequest
from puna.lane import in_lane
from puna.server.documents import document_text, likely_kind
from puna.server.kept_files import KeptText
from puna.server.media import MAX_IMAGE, check_image

FETCH_SECONDS = 15.0
MAX_REDIRECTS = 3


async def fetch_image(url: str, param: str, *, private: bool = False) -> bytes:
    """The image at an http(s) URL, or InvalidRequest. `private`: addresses of the local network may be called."""
    data, _ = await _fetch(url, param, private, what="image", code="invalid_image_url")
    return await in_lane(lambda: check_image(data, param))


async def fetch_text(url: str, param: str, *, private: bool = False) -> KeptText:
    """What a model reads of the file at an http(s) URL, and its name. InvalidRequest and Unsupported name `param`."""
    data, kind = await _fetch(url, param, private, what="file", code="invalid_value")
    name = URL(url).name
    return KeptText(name, await in_lane(lambda: document_text(data, likely_kind(kind, name, data), param)))


async def _fetch(url: str, param: str, private: bool, *, what: str, code: Code) -> tuple[bytes, str]:
    """Bytes, and the media type that their server says."""
    try:
        async with _session(private) as session:
            return await _follow(session, URL(url))
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
        cause = str(error) or type(error).__name__
        raise InvalidRequest(
            f"Invalid '{param}': the {what} could not be fetched: {cause}.", param=param, code=code
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


async def _follow(session: aiohttp.ClientSession, url: URL) -> tuple[bytes, str]:
    for _ in range(MAX_REDIRECTS + 1):
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError(f"it is no http(s) URL: {url}")
        async with session.get(url.with_user(None), allow_redirects=False) as response:
            if response.status in {301, 302, 303, 307, 308} and "location" in response.headers:
                url = url.join(URL(response.headers["location"]))
                continue
            if response.status != 200:
                raise ValueError(f"the server answered {response.status}")
            return await _read(response), response.headers.get("content-type", "")
    raise ValueError(f"more than {MAX_REDIRECTS} redirects")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MAX_IMAGE:
            raise ValueError(f"it has more than {MAX_IMAGE} bytes")
    return bytes(data)


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
