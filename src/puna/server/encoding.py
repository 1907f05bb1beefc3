"""Bodies that come compressed (`Content-Encoding`), under a limit: a few bytes can stand for terabytes. Pure."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Generator, Iterator

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
    for coding in codings(header):
        count, pieces = meter(), bytearray()
        try:
            for piece in _PIECES[coding](memoryview(body)):
                count(len(piece))
                pieces += piece
        except (zlib.error, zstd.ZstdError, EOFError) as error:
            raise InvalidRequest(f"The body is no {coding}: {error}.", code="invalid_encoding") from error
        body = bytes(pieces)
    return body


def _gzip(data: memoryview) -> Iterator[bytes]:
    """One member or several; zeros may fill the end."""
    for _ in range(MAX_MEMBERS):
        at = yield from _inflated(zlib.decompressobj(31), data)
        data = data[at:]
        if not bytes(data[:_STEP]).strip(b"\0"):
            return
    raise EOFError(f"it has more than {MAX_MEMBERS} members")


def _deflate(data: memoryview) -> Iterator[bytes]:
    """With zlib's head, as it should be, or without, as some send it."""
    headed = len(data) > 1 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
    if (yield from _inflated(zlib.decompressobj(15 if headed else -15), data)) < len(data):
        raise EOFError("there is something behind its end")


def _zstd(data: memoryview) -> Iterator[bytes]:
    """One frame or several."""
    for _ in range(MAX_MEMBERS):
        reader = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
        at = yield from _unpacked(reader, data)
        data = data[at:]
        if not data:
            return
    raise EOFError(f"it has more than {MAX_MEMBERS} frames")


def _inflated(inflater: zlib._Decompress, data: memoryview) -> Generator[bytes, None, int]:
    """Gives how many bytes were read, at the end."""
    for start in range(0, len(data), _STEP):
        whole = block = bytes(data[start : start + _STEP])
        while block and not inflater.eof:
            yield inflater.decompress(block, _STEP)
            block = inflater.unconsumed_tail
        while not inflater.eof and (more := inflater.decompress(b"", _STEP)):
            yield more
        if inflater.eof:
            return start + len(whole) - len(inflater.unused_data)
    raise EOFError("it ends too early")


def _unpacked(reader: zstd.ZstdDecompressor, data: memoryview) -> Generator[bytes, None, int]:
    """The same of one frame of zstd."""
    for start in range(0, len(data), _STEP):
        block = bytes(data[start : start + _STEP])
        yield reader.decompress(block, _STEP)
        while not reader.eof and not reader.needs_input:
            yield reader.decompress(b"", _STEP)
        if reader.eof:
            return start + len(block) - len(reader.unused_data)
    raise EOFError("it ends too early")


_PIECES: dict[str, Callable[[memoryview], Iterator[bytes]]] = {"gzip": _gzip, "deflate": _deflate, "zstd": _zstd}
