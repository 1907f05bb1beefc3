"""Byte-level BPE's alphabet: which byte each letter of a token stands for. Pure data."""

from __future__ import annotations

from collections.abc import Mapping


def _byte_of_letter() -> dict[str, int]:
    """Bytes that print stand for themselves, the others in order from U+0100 on."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


BYTE_OF_LETTER: Mapping[str, int] = _byte_of_letter()
"""All 256."""

_LETTERS = {byte: letter for letter, byte in BYTE_OF_LETTER.items()}


def letters_of(data: bytes) -> str:
    """A letter for each byte."""
    return data.decode("latin-1").translate(_LETTERS)
