"""Markup: the texts that a vocabulary reads as control tokens, and where they stand in other texts. Pure.

User-defined tokens that are written as control tokens are (`is_mark`) count as such: some files have no other type for
the marks of turns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from types import MappingProxyType

_SWALLOWS = ("phi-3", "phi3")

_MARK = re.compile(r"<[|｜][^\s<>]+[|｜]>")

_FEW, _HEAD, _MANY_HEADS, _STRETCH = 4, 3, 256, 1 << 16


def swallows(name: str) -> bool:
    """Whether control tokens of a model of this name (`general.name`) swallow the white space behind them.

    Files cannot say so; llama.cpp goes by the name too.
    """
    return any(part in name.lower() for part in _SWALLOWS)


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

    def hidden(self, text: str, other: Callable[[str], str]) -> str:
        """`text`, some of its characters exchanged so that no control token's text can have any part of it.

        These are the first of each that is whole; of one that could begin at the end (white space aside, which
        templates cut), the first; of one that could end at the beginning, the last. `other`: what stands for one.
        """
        pieces: list[str] = []
        end = 0
        for place in sorted(self._at_borders(text)):
            pieces += (text[end:place], other(text[place]))
            end = place + 1
        text = "".join((*pieces, text[end:]))
        for whole in self._present(text):
            text = text.replace(whole, other(whole[0]) + whole[1:])
        return text

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
        while at < len(text):
            # Looked through in stretches: one look at all of a large text would keep every other thread waiting.
            match = self._heads.search(text, at, at + _STRETCH)
            if match is None:
                at += _STRETCH - _HEAD + 1
                continue
            at = match.start()
            found = next((piece for length in self._lengths if (piece := text[at : at + length]) in self.ids), "")
            if found:
                yield at, len(found)
            at += 1

    def _present(self, text: str) -> Iterable[str]:
        """The control tokens' texts that are in `text`, and perhaps some that are not."""
        if len(self._by_head) > _MANY_HEADS:
            return {text[begin : begin + length] for begin, length in self._found(text)}
        return [whole for head, texts in self._by_head.items() if head in text for whole in texts]

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
        if len(self._by_head) > _MANY_HEADS:
            return re.compile(f"[{re.escape(''.join(self._begin_with))}]")
        ordered = sorted(self._by_head, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, ordered))) if ordered else None

    @cached_property
    def _by_head(self) -> dict[str, list[str]]:
        heads: dict[str, list[str]] = {}
        for text in self.ids:
            heads.setdefault(text[:_HEAD], []).append(text)
        return heads

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
