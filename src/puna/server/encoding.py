"""Bodies that come compressed (`Content-Encoding`), under a limit: a few bytes can stand for terabytes. Pure."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from puna.errors import InvalidRequest, UnsupportedMediaType

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ACCEPTED = ("gzip", "deflate", "zstd")
MAX_CODINGS = 3
"""One over the other."""
MAX_MEMBERS = 1000
"""Members of gzip, frames of zstd, one behind the other."""

_STEP = 256 * 1024
_WINDOW_LOG = 23
"""Of zstd, 8 MiB: what its standard asks of every reader."""

Meter = Callable[[int], None]
"""Told of every piece how many bytes it has; raises when these are too many."""


def codings(header: str) -> tuple[str, ...]:
    """The codings of a body, in the order in which they are taken off. UnsupportedMediaType names an unknown one."""
    names = [name.strip().lower().removeprefix("x-") for name in header.split(",")]
    wanted = [name for name in names if name not in {"", "identity"}]
    unknown = next((name for name in wanted if name not in ACCEPTED), None)
    if unknown is not None or len(wanted) > MAX_CODINGS:
        what = f"'{unknown}' is not supported" if unknown else f"has more than {MAX_CODINGS} codings"
        raise UnsupportedMediaType(
            f"Content-Encoding {what}: send {', '.join(ACCEPTED)}, or the body as it is.", code="unsupported_encoding"
        )
    return tuple(reversed(wanted))


def decoded(body: bytes, header: str, meter: Callable[[], Meter]) -> bytes:
    """The body without its codings. `meter` begins a count, one for each coding. InvalidRequest if it is damaged."""
    decoder, whole = Decoder(header, meter), bytearray()
    for start in range(0, len(body), _STEP):
        for piece in decoder.feed(body[start : start + _STEP]):
            whole += piece
    decoder.end()
    return bytes(whole)


class Decoder:
    """Takes the codings off a body as it comes. Each method raises InvalidRequest for what is damaged.

    `meter` begins a count, one for each coding. A small piece can become a large one: none that comes out has more
    than 256 KiB, and each is made when it is asked for.
    """

    def __init__(self, header: str, meter: Callable[[], Meter]) -> None:
        self._stages = [(coding, _READERS[coding](), meter()) for coding in codings(header)]

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes of some more bytes."""
        return self._through(data, 0)

    def end(self) -> None:
        """There is no more."""
        for coding, reader, _ in self._stages:
            with _naming(coding):
                if not reader.complete:
                    raise EOFError("it ends too early")

    def _through(self, data: bytes, stage: int) -> Iterator[bytes]:
        if stage == len(self._stages):
            yield data
            return
        coding, reader, count = self._stages[stage]
        pieces = reader.feed(data)
        while True:
            with _naming(coding):
                piece = next(pieces, None)
            if piece is None:
                return
            count(len(piece))
            if piece:
                yield from self._through(piece, stage + 1)


@contextmanager
def _naming(coding: str) -> Iterator[None]:
    try:
        yield
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise InvalidRequest(f"The body is no {coding}: {error}.", code="invalid_encoding") from error


class _Reader(Protocol):
    """One coding of one body, taken off as it comes."""

    @property
    def complete(self) -> bool:
        """Whether the body may end here."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...


class _Gzip:
    """One member or several; zeros may fill the end."""

    def __init__(self) -> None:
        self._inflater: zlib._Decompress | None = None
        self._members = 0

    @property
    def complete(self) -> bool:
        return self._members > 0 and self._inflater is None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflater is None:
                if self._members and not (data := data.lstrip(b"\0")):
                    return
                self._members += 1
                if self._members > MAX_MEMBERS:
                    raise EOFError(f"it has more than {MAX_MEMBERS} members")
                self._inflater = zlib.decompressobj(31)
            yield from _inflated(self._inflater, data)
            data = self._inflater.unused_data
            if self._inflater.eof:
                self._inflater = None


class _Deflate:
    """With zlib's head, as it should be, or without, as some send it."""

    def __init__(self) -> None:
        self._inflater: zlib._Decompress | None = None
        self._head = b""

    @property
    def complete(self) -> bool:
        return self._inflater is not None and self._inflater.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inflater is None:
            data = self._head = self._head + data
            if len(data) < 2:
                return
            headed = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
            self._inflater = zlib.decompressobj(15 if headed else -15)
        if not self._inflater.eof:
            yield from _inflated(self._inflater, data)
            data = self._inflater.unused_data
        if data and self._inflater.eof:
            raise EOFError("there is something behind its end")


class _Zstd:
    """One frame or several."""

    def __init__(self) -> None:
        self._reader: zstd.ZstdDecompressor | None = None
        self._frames = 0

    @property
    def complete(self) -> bool:
        return self._frames > 0 and self._reader is None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._reader is None:
                self._frames += 1
                if self._frames > MAX_MEMBERS:
                    raise EOFError(f"it has more than {MAX_MEMBERS} frames")
                self._reader = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
            yield self._reader.decompress(data, _STEP)
            while not self._reader.eof and not self._reader.needs_input:
                yield self._reader.decompress(b"", _STEP)
            data = self._reader.unused_data
            if self._reader.eof:
                self._reader = None


def _inflated(inflater: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    while data and not inflater.eof:
        yield inflater.decompress(data, _STEP)
        data = inflater.unconsumed_tail
    while not inflater.eof and (more := inflater.decompress(b"", _STEP)):
        yield more


_READERS: dict[str, Callable[[], _Reader]] = {"gzip": _Gzip, "deflate": _Deflate, "zstd": _Zstd}
