"""The characters that a grammar has read in the bytes of an answer. Pure.

llama.cpp reads UTF-8 by its first bytes alone: a longer way to write a character, half a surrogate pair and a number
beyond Unicode are each one character to it, which a class like `[^"]` lets pass. Read byte by byte, as text from
elsewhere is, each were several U+FFFD: longer than a `maxLength` that the grammar has counted by.
"""

from __future__ import annotations

_BROKEN = "\N{REPLACEMENT CHARACTER}"


def read_by_grammar(data: bytes, final: bool) -> tuple[str, int]:
    """The characters, and how many bytes they took: all, or up to one that is not whole yet unless this is the end.

    A whole sequence is one character: the one it stands for, however long it is written, or U+FFFD if that is none.
    """
    try:
        return data.decode(), len(data)
    except UnicodeDecodeError:
        pass
    read: list[str] = []
    at = 0
    while at < len(data):
        size = _size(data[at])
        inside = 0
        while inside < size - 1 and at + 1 + inside < len(data) and data[at + 1 + inside] >> 6 == 0b10:
            inside += 1
        whole = size > 0 and inside == size - 1
        if not whole and size > 0 and at + 1 + inside == len(data) and not final:
            break
        read.append(_character(data[at : at + size]) if whole else _BROKEN)
        at += 1 + inside
    return "".join(read), at


def _size(first: int) -> int:
    """Bytes of a sequence that begins so; 0: none does."""
    return 1 if first < 0x80 else 0 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def _character(sequence: bytes) -> str:
    code = sequence[0] & ((1 << (8 - len(sequence))) - 1)
    for byte in sequence[1:]:
        code = code << 6 | byte & 0x3F
    return _BROKEN if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF else chr(code)
