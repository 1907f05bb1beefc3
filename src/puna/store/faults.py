"""Fault: what is wrong with a stored file, found by looking at all of its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from puna.plainfile import open_plain

FaultKind = Literal["missing", "truncated", "zeroed", "changed", "unreadable"]

_PAGE = 4096
_CHUNK = 256 * _PAGE
_ZEROS = bytes(_CHUNK)


@dataclass(frozen=True, slots=True)
class Fault:
    """`words`: what is wrong, to follow the file's name: 'is cut short: 10 of 20 bytes are there'."""

    kind: FaultKind
    words: str


MISSING = Fault("missing", "is missing from the store")


def wrong_size(found: int, expected: int) -> Fault:
    if found < expected:
        return Fault("truncated", f"is cut short: {found} of {expected} bytes are there")
    return Fault("changed", f"is damaged: it has {found} bytes in place of {expected}")


def unreadable(error: OSError) -> Fault:
    return Fault("unreadable", f"cannot be read: {error.strerror or error}")


def wrong_bytes(path: Path) -> Fault:
    """Of a file whose digest is another one than its name says. OSError if it cannot be read."""
    size, zeros, first = path.stat().st_size, 0, -1
    with open_plain(path) as file:
        at = 0
        while data := file.read(_CHUNK):
            for begin, length in _zero_pages(data):
                zeros += length
                first = at + begin if first < 0 else first
            at += len(data)
    if zeros and zeros == size:
        return Fault("zeroed", "is damaged: it holds nothing but zeros")
    if zeros >= _PAGE:
        return Fault("zeroed", f"is damaged: {zeros} of its {size} bytes lie in pages of zeros, from byte {first} on")
    return Fault("changed", "is damaged: its bytes are not those that were stored")


def _zero_pages(data: bytes) -> list[tuple[int, int]]:
    """Where each page of zeros begins, and how long it is."""
    if data == _ZEROS[: len(data)]:
        return [(0, len(data))]
    if _ZEROS[:_PAGE] not in data:
        return []
    pages = ((begin, data[begin : begin + _PAGE]) for begin in range(0, len(data), _PAGE))
    return [(begin, len(page)) for begin, page in pages if page == _ZEROS[: len(page)]]
