"""SentencePiece's merging, as llama.cpp does it: of all neighbours that form a piece the best-scored, again and again.

Any pair counts whose text is in the vocabulary, not only recorded merges; ties go to the left. What forms no piece
becomes bytes. This is our own because no library keeps that rule of scores.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

SPACE = "▁"
"""Stands for a space inside pieces."""

_WORDS = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
_REMEMBERED = 1 << 15
"""Words whose pieces are kept; text repeats itself."""


class Merger:
    """SentencePiece's merging over one vocabulary.

    `ids` by piece, `scores` by id, `byte_ids` for what is no piece: 256, or None where one is missing.
    """

    def __init__(self, ids: Mapping[str, int], scores: Sequence[float], byte_ids: Sequence[int | None]) -> None:
        self._ids = ids
        self._scores = scores
        self._bytes = byte_ids
        # If no piece goes on past a word's end, words merge by themselves and can be remembered.
        self._by_word = not any(re.search(f"[^{SPACE}]{SPACE}", piece) for piece in ids)
        self._of_word = lru_cache(_REMEMBERED)(self._merged)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, in which spaces are already SPACE."""
        if not self._by_word:
            return list(self._merged(text))
        found: list[int] = []
        for word in _WORDS.findall(text):
            found += self._of_word(word)
        return found

    def _merged(self, text: str) -> tuple[int, ...]:
        """`symbols[i]` is what stands at i now, empty once merged to the left; `before` and `after` link the rest."""
        ids, scores = self._ids, self._scores
        symbols = list(text)
        before, after = list(range(-1, len(symbols) - 1)), [*range(1, len(symbols)), -1]
        queue: list[tuple[float, int, int, str]] = []

        def consider(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                joined = symbols[left] + symbols[right]
                if joined in ids:
                    heapq.heappush(queue, (-scores[ids[joined]], left, right, joined))

        for right in range(1, len(symbols)):
            consider(right - 1, right)
        while queue:
            _, left, right, joined = heapq.heappop(queue)
            if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != len(joined):
                continue
            symbols[left], symbols[right] = joined, ""
            after[left] = after[right]
            if after[right] >= 0:
                before[after[right]] = left
            consider(before[left], left)
            consider(left, after[left])
        found: list[int] = []
        for symbol in filter(None, symbols):
            found += self._tokens(symbol)
        return tuple(found)

    def _tokens(self, symbol: str) -> list[int]:
        if symbol in self._ids:
            return [self._ids[symbol]]
        return [token for byte in symbol.encode() if (token := self._bytes[byte]) is not None]
