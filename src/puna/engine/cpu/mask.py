"""Which tokens may come: a bit for each, in words of 32, lowest first. What llguidance writes and the library reads."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Allowed: TypeAlias = NDArray[np.bool_]


class Mask:
    """The bits of a vocabulary of `size` tokens. `address` is where its `words` lie; they never move."""

    __slots__ = ("address", "size", "words")

    def __init__(self, size: int) -> None:
        self.size = size
        self.words = np.zeros(-(-size // 32), np.uint32)
        self.address: int = self.words.ctypes.data

    @classmethod
    def of(cls, allowed: Allowed) -> Mask:
        """From a truth value a token."""
        mask = cls(allowed.size)
        bits = np.packbits(allowed, bitorder="little")
        mask.words.view(np.uint8)[: bits.size] = bits
        return mask

    def allowed(self) -> Allowed:
        """A truth value a token."""
        bits: Allowed = np.unpackbits(self.words.view(np.uint8), count=self.size, bitorder="little").view(np.bool_)
        return bits
