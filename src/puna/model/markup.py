"""Markup: the texts that a vocabulary reads as control tokens, and where they stand in other texts. Pure.

User-defined tokens that are written as control tokens are (`is_mark`) count as such: some files have no other type for
the marks of turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from types import MappingProxyType

_MARK = re.compile(r"<[|｜][^\s<>]+[|｜]>")

_FEW, _HEAD, _MANY_HEADS = 4, 3, 256


class Markup:
    """Ids of control tokens by their texts. An empty text is none."""

    def __init__(self, ids: Mapping[str, int] = MappingProxyType({})) -> None:
        self.ids: Mapping[str, int] = MappingProxyType({text: id_ for text, id_ in ids.items() if text})

    def and_(self, text: str, id_: int) -> Markup:
        """This, and one text more."""
        return _with(self, text, id_)

    def controls(self, text: str) -> list[int]:
        """The control tokens in `text`, in order."""
        return [part for part in self.split(text) if isinstance(part, int)]

    def split(self, text: str) -> list[str | int]:
        """`text` cut at control tokens, of which the longest counts: their ids, and the texts between them."""
        parts: list[str | int] = []
        end = 0
        for begin, length in self._found(text):
            if begin < end:
                continue
            if begin > end:
                parts.append(text[end:begin])
            end = begin + length
            parts.append(self.ids[text[begin:end]])
        return [*parts, text[end:]] if end < len(text) else parts

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Begin and end of every control token's text, overlapping ones too."""
        return [(begin, begin + length) for begin, length in self._found(text)]

    def touches(self, text: str) -> bool:
        """Whether `text` holds a control token's text, or could be a part of one with what stands before or after."""
        return next(self._found(text), None) is not None or bool(self._at_borders(text))

    def places(self, text: str) -> frozenset[int]:
        """Where a character must be another one, so that no control token's text holds any of `text`'s characters.

        The first of each that is whole; of one that could begin at the end (white space aside, which templates cut),
        the first; of one that could end at the beginning, the last.
        """
        return frozenset(begin for begin, _ in self._found(text)) | self._at_borders(text)

    @cached_property
    def texts(self) -> Mapping[int, str]:
        return {id_: text for text, id_ in self.ids.items()}

    # ----------------------------------------------------------------------------------------------------- looking

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        """Where one begins, and the length of the longest that does."""
        few = len(self._begin_with) <= _FEW
        if self._heads is None or (few and not any(first in text for first in self._begin_with)):
            return
        at = 0
        while match := self._heads.search(text, at):
            at = match.start()
            found = next((piece for length in self._lengths if (piece := text[at : at + length]) in self.ids), "")
            if found:
                yield at, len(found)
            at += 1

    def _at_borders(self, text: str) -> frozenset[int]:
        if not self.ids:
            return frozenset()
        longest = self._lengths[0]
        end = len(text.rstrip())
        start = max(end - longest + 1, 0)
        places: list[int] = []
        if not self._begin_with.isdisjoint(text[start:end]):
            places += [place for place in range(start, end) if text[place:end] in self._beginnings]
        begin = len(text) - len(text.lstrip())
        stop = min(begin + longest - 1, end)
        if not self._end_with.isdisjoint(text[begin:stop]):
            places += [place for place in range(begin, stop) if text[begin : place + 1] in self._endings]
        return frozenset(places)

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        """Of the texts, the longest first."""
        return tuple(sorted({len(text) for text in self.ids}, reverse=True))

    @cached_property
    def _begin_with(self) -> frozenset[str]:
        return frozenset(text[0] for text in self.ids)

    @cached_property
    def _end_with(self) -> frozenset[str]:
        return frozenset(text[-1] for text in self.ids)

    @cached_property
    def _heads(self) -> re.Pattern[str] | None:
        """Where a text may begin. A vocabulary of nothing but control tokens must not make this slow."""
        heads = {text[:_HEAD] for text in self.ids}
        if len(heads) > _MANY_HEADS:
            return re.compile(f"[{re.escape(''.join(self._begin_with))}]")
        ordered = sorted(heads, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, ordered))) if ordered else None

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        return frozenset(text[:length] for text in self.ids for length in range(1, len(text)))

    @cached_property
    def _endings(self) -> frozenset[str]:
        return frozenset(text[-length:] for text in self.ids for length in range(1, len(text)))


NO_MARKUP = Markup()


def is_mark(text: str) -> bool:
    """Whether a user-defined token is written as turn marks are: some files type these so (`<｜User｜>`)."""
    return _MARK.fullmatch(text) is not None


@lru_cache(maxsize=16)
def _with(markup: Markup, text: str, id_: int) -> Markup:
    return Markup({**markup.ids, text: id_})
