"""Texts that keep patterns, formats and lengths, all at once: their characters as expressions of a grammar. Pure.

One pattern is written as it stands, if its texts have one reading (`puna.grammar.readings`). Several, or one that looks
ahead or can be read in many ways, become one machine (`puna.grammar.regular`); where that would be too large,
repetitions are cut shorter, which allows less than the schema does and never more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from puna.grammar import pattern, readings
from puna.grammar.formats import SHORT, SHORT_FORMATS, STRING_FORMATS
from puna.grammar.gbnf import NEVER, Chars, Expression, Rules
from puna.grammar.pattern import ANYTHING, Concatenation, Edge, Look, One, PatternError, PatternNode, Times
from puna.grammar.regular import Automaton, Languages, TooManyStates
from puna.grammar.shapes import SchemaError

MAX_STATES = 1_500
MAX_WORK = 55_000
MOST_READINGS = 1_000
"""How many readings of a text a grammar may have open at once, about."""
_SHORTER = ((200, 16), (64, 8), (32, 4), (24, 3), (16, 2), (12, 2), (12, 1), (8, 1), (4, 1), (2, 1), (1, 1))
"""How often a character, and anything longer, may repeat, where only that keeps a text within its length."""

_ANY = Times(ANYTHING, 0, None)

_Write = Callable[[Chars], Expression]


@dataclass(frozen=True, slots=True)
class Condition:
    """A `pattern`, found somewhere in the text, or the name of a `format`, which is all of it.

    `without`: a pattern that must not be found.
    """

    keyword: Literal["pattern", "format"]
    text: str
    path: str
    without: bool = False

    def node(self, *, short: bool = False) -> PatternNode:
        """`short`: for texts of at most SHORT characters. Raises SchemaError."""
        try:
            if self.keyword == "format":
                text = SHORT_FORMATS.get(self.text) if short else None
                return pattern.whole(pattern.parse(text or STRING_FORMATS[self.text]))
            found = pattern.searched(pattern.parse(self.text))
            return Concatenation((Look(found, without=True), _ANY)) if self.without else found
        except PatternError as error:
            raise SchemaError(self.path, self.keyword, str(error)) from error


def characters(
    rules: Rules,
    conditions: tuple[Condition, ...],
    low: int,
    high: int | None,
    written: _Write,
    *,
    but: frozenset[str] = frozenset(),
) -> Expression:
    """Of a text of `low` to `high` characters that keeps all of `conditions`, at least one, and is none of `but`; NEVER
    if there is none.

    Raises SchemaError, naming the last of the conditions, if that cannot be written.
    """
    short = high is not None and high <= SHORT
    others = tuple(_other_than(text) for text in sorted(but))
    nodes = tuple(dict.fromkeys((*(condition.node(short=short) for condition in conditions), *others)))
    exact = _written(rules, nodes, low, high, written)
    if exact is not None:
        return exact
    for narrower in _narrower(conditions, high):
        found = _widest(
            [(*nodes, *others) for nodes in narrower], lambda nodes: _written(rules, nodes, low, high, written)
        )
        if found is not None:
            return found
    last = conditions[-1]
    together = ", with the other patterns, formats and lengths" if len(conditions) > 1 or low or high else ""
    raise SchemaError(last.path, last.keyword, f"its grammar would be too large{together}")


def _other_than(text: str) -> PatternNode:
    """Anything but this text."""
    same = Concatenation((*(One(((ord(char), ord(char)),), ((ord(char), ord(char)),)) for char in text), Edge(False)))
    return Concatenation((Look(same, without=True), _ANY))


def _narrower(conditions: tuple[Condition, ...], high: int | None) -> Iterator[list[tuple[PatternNode, ...]]]:
    """Conditions that allow less, from much to little: first by what formats repeat, then by all that is repeated."""
    formats = any(condition.keyword == "format" for condition in conditions)
    for endless in (False, True) if formats else (True,):
        series = [
            tuple(
                pattern.shortened(condition.node(), most, groups, endless=endless)
                if endless or condition.keyword == "format"
                else condition.node()
                for condition in conditions
            )
            for most, groups in _SHORTER
        ]
        yield [short for short in series if high is None or _ends_within(short, high)]


def _ends_within(nodes: tuple[PatternNode, ...], high: int) -> bool:
    longest = _longest(nodes)
    return longest is not None and longest <= high


def _widest(
    series: list[tuple[PatternNode, ...]], write: Callable[[tuple[PatternNode, ...]], Expression | None]
) -> Expression | None:
    """The first that is not too large and has a text; what comes after one that is not too large is not either.

    What is cut shorter says nothing of what there is: one without a text is passed over.
    """
    known: dict[int, Expression | None] = {}
    first, end = 0, len(series)
    while first < end:
        middle = (first + end) // 2
        known[middle] = write(series[middle])
        if known[middle] is None:
            first = middle + 1
        else:
            end = middle
    for place in range(first, len(series)):
        found = known[place] if place in known else write(series[place])
        if found is not None and found != NEVER:
            return found
    return None


def _written(
    rules: Rules, nodes: tuple[PatternNode, ...], low: int, high: int | None, written: _Write
) -> Expression | None:
    """None: it would be too large."""
    longest = _longest(nodes)
    low = 0 if any(pattern.lengths(node)[0] >= low for node in nodes) else low
    high = None if high is not None and longest is not None and longest <= high else high
    if len(nodes) == 1 and not pattern.looks(nodes[0]):
        try:
            return _alone(rules, pattern.within(nodes[0], low, high), written)
        except PatternError:
            pass
    if high is not None and high > SHORT and longest is not None:
        # Each of many lengths of a text that counts its parts is a state.
        return None
    machine = rules.heavy((nodes, low, high), lambda: _machine(nodes, low, high))
    return None if machine is None else machine.expression(rules, written)


def whole(rules: Rules, node: PatternNode, written: _Write) -> Expression:
    """The texts of a tree without edges. PatternError if it looks ahead, or can be read in too many ways."""
    found = _alone(rules, node, written)
    if found is None:
        raise PatternError("repetitions of the same characters in each other or in a row, too many to tell apart")
    return found


def _alone(rules: Rules, node: PatternNode, written: _Write) -> Expression | None:
    """As it stands where each text has one reading, or there are few; else as a machine. None: it would be too
    large.
    """
    if readings.many(node, rules):
        machine = rules.heavy(((node,), 0, None), lambda: _machine((node,), 0, None))
        if machine is not None:
            return machine.expression(rules, written)
        open_at_once = readings.breadth(node)
        if open_at_once is None or open_at_once > MOST_READINGS or readings.spread(node):
            return None
    return pattern.expression(node, rules, written)


@lru_cache(maxsize=128)
def _machine(nodes: tuple[PatternNode, ...], low: int, high: int | None) -> tuple[Automaton | None, int]:
    """None: it would be too large. And the work of finding out. Kept: agents send the same tools again and again."""
    most = min((one for one in (_longest(nodes), high) if one is not None), default=None)
    if most is not None and len(nodes) > 1:
        nodes = tuple(node if pattern.lengths(node)[1] == most else pattern.uncounted(node, most) for node in nodes)
    languages = Languages(limit=MAX_WORK)
    try:
        wanted = [pattern.language(node, languages) for node in nodes]
        if (low, high) != (0, None):
            wanted.append(languages.times(languages.one(((0, 0x10FFFF),)), low, high))
        return languages.machine(languages.both(wanted), most=MAX_STATES), languages.work
    except (TooManyStates, RecursionError):  # a long row of parts that may be nothing is looked through in one go
        return None, languages.work


def _longest(nodes: tuple[PatternNode, ...]) -> int | None:
    known = [longest for node in nodes if (longest := pattern.lengths(node)[1]) is not None]
    return min(known, default=None)
