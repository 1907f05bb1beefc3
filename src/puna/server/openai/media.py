"""Images and files of messages: data: URLs decoded, remote images fetched within limits, the text of files read.

A server that fetches what a stranger names can be made to call the machines around it. So: http and https only, public
addresses only (unless the settings say otherwise), checked on the very addresses that are then connected to, at every
redirect; no proxies, no cookies, no credentials; limits of size and time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import ipaddress
import socket
from collections.abc import Iterable
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from puna.errors import InvalidRequest, Unsupported

MAX_IMAGE = 20 * 1024 * 1024
"""Bytes of one image."""

FETCH_SECONDS = 15.0
MAX_REDIRECTS = 3

_MAGIC = MappingProxyType({b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"})


class _PrivateAddress(OSError):
    """A name that leads to an address which is not public."""


# ------------------------------------------------------------------------------------------------------ data: URLs


def decode_base64(text: str, param: str) -> bytes:
    """Standard or URL-safe alphabet, padding optional, blanks skipped."""
    compact = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"Invalid '{param}': not valid base64.", param=param, code="invalid_base64") from error


def decode_data_url(url: str, param: str) -> tuple[str, bytes]:
    """Media type (lower case, without parameters) and bytes of a data: URL."""
    head, comma, body = url.partition(",")
    if not head[:5].lower() == "data:" or not comma:
        raise InvalidRequest(f"Invalid '{param}': expected a data: URL.", param=param, code="invalid_data_url")
    kind, *parameters = head[5:].lower().split(";")
    data = decode_base64(body, param) if "base64" in parameters else unquote_to_bytes(body)
    return kind.strip(), data


def check_image(data: bytes, param: str) -> bytes:
    """`data`, if it looks like a png, jpeg or webp of a bearable size."""
    if len(data) > MAX_IMAGE:
        raise InvalidRequest(
            f"Invalid '{param}': the image has {len(data)} bytes, at most {MAX_IMAGE} are allowed.",
            param=param,
            code="image_too_large",
        )
    known = any(data.startswith(magic) for magic in _MAGIC) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
    if not known:
        raise InvalidRequest(
            f"Invalid '{param}': the image is none of png, jpeg and webp.", param=param, code="invalid_image_format"
        )
    return data


def is_remote(url: str) -> bool:
    return url[:7].lower() == "http://" or url[:8].lower() == "https://"


# ----------------------------------------------------------------------------------------------------- remote images


async def fetch_image(url: str, param: str, *, private: bool = False) -> bytes:
    """The image at an http(s) URL, or InvalidRequest. `private`: addresses of the local network may be called."""
    try:
        async with _session(private) as session:
            return check_image(await _follow(session, URL(url), private), param)
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


# ---------------------------------------------------------------------------------------------------------- files


def file_text(url: str, param: str) -> str:
    """The text of a file given as data: URL. Blocking: a PDF takes a while."""
    kind, data = decode_data_url(url, param)
    if kind == "application/pdf" or data.startswith(b"%PDF-"):
        return _pdf_text(data, param)
    if kind.startswith("text/") or kind in {"", "application/json", "application/xml"}:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"Invalid '{param}': the text is not UTF-8.", param=param) from error
    raise Unsupported(f"Invalid '{param}': files of type '{kind}' cannot be read, only text and PDF.", param=param)


def _pdf_text(data: bytes, param: str) -> str:
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise Unsupported(
            f"Invalid '{param}': reading PDF files needs the extra 'pdf': pip install 'puna[pdf]'.", param=param
        ) from error
    try:
        text = "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(data)).pages)
    except (PyPdfError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"Invalid '{param}': the PDF cannot be read: {error}.", param=param) from error
    if not text.strip():
        raise InvalidRequest(f"Invalid '{param}': the PDF holds no text, only pictures perhaps.", param=param)
    return text


def file_name(name: str | None, text: str) -> str:
    """The text as it stands in a message, its name before it."""
    return f"{name}:\n{text}" if name else text
