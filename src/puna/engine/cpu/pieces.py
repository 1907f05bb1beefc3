"""Merging: of all neighbours in a text that may become one piece the best, again and again, until none may.

Both kinds of byte-pair encoding are this with another rank: SentencePiece's ranks any pair whose text is a piece by its
score, the byte-level kind ranks recorded pairs by their order. Ties go to the left, as in llama.cpp.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from puna.errors import InvalidRequest

SPACE = "▁"
"""Stands for a space inside pieces."""

Rank = Callable[[str, str], "float | None"]
"""How early two neighbours merge, low first; None: they do not."""

WordEncoder = Callable[[str], "tuple[int, ...]"]

MOST_LETTERS = 1_000_000
"""In one word: each takes 180 bytes while it is merged, and some microseconds that no cancel can end."""

_WORDS = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
_REMEMBERED = 1 << 15
_SHORT = 64
"""How many words' pieces are kept, and of what length at most; text repeats itself."""


class Merger:
    """Over one vocabulary. `ids` by piece; `byte_ids` for what is no piece: 256, or None where one is missing."""

    def __init__(self, ids: Mapping[str, int], rank: Rank, byte_ids: Sequence[int | None]) -> None:
        self._ids = ids
        self._rank = rank
        self._bytes = byte_ids

    def merged(self, text: str) -> tuple[int, ...]:
        """Ids of a text. InvalidRequest when it has more than MOST_LETTERS.

        Within: `symbols[i]` is what stands at i now, empty once merged to the left; `before` and `after` link the rest.
        """
        if len(text) > MOST_LETTERS:
            raise InvalidRequest(
                f"{len(text)} characters without a break between words are too many to be tokenised: "
                f"{MOST_LETTERS} at most"
            )
        rank = self._rank
        symbols = list(text)
        before, after = list(range(-1, len(symbols) - 1)), [*range(1, len(symbols)), -1]
        queue: list[tuple[float, int, int, int]] = []

        def consider(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                place = rank(symbols[left], symbols[right])
                if place is not None:
                    heapq.heappush(queue, (place, left, right, len(symbols[left]) + len(symbols[right])))

        for right in range(1, len(symbols)):
            consider(right - 1, right)
        while queue:
            _, left, right, length = heapq.heappop(queue)
            if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != length:
                continue
            symbols[left], symbols[right] = symbols[left] + symbols[right], ""
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


def remembered(encode: WordEncoder) -> WordEncoder:
    """The same, which keeps what it found of short words."""
    kept = lru_cache(_REMEMBERED)(encode)
    return lambda word: kept(word) if len(word) <= _SHORT else encode(word)


def by_scores(
    ids: Mapping[str, int], scores: Sequence[float], byte_ids: Sequence[int | None]
) -> Callable[[str], list[int]]:
    """SentencePiece's encoding. `scores` by id. Spaces are already SPACE in what it is given."""

    def rank(left: str, right: str) -> float | None:
        token = ids.get(left + right)
        return None if token is None else -scores[token]

    merger = Merger(ids, rank, byte_ids)
    # If no piece goes on past a word's end, words merge by themselves and can be remembered.
    word_ids = remembered(merger.merged)
    by_word = not any(re.search(f"[^{SPACE}]{SPACE}", piece) for piece in ids)

    def encode(text: str) -> list[int]:
        if not by_word:
            return list(merger.merged(text))
        return [token for word in _WORDS.findall(text) for token in word_ids(word)]

    return encode
