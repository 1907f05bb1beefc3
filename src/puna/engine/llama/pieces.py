"""Which tokens the engine left out. Pure.

llama.cpp's server sends no chunk for a token that ends inside a UTF-8 character; the next chunk holds the last id only,
and the bytes of all. The ids between are found again among the few pieces of a vocabulary that end inside a character.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

from puna.engine.letters import BYTE_OF_LETTER

_BYTE = 6
"""`tokenizer.ggml.token_type` of a token that is one byte, written '<0x41>'."""


class Pieces:
    """The bytes of every token, packed, and those that end inside a character by their bytes."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._ends = array("I", [0])
        data = bytearray()
        self._halves: dict[bytes, int] = {}
        for id_, piece in enumerate(pieces):
            data += piece
            self._ends.append(len(data))
            if ends_inside(piece):
                self._halves.setdefault(piece, id_)
        self._data = bytes(data)
        self._longest = max(map(len, self._halves), default=0)

    def __getitem__(self, token: int) -> bytes:
        return self._data[self._ends[token] : self._ends[token + 1]]

    def between(self, data: bytes, count: int, last: int) -> list[tuple[int, ...]]:
        """Every way in which `count` tokens, the last being `last`, give `data`, each before it ending in a half."""
        end = self[last]
        if not data.endswith(end):
            return []
        return [(*ids, last) for ids in self._split(data[: len(data) - len(end)], count - 1)]

    def _split(self, data: bytes, count: int) -> Iterator[tuple[int, ...]]:
        if count == 0:
            if not data:
                yield ()
            return
        for length in range(1, min(self._longest, len(data)) + 1):
            id_ = self._halves.get(data[:length])
            if id_ is not None:
                for rest in self._split(data[length:], count - 1):
                    yield (id_, *rest)


def ends_inside(data: bytes) -> bool:
    """Whether `data` ends with the beginning of a character, or is nothing but the inside of one."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            return back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
        if byte < 0x80:
            return False
    return 0 < len(data) < 4


def vocabulary(model: str, tokens: Sequence[str], types: Sequence[int]) -> Pieces | None:
    """From a header's `tokenizer.ggml.model`, `.tokens` and `.token_type`; None for kinds whose bytes are not known."""
    if model == "gpt2":
        return Pieces(map(_byte_level, tokens))
    if model in {"llama", "gemma4"} and len(types) == len(tokens):
        return Pieces(
            bytes([int(token[3:5], 16)]) if kind == _BYTE else token.replace("▁", " ").encode()
            for token, kind in zip(tokens, types, strict=True)
        )
    return None


def _byte_level(token: str) -> bytes:
    """A token of byte-level BPE, whose letters each stand for a byte; others (control tokens) stand for themselves."""
    try:
        return bytes([BYTE_OF_LETTER[letter] for letter in token])
    except KeyError:
        return token.encode()
