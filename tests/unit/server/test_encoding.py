from __future__ import annotations

import gzip
import sys
import zlib

import pytest

from puna.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from puna.server.encoding import codings, decoded

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b'{"model": "tiny"}' * 50_000


def raw(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


def meter():
    size = 0

    def count(more: int) -> None:
        nonlocal size
        size += more
        assert more <= 256 * 1024
        if size > 1_000_000:
            raise PayloadTooLarge("too large")

    return count


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT[:10]) + gzip.compress(TEXT[10:]) + b"\0" * 9),
        ("GZIP", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw(TEXT)),
        ("zstd", zstd.compress(TEXT)),
        ("zstd", zstd.compress(TEXT[:10]) + zstd.compress(TEXT[10:])),
        ("gzip, zstd", zstd.compress(gzip.compress(TEXT))),
        ("deflate,identity, gzip", gzip.compress(zlib.compress(TEXT))),
        ("identity", TEXT),
        ("", TEXT),
    ],
    # gzip writes the time into its bytes; what a test is called must not change from one process to the next.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_codings(header, body):
    assert decoded(body, header, meter) == TEXT


@pytest.mark.parametrize("header", ["br", "compress", "gzip, br", "gzip,gzip,gzip,gzip", "g zip"])
def test_codings_that_are_not_read(header):
    with pytest.raises(UnsupportedMediaType, match="gzip, deflate, zstd"):
        codings(header)


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_damaged_bodies(name):
    whole = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}[name](TEXT)
    for body in (whole[:-5], b"", b"hello", whole[:20] + b"\xff" * 20, whole + b"garbage"):
        with pytest.raises(InvalidRequest) as caught:
            decoded(body, name, meter)
        assert caught.value.code == "invalid_encoding"


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_taken_apart_only_up_to_the_limit(name):
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}[name]
    for body, header in ((pack(bytes(50_000_000)), name), (pack(pack(bytes(50_000_000))), f"{name},{name}")):
        with pytest.raises(PayloadTooLarge):
            decoded(body, header, meter)


def test_members_without_end():
    with pytest.raises(InvalidRequest, match="1000 members"):
        decoded(gzip.compress(b"") * 1001, "gzip", meter)
