"""Whether a text can be read in ever more ways the longer it grows, as `a` … by `(a*)*` or `a*a*`; or in very many
within a token, as by `a?a?a?` …. Pure.

What checks a text against a grammar follows all of its readings at once: such a grammar makes each token dearer than
the last. Judged by the places of a pattern where a character stands, and which of them may follow each other: two
readings of one text are two rows of places. Counts are taken for no counts at all, so that a pattern of any counts has
few places; what has one reading so has one with its counts, which only leave some out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import TypeVar

from puna.grammar import pattern
from puna.grammar.gbnf import Rules, contains, intersection
from puna.grammar.pattern import Concatenation, Either, One, PatternNode, Times

FEW = 64
"""Texts whose lengths differ by no more cannot be read in ever more ways."""

TOKEN = 12
"""Characters of a long token."""

MOST_WAYS = 20_000
"""In which a token may be read. llama.cpp goes each of them for each token that it tries: some milliseconds."""

LONG_RUN = 1_000
"""Characters of a run of one length that count as one of any length."""

_FEW_CHOICES = 14
"""So many, each taken or not, make no more ways than MOST_WAYS."""

_TRIED = 4
"""Characters that are tried at a place."""

_SMALL = 4
"""A count up to which it is taken for what it is."""
_MOST_STEPS = 200_000
_WORK = 10
"""Steps here that count as one of reading a schema."""

_Ranges = tuple[tuple[int, int], ...]
_T = TypeVar("_T")


def many(node: PatternNode, rules: Rules) -> bool:
    """Whether some text of a tree without edges and look-ahead may have more than one reading, and there is no near end
    to how many; or a token has very many. True also where that takes too much work to find out. Counts its work with
    that of `rules`.
    """
    found = _found_out(node)
    rules.spend(found.work // _WORK)
    return found.grow or found.spread


def spread(node: PatternNode) -> bool:
    """Whether a token may have very many readings, or it takes too much work to find out."""
    return _found_out(node).spread


@dataclass(frozen=True, slots=True)
class _Found:
    """`grow`: the longer a text, the more readings. `spread`: a token may have very many. `work`: the steps taken."""

    grow: bool
    spread: bool
    work: int


@lru_cache(maxsize=512)
def _found_out(node: PatternNode) -> _Found:
    """Kept: the same tools come again and again."""
    shortest, longest = pattern.lengths(node)
    calm = (longest is not None and longest - shortest <= FEW) or _repetitions(node) < 2
    places = _Places()
    try:
        spread = places.read(node).spread()
        return _Found(not calm and places.grow(), spread, places.work)
    except _TooMuchWork:
        return _Found(not calm, _loose(node) > _FEW_CHOICES, places.work)


def _loose(node: PatternNode) -> int:
    """How often something may be there or not, or go on or not."""
    match node:
        case Concatenation(parts) | Either(parts):
            return sum(map(_loose, parts))
        case Times(item, low, high):
            return _loose(item) * (1 if high == 1 else 2) + (high != low)
        case _:
            return 0


def breadth(node: PatternNode) -> int | None:
    """How often its repetitions may go on longer than they must, all together: about how many readings may be open at
    once. None: without end.
    """
    match node:
        case Concatenation(parts) | Either(parts):
            found = [breadth(part) for part in parts]
            return None if None in found else sum(one for one in found if one is not None)
        case Times(item, low, high):
            inner = breadth(item)
            run = low if low > LONG_RUN else 0
            return None if high is None or inner is None else high - low + run + inner * high
        case _:
            return 0


def _repetitions(node: PatternNode) -> int:
    """How many repetitions may be of different lengths, up to about two. What is repeated itself counts twice, and so
    does a repetition of more than single characters, which may be cut in several ways.
    """
    match node:
        case Concatenation(parts) | Either(parts):
            return sum(_repetitions(part) for part in parts)
        case Times(One(), low, high):
            # A long run of one length that may begin anywhere is as many runs at once.
            return int(high not in (low, 1) or low > LONG_RUN)
        case Times(item, _, high):
            return _repetitions(item) if high == 1 else 2
        case _:
            return 0


class _TooMuchWork(Exception):
    pass


@dataclass(slots=True)
class _Part:
    """Where a part of the pattern may begin and end, by how many ways; `empty`: it may be nothing."""

    first: Counter[int]
    last: Counter[int]
    empty: bool


@dataclass(slots=True)
class _Places:
    """`characters`: by place; `kinds`: their numbers. `after`: the places that may follow each, by how many ways."""

    characters: list[_Ranges] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    after: list[Counter[int]] = field(default_factory=list)
    first: Counter[int] = field(default_factory=Counter)
    last: Counter[int] = field(default_factory=Counter)
    numbers: dict[_Ranges, int] = field(default_factory=dict)
    shared: dict[tuple[int, int], _Ranges] = field(default_factory=dict)
    work: int = 0

    def read(self, node: PatternNode) -> _Places:
        whole = self._part(node)
        self.first, self.last = whole.first, whole.last
        return self

    def _spend(self, steps: int) -> None:
        self.work += steps
        if self.work > _MOST_STEPS:
            raise _TooMuchWork

    def _part(self, node: PatternNode) -> _Part:
        match node:
            case One(sure, _):
                if not sure:
                    return _Part(Counter(), Counter(), empty=False)
                self._spend(1)
                self.characters.append(sure)
                self.kinds.append(self.numbers.setdefault(sure, len(self.numbers)))
                self.after.append(Counter())
                place = Counter({len(self.characters) - 1: 1})
                return _Part(place, place, empty=False)
            case Concatenation(parts):
                row = _Part(Counter(), Counter(), empty=True)
                for part in parts:
                    row = self._row(row, self._part(part))
                return row
            case Either(options):
                found = [self._part(option) for option in options]
                return _Part(
                    sum((one.first for one in found), Counter()),
                    sum((one.last for one in found), Counter()),
                    any(one.empty for one in found),
                )
            case Times(item, low, high):
                return self._times(item, low, high)
            case _:
                return _Part(Counter(), Counter(), empty=True)

    def _row(self, left: _Part, right: _Part) -> _Part:
        self._link(left.last, right.first)
        self._spend(len(right.first) + len(left.last))
        return _Part(
            left.first + right.first if left.empty else left.first,
            left.last + right.last if right.empty else right.last,
            left.empty and right.empty,
        )

    def _times(self, item: PatternNode, low: int, high: int | None) -> _Part:
        if high == 0:
            return _Part(Counter(), Counter(), empty=True)
        if pattern.lengths(item)[0] == 0:
            item, low = pattern.something(item), 0
        if high is not None and high <= _SMALL:
            row = _Part(Counter(), Counter(), empty=True)
            for number in reversed(range(high)):
                row = self._row(self._part(item), row)
                row.empty |= number >= low
            return row
        once = self._part(item)
        self._link(once.last, once.first)
        return _Part(once.first, once.last, low == 0)

    def _link(self, left: Counter[int], right: Counter[int]) -> None:
        self._spend(len(left) * len(right))
        for (place, ways), (following, more) in product(left.items(), right.items()):
            self.after[place][following] += ways * more

    def spread(self) -> bool:
        """Whether the characters of a token can be read from some place on in more than MOST_WAYS ways: followed are
        those that are most in number, at each place.
        """
        begins = Counter(low for ranges in self.characters for low, _ in ranges)
        for code, _ in begins.most_common(_TRIED):
            ways = {place: 1 for place, ranges in enumerate(self.characters) if contains(ranges, code)}
            for _ in range(TOKEN - 1):
                following: Counter[int] = Counter()
                for place, number in ways.items():
                    for to, more in self.after[place].items():
                        following[to] += number * more
                self._spend(sum(len(self.after[place]) for place in ways))
                ways = self._most(following)
                if sum(ways.values()) > MOST_WAYS:
                    return True
                if len(ways) == sum(ways.values()) <= 1:
                    break
        return False

    def _most(self, ways: Mapping[int, int]) -> dict[int, int]:
        """Of these places those where one character stands that most ways have."""
        by_code: Counter[int] = Counter()
        for place, number in ways.items():
            for low, _ in self.characters[place]:
                by_code[low] += number
        found: dict[int, int] = {}
        for code, _ in by_code.most_common(_TRIED):
            held = {place: number for place, number in ways.items() if contains(self.characters[place], code)}
            if sum(held.values()) > sum(found.values()):
                found = held
        return found

    def grow(self) -> bool:
        """Whether a text can be read on both from a place that comes again, and from another one that does, in ever
        more ways.
        """
        loops = [self._reached([place], lambda one: self.after[one]) for place in range(len(self.after))]
        if any(ways > 1 and place in loops[following] for place, following, ways in self._steps()):
            return True
        after: dict[tuple[int, int], list[tuple[int, int]]] = {}

        def following(pair: tuple[int, int]) -> list[tuple[int, int]]:
            if pair not in after:
                after[pair] = self._both(self.after[pair[0]], self.after[pair[1]])
            return after[pair]

        ends = self._ending(self._reached([(place, place) for place in range(len(self.after))], following), after)
        pairs = (
            (place, second if place == first else first)
            for place in range(len(self.after))
            if place in loops[place]
            for first, second in self._reached([(place, place)], following) & ends
            if first != second and place in (first, second)
        )
        return any(other in loops[other] and self._again_and_again(place, other) for place, other in pairs)

    def _again_and_again(self, place: int, other: int) -> bool:
        """Whether one text leads from the place to itself, from there to the other, and from the other to itself: each
        time that it comes is one more reading.
        """

        def following(places: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
            first, second, third = (self.after[one] for one in places)
            for one, two in product(first, second):
                both = self._shared(one, two)
                self._spend(1 + (len(third) if both else 0))
                yield from ((one, two, three) for three in third if intersection(both, self.characters[three]))

        return (place, other, other) in self._reached([(place, place, other)], following)

    def _steps(self) -> Iterator[tuple[int, int, int]]:
        return ((place, to, ways) for place, after in enumerate(self.after) for to, ways in after.items())

    def _reached(self, begin: list[_T], after: Callable[[_T], Iterable[_T]]) -> set[_T]:
        """What follows any of `begin`, directly or not."""
        reached: set[_T] = set()
        waiting = [*begin]
        while waiting:
            new = set(after(waiting.pop())) - reached
            self._spend(1 + len(new))
            reached |= new
            waiting += new
        return reached

    def _ending(
        self, pairs: set[tuple[int, int]], after: Mapping[tuple[int, int], list[tuple[int, int]]]
    ) -> set[tuple[int, int]]:
        """The pairs from which both readings come to an end by the same text."""
        before: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for pair in pairs:
            for following in after[pair]:
                before.setdefault(following, []).append(pair)
        ends = {pair for pair in pairs if pair[0] in self.last and pair[1] in self.last}
        return ends | self._reached([*ends], lambda pair: before.get(pair, []))

    def _both(self, left: Counter[int], right: Counter[int]) -> list[tuple[int, int]]:
        """Pairs of places at which one character can stand, the smaller number first."""
        self._spend(len(left) * len(right))
        pairs = {(min(one, other), max(one, other)) for one, other in product(left, right)}
        return [pair for pair in pairs if self._shared(*pair)]

    def _shared(self, one: int, other: int) -> _Ranges:
        """The characters that can stand at both places."""
        kinds = self.kinds[one], self.kinds[other]
        if kinds[0] == kinds[1]:
            return self.characters[one]
        pair = min(kinds), max(kinds)
        if pair not in self.shared:
            self.shared[pair] = intersection(self.characters[one], self.characters[other])
        return self.shared[pair]
