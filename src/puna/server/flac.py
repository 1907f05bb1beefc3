"""FLAC without decoding it: how long one is, by its frames, and the same with a header that says so. Pure.

A decoder makes room for as many samples as the header claims, which may be none (a recorder does not know them when it
begins) or 2^36. So the frames are counted, and the claim is set right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from puna.errors import PunaError

_INFO_END = 42
"""The first bytes: `fLaC`, the head of a block, and the 34 bytes of the block that must be the first, STREAMINFO."""

_CLAIM = (1 << 36) - 1
"""The bits of the number of samples, the last of the eight bytes that also hold the rate, channels and bits."""

_FRAME = re.compile(rb"\xff[\xf8\xf9]")
"""How each frame begins; the last bit says whether its number is one of frames or one of samples."""

_LOST_FRAMES = 64
"""So many in a row may be damaged: a number that is farther from the last one is not that of a frame."""

_MOST_FRAMES = 250_000
"""An hour has 40,000 as most write them."""

_MOST_OTHERS = 10_000
"""Places that only begin like a frame. By chance there are some hundred in a large file."""

_LARGEST = 65535
"""Samples of a frame."""


class BadFlac(PunaError):
    """Not what decoders take for FLAC."""


@dataclass(frozen=True, slots=True)
class Flac:
    """`data`: with a header that tells how many samples there are."""

    data: bytes
    seconds: float


def read_flac(data: bytes) -> Flac:
    """Of what is there, whatever the header says of it. BadFlac."""
    if len(data) < _INFO_END or data[:4] != b"fLaC" or data[4] & 0x7F or data[5:8] != b"\0\0\x22":
        raise BadFlac("it has no STREAMINFO")
    largest = int.from_bytes(data[10:12], "big")
    packed = int.from_bytes(data[18:26], "big")
    rate = packed >> 44
    if rate == 0 or largest < 16:
        raise BadFlac("its STREAMINFO is none")
    samples = _samples(data, _after_blocks(data), largest)
    if packed & _CLAIM != samples:
        data = data[:18] + (packed & ~_CLAIM | samples).to_bytes(8, "big") + data[26:]
    return Flac(data, samples / rate)


def told_seconds(data: bytes) -> float:
    """What the header says, which is right in what `read_flac` has made. 0: it says nothing."""
    packed = int.from_bytes(data[18:26], "big")
    return (packed & _CLAIM) / (packed >> 44) if packed >> 44 else 0.0


def _after_blocks(data: bytes) -> int:
    """Where the frames begin: behind tags, pictures, tables."""
    place, last = 4, False
    while not last:
        if place + 4 > len(data):
            raise BadFlac("it ends before its sound")
        last = data[place] >= 0x80
        place += 4 + int.from_bytes(data[place + 1 : place + 4], "big")
    return place


def _samples(data: bytes, start: int, largest: int) -> int:
    """Of all frames, each of which says how many it has, but not how many bytes."""
    together, expected, kind = 0, 0, -1
    frames, others = 0, 0
    for found in _FRAME.finditer(data, start):
        place = found.start()
        head = None if kind >= 0 and data[place + 1] != kind else _head(data, place)
        if head is None:
            others += 1
            if others > _MOST_OTHERS:
                raise BadFlac("much in it only begins like a frame")
            continue
        number, size = head
        by_samples = bool(data[place + 1] & 1)
        within = _LOST_FRAMES * (_LARGEST if by_samples else 1)
        if kind >= 0 and not expected <= number <= expected + within:
            continue
        if size > largest:
            raise BadFlac("a frame is larger than the largest")
        frames += 1
        if frames > _MOST_FRAMES:
            raise BadFlac(f"it has more than {_MOST_FRAMES} frames")
        kind, together = data[place + 1], together + size
        expected = number + (size if by_samples else 1)
    return min(together, _CLAIM)


_SIZES = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}
"""Samples of a frame by the four bits that say so; 6 and 7 say that a number is behind the frame's."""


def _head(data: bytes, place: int) -> tuple[int, int] | None:
    """The number of a frame, and its samples; None if what is there is no frame's head."""
    head = data[place : place + 16]
    if len(head) < 6:
        return None
    size_code, rate_code, channels, bits = head[2] >> 4, head[2] & 15, head[3] >> 4, head[3] >> 1 & 7
    if size_code == 0 or rate_code == 15 or channels > 10 or bits == 3 or head[3] & 1:
        return None
    coded = _coded(head, 4)
    if coded is None:
        return None
    number, at = coded
    size = _SIZES.get(size_code, 0)
    if not size:
        width = size_code - 5
        size = int.from_bytes(head[at : at + width], "big") + 1
        at += width
    at += (0, 1, 2, 2)[max(0, rate_code - 11)]
    if at >= len(head) or _crc(head[:at]) != head[at]:
        return None
    return number, size


def _coded(head: bytes, at: int) -> tuple[int, int] | None:
    """A number in UTF-8's way, which may have up to seven bytes here; and where it ends."""
    first = head[at]
    ones = 8 - (first ^ 0xFF).bit_length()
    if ones in {1, 8}:
        return None
    value, end = first & 0x7F >> ones, at + max(1, ones)
    for byte in head[at + 1 : end]:
        if byte >> 6 != 2:
            return None
        value = value << 6 | byte & 0x3F
    return (value, end) if end < len(head) else None


def _crc(head: bytes) -> int:
    """FLAC's eight bits of check."""
    crc = 0
    for byte in head:
        crc = _CRCS[crc ^ byte]
    return crc


def _divided(byte: int) -> int:
    """What is left of eight bits, by x^8 + x^2 + x + 1."""
    for _ in range(8):
        byte = byte << 1 ^ (0x107 if byte & 0x80 else 0)
    return byte


_CRCS = tuple(map(_divided, range(256)))
