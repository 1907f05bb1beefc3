"""Regular languages put together by and, or, and not: what a text has to match when several patterns hold at once.

Pure. A language is a term; what may follow a character is another one, its derivative (Brzozowski). The terms that can
be reached are the states of a machine without a choice, and the machine is written as rules of a grammar: one way to
read each text, in memory that does not grow. Machines can be large where counts meet; all that is done is counted and
bounded.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from puna.grammar.gbnf import (
    EMPTY,
    NEVER,
    Chars,
    Expression,
    Ref,
    Rules,
    choice,
    contains,
    intersection,
    seq,
    union,
)

Ranges = tuple[tuple[int, int], ...]
_ALL: Ranges = ((0, 0x10FFFF),)
_DONE = 0x110000
_MOST_JOINED = 300
"""States among which those are looked for that are alike: that takes steps as the square of their number."""
_FARTHEST = 1_000
"""How far into a language is looked for another one."""


class TooManyStates(Exception):
    """The machine would be larger, or take more work to find out, than it may."""


@dataclass(frozen=True, slots=True, eq=False)
class Language:
    """A set of texts. Made by Languages only: equal ones are one object there. `empty`: the empty text is in it."""

    number: int
    kind: Literal["none", "empty", "one", "row", "either", "both", "not", "times"]
    parts: tuple[Language, ...] = ()
    ranges: Ranges = ()
    low: int = 0
    high: int | None = None
    empty: bool = False
    letters: Ranges = ()
    """Characters outside of which none of its texts has any."""
    longest: int | None = None
    """No text of it has more characters; None: not known."""
    edges: tuple[int, ...] = (0,)
    """Code points, sorted, from each of which on to the next the same may follow."""


@dataclass(slots=True)
class Languages:
    """Makes languages, and keeps what it found out about them. `work`: how much that was; past `limit` it gives up with
    TooManyStates.
    """

    limit: int | None = None
    work: int = 0
    _known: dict[tuple[object, ...], Language] = field(default_factory=dict)
    _after: dict[tuple[int, int], Language] = field(default_factory=dict)

    none: Language = field(init=False)
    """No text."""
    nothing: Language = field(init=False)
    """The empty text alone."""
    anything: Language = field(init=False)
    """Every text."""

    def __post_init__(self) -> None:
        self.none, self.nothing = self._make("none"), self._make("empty")
        self.anything = self._make("times", (self._make("one", ranges=_ALL),), low=0, high=None)

    def _spend(self, steps: int) -> None:
        self.work += steps
        if self.limit is not None and self.work > self.limit:
            raise TooManyStates

    def _make(self, kind: str, parts: tuple[Language, ...] = (), **about: object) -> Language:
        key = (kind, *(part.number for part in parts), *about.values())
        if key not in self._known:
            self._spend(2)
            self._known[key] = _language(len(self._known), kind, parts, about)
        return self._known[key]

    # -- making

    def one(self, ranges: Ranges) -> Language:
        return self._make("one", ranges=ranges) if ranges else self.none

    def row(self, first: Language, rest: Language) -> Language:
        """A text of `first`, then one of `rest`."""
        if first.kind == "none" or rest.kind == "none":
            return self.none
        if first.kind == "empty":
            return rest
        if rest.kind == "empty":
            return first
        if first.kind == "row":
            return self.row(first.parts[0], self.row(first.parts[1], rest))
        begin = rest.parts[0] if rest.kind == "row" else rest
        if _is_endless_filler(first) and _is_endless_filler(begin):
            if _within(first.letters, begin.letters):
                return rest
            if _within(begin.letters, first.letters):
                return self._make("row", (first, rest.parts[1])) if rest.kind == "row" else first
        return self._make("row", (first, rest))

    def either(self, options: Iterable[Language]) -> Language:
        found, ranges = self._flat("either", options)
        if ranges:
            found.add(self.one(union(part for one in ranges for part in one)))
        found.discard(self.none)
        if self.anything in found:
            return self.anything
        if any(option.empty and option.kind != "empty" for option in found):
            found.discard(self.nothing)
        for option in [option for option in found if _is_filler(option) or _is_filled(option)]:
            found -= {other for other in found if other is not option and self._has(option, other)}
        return self._of_many("either", found, self.none)

    def _has(self, filler: Language, language: Language) -> bool:
        """Whether what is, or begins with, any text of certain characters surely has all the texts of another
        language: those are texts of such characters, or end in it after such characters.
        """
        if _is_filler(filler):
            near = filler.high is None or (language.longest is not None and language.longest <= filler.high)
            return near and _within(language.letters, filler.letters)
        letters = filler.parts[0].letters
        for _ in range(_FARTHEST):
            self.work += 1
            language = self._begun(language)
            if language.kind != "row" or not _within(language.parts[0].letters, letters):
                return False
            language = language.parts[1]
            if language is filler:
                return True
        return False

    def _begun(self, language: Language) -> Language:
        """The same; the first of the items, if it begins with some that must come, on its own."""
        first, *rest = language.parts if language.kind == "row" else (language,)
        if first.kind != "times" or not first.low or first.parts[0].kind == "one":
            return language
        high = None if first.high is None else first.high - 1
        others = self.times(first.parts[0], first.low - 1, high)
        return self.row(first.parts[0], self.row(others, rest[0]) if rest else others)

    def both(self, conditions: Iterable[Language]) -> Language:
        """The texts that are in all of them."""
        found, ranges = self._flat("both", conditions)
        if ranges:
            common = _ALL
            for one in ranges:
                common = intersection(common, one)
            found.add(self.one(common))
        found.discard(self.anything)
        if self.none in found:
            return self.none
        if self.nothing in found:
            return self.nothing if all(condition.empty for condition in found) else self.none
        return self._of_many("both", found, self.anything)

    def other(self, language: Language) -> Language:
        """The texts that are not in it."""
        if language.kind == "not":
            return language.parts[0]
        if language is self.none:
            return self.anything
        return self.none if language is self.anything else self._make("not", (language,))

    def times(self, item: Language, low: int, high: int | None) -> Language:
        if high == 0 or item.kind == "empty":
            return self.nothing
        if item.kind == "none":
            return self.none if low else self.nothing
        if (low, high) == (1, 1):
            return item
        return self._make("times", (item,), low=0 if item.empty else low, high=high)

    def _flat(self, kind: str, many: Iterable[Language]) -> tuple[set[Language], list[Ranges]]:
        """The parts of parts of this kind, and, apart, the sets of characters among them."""
        found: set[Language] = set()
        for one in many:
            found.update(one.parts if one.kind == kind else (one,))
        ranges = [one.ranges for one in found if one.kind == "one"]
        return ({one for one in found if one.kind != "one"}, ranges)

    def _of_many(self, kind: str, found: set[Language], if_none: Language) -> Language:
        if len(found) < 2:
            return next(iter(found), if_none)
        return self._make(kind, tuple(sorted(found, key=lambda one: one.number)))

    # -- reading

    def after(self, language: Language, code: int) -> Language:
        """What may follow this character."""
        code = language.edges[bisect_right(language.edges, code) - 1]
        key = language.number, code
        if key not in self._after:
            self._spend(max(len(language.parts), 1))
            self._after[key] = self._derive(language, code)
        return self._after[key]

    def _derive(self, language: Language, code: int) -> Language:
        parts = language.parts
        match language.kind:
            case "one":
                return self.nothing if contains(language.ranges, code) else self.none
            case "row":
                rest = self.row(self.after(parts[0], code), parts[1])
                return self.either((rest, self.after(parts[1], code))) if parts[0].empty else rest
            case "either":
                return self.either(self.after(part, code) for part in parts)
            case "both":
                return self.both(self.after(part, code) for part in parts)
            case "not":
                return self.other(self.after(parts[0], code))
            case "times":
                high = None if language.high is None else language.high - 1
                again = self.times(parts[0], max(language.low - 1, 0), high)
                return self.row(self.after(parts[0], code), again)
            case _:
                return self.none

    def holds(self, language: Language, text: str) -> bool:
        for char in text:
            language = self.after(language, ord(char))
            if language.kind == "none":
                return False
        return language.empty

    def machine(self, language: Language, *, most: int) -> Automaton:
        """The states that its texts go through; TooManyStates if there are more than `most`."""
        steps: dict[Language, dict[Language, Ranges]] = {}
        waiting = [language]
        while waiting:
            state = waiting.pop()
            if state in steps:
                continue
            if len(steps) >= most:
                raise TooManyStates
            found: dict[Language, list[tuple[int, int]]] = {}
            for low, above in zip(state.edges, (*state.edges[1:], _DONE), strict=True):
                target = self.after(state, low)
                if target.kind != "none":
                    found.setdefault(target, []).append((low, above - 1))
            steps[state] = {target: union(ranges) for target, ranges in found.items()}
            waiting += found
        live = _live(steps)
        numbers = {state: number for number, state in enumerate(state for state in steps if state in live)}
        whole = Automaton(
            tuple(
                AutomatonState(
                    state.empty, tuple((numbers[to], ranges) for to, ranges in steps[state].items() if to in live)
                )
                for state in numbers
            )
        )
        return whole.least()


def _is_filler(language: Language) -> bool:
    """Any text of certain characters, of up to a certain length."""
    return language.kind == "times" and language.low == 0 and language.parts[0].kind == "one"


def _is_endless_filler(language: Language) -> bool:
    return _is_filler(language) and language.high is None


def _within(letters: Ranges, others: Ranges) -> bool:
    return union((*letters, *others)) == others


def _is_filled(language: Language) -> bool:
    """Any text of certain characters, and something after it."""
    return language.kind == "row" and _is_endless_filler(language.parts[0])


def _language(number: int, kind: str, parts: tuple[Language, ...], about: dict[str, object]) -> Language:
    edges = {edge for part in (parts[:1] if kind == "row" and not parts[0].empty else parts) for edge in part.edges}
    letters: Ranges = union(letter for part in parts for letter in part.letters)
    highs = [part.longest for part in parts]
    known = [high for high in highs if high is not None]
    longest: int | None = None
    match kind:
        case "one":
            ranges: Ranges = about["ranges"]  # type: ignore[assignment]
            letters = ranges
            longest = 1
            edges = {edge for low, high in ranges for edge in (low, high + 1) if edge < _DONE}
            empty = False
        case "row":
            empty = all(part.empty for part in parts)
            longest = sum(known) if len(known) == len(parts) else None
        case "either":
            empty = any(part.empty for part in parts)
            longest = max(known) if len(known) == len(parts) else None
        case "both":
            empty = all(part.empty for part in parts)
            letters = min((part.letters for part in parts), key=len)
            longest = min(known, default=None)
        case "not":
            empty = not parts[0].empty
            letters = _ALL
        case "times":
            empty = about["low"] == 0
            high: int | None = about["high"]  # type: ignore[assignment]
            longest = None if high is None or highs[0] is None else highs[0] * high
        case _:
            empty = kind == "empty"
            longest = 0
    edge = tuple(sorted({0} | edges))
    return Language(number, kind, parts, empty=empty, letters=letters, longest=longest, edges=edge, **about)  # type: ignore[arg-type]


def _live(steps: dict[Language, dict[Language, Ranges]]) -> set[Language]:
    """The states from which the text can end."""
    before: dict[Language, list[Language]] = {}
    for state, targets in steps.items():
        for target in targets:
            before.setdefault(target, []).append(state)
    waiting = [state for state in steps if state.empty]
    live: set[Language] = set()
    while waiting:
        state = waiting.pop()
        if state not in live:
            live.add(state)
            waiting += before.get(state, ())
    return live


@dataclass(frozen=True, slots=True)
class AutomatonState:
    """A state of an automaton.

    `ends`: the text may end here. `steps`: the number of the state after, and the characters that lead there.
    """

    ends: bool
    steps: tuple[tuple[int, Ranges], ...]


@dataclass(frozen=True, slots=True)
class Automaton:
    """A finite automaton that reads exactly the texts of a language.

    The first state is where a text begins; without any, there is no text. From each there is a way to an end.
    """

    states: tuple[AutomatonState, ...]

    def expression(self, rules: Rules, written: Callable[[Chars], Expression]) -> Expression:
        """As rules of a grammar: one a state, rows of states that only follow each other in one."""
        if not self.states:
            return NEVER
        return rules.once((self, written), lambda: _Writing(self.states, rules, written).state(0))

    def least(self) -> Automaton:
        """The same texts in as few states as can be."""
        if len(self.states) > _MOST_JOINED:
            return self
        blocks: list[int] = [int(state.ends) for state in self.states]
        while True:
            signs = [self._sign(number, blocks) for number in range(len(self.states))]
            numbers = {sign: number for number, sign in enumerate(dict.fromkeys(signs))}
            finer = [numbers[sign] for sign in signs]
            if len(numbers) == len(set(blocks)):
                return Automaton(
                    tuple(
                        AutomatonState(ends, steps)
                        for _, ends, steps in dict.fromkeys(
                            (block, state.ends, self._sign(number, finer)[1])
                            for number, (block, state) in enumerate(zip(finer, self.states, strict=True))
                        )
                    )
                )
            blocks = finer

    def _sign(self, number: int, blocks: list[int]) -> tuple[int, tuple[tuple[int, Ranges], ...]]:
        """What tells a state from the others of its block: where it leads."""
        found: dict[int, list[tuple[int, int]]] = {}
        for target, ranges in self.states[number].steps:
            found.setdefault(blocks[target], []).extend(ranges)
        return blocks[number], tuple(sorted((block, union(ranges)) for block, ranges in found.items()))


class _Writing:
    """A machine on its way to rules."""

    def __init__(
        self, states: tuple[AutomatonState, ...], rules: Rules, written: Callable[[Chars], Expression]
    ) -> None:
        self.states = states
        self.rules = rules
        self.written = written
        self.entries = Counter(target for state in states for target, _ in state.steps)
        self.names: dict[int, Ref] = {}
        self.waiting: list[int] = []

    def state(self, start: int) -> Ref:
        root = self._name(start)
        while self.waiting:
            number = self.waiting.pop()
            self.rules.define(self.names[number], self._body(number))
        return root

    def _name(self, number: int) -> Ref:
        if number not in self.names:
            self.names[number] = self.rules.reserve("state")
            self.waiting.append(number)
        return self.names[number]

    def _body(self, number: int) -> Expression:
        state = self.states[number]
        again: Expression = EMPTY
        options: list[Expression] = [EMPTY] if state.ends else []
        for target, ranges in state.steps:
            if target == number:
                again = self.rules.repeat(self.written(Chars(ranges)), 0, None)
            else:
                options.append(self._way(target, ranges))
        return seq(again, choice(*options))

    def _way(self, number: int, ranges: Ranges) -> Expression:
        """From one character on, as far as nothing else leads there or away."""
        row = [self.written(Chars(ranges))]
        state = self.states[number]
        while number not in self.names and self.entries[number] == 1 and len(state.steps) == 1 and not state.ends:
            [(following, ranges)] = state.steps
            if following == number:
                break
            row.append(self.written(Chars(ranges)))
            number, state = following, self.states[following]
        return seq(*row) if state.ends and not state.steps else seq(*row, self._name(number))
