"""Coding: bodies that a server compressed although nobody asked for it, as some proxies do. Pure."""

from __future__ import annotations

import zlib

from puna.errors import SourceError

_GZIP = frozenset({"gzip", "x-gzip", "deflate"})
_EITHER = 32 + zlib.MAX_WBITS
"""Gzip's frame or zlib's, whichever it is."""


def coding(header: str) -> str:
    """What a `Content-Encoding` says that a body went through; '' when it is as it is."""
    return ", ".join(name for one in header.split(",") if (name := one.strip().lower()) not in {"", "identity"})


def decoded(data: bytes, header: str, limit: int, what: str) -> bytes:
    """A body without its coding, or its first bytes where it has more than `limit`. `what`: the body in words.

    SourceError: a coding that is not known here, or a body that is damaged.
    """
    name = coding(header)
    if not name:
        return data
    if name not in _GZIP:
        raise SourceError(f"{what} comes compressed ({name[:80]}), which was not asked for")
    whole = bytearray()
    while data and len(whole) <= limit:
        member = zlib.decompressobj(_EITHER)
        try:
            whole += member.decompress(data, limit + 1 - len(whole))
        except zlib.error as error:
            raise SourceError(f"{what} is damaged: {error}") from error
        if not member.eof and len(whole) <= limit:
            raise SourceError(f"{what} is damaged: it ends early")
        data = member.unused_data
    return bytes(whole)
