"""A stream's tokens, prompt and answer, where the native library reads them: appended in place, copied nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


class History:
    """Token ids in one buffer of int32. `room`: how many it will come to hold, so that it never moves."""

    __slots__ = ("_count", "_ids", "address")

    def __init__(self, tokens: Sequence[int], room: int = 0) -> None:
        self._count = len(tokens)
        self._ids = np.empty(max(room, len(tokens), 1), np.int32)
        self._ids[: len(tokens)] = tokens
        self.address: int = self._ids.ctypes.data

    def __len__(self) -> int:
        return self._count

    def append(self, token: int) -> None:
        """One more token."""
        if self._count == self._ids.size:
            self._ids = np.concatenate([self._ids, np.empty_like(self._ids)])
            self.address = self._ids.ctypes.data
        self._ids[self._count] = token
        self._count += 1

    def extend(self, tokens: Iterable[int]) -> None:
        """Several more: guesses, which `truncate` takes back."""
        for token in tokens:
            self.append(token)

    def truncate(self, count: int) -> None:
        """Keep the first `count` tokens."""
        if not 0 <= count <= self._count:
            raise ValueError(f"{count} of {self._count} tokens")
        self._count = count

    def tokens(self, start: int = 0, stop: int | None = None) -> list[int]:
        """Tokens `start` … `stop` - 1 as a list."""
        stop = self._count if stop is None else min(stop, self._count)
        return [int(token) for token in self._ids[start:stop]]
