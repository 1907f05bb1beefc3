"""Regular expressions, as expressions of a grammar: the part of ECMAScript's syntax that a grammar can hold exactly.

Pure. Handled: characters and escapes, `.`, classes, `\\d \\w \\s` and their opposites, `\\p{…}`, groups, alternation,
quantifiers, look-ahead, `^` and `$` at the ends. Refused by name: look-behind, back-references, word boundaries, flags,
anchors elsewhere. What looks ahead is written by way of `language`, all else by way of `expression`.

Dialects differ in what `\\d`, `\\w` and `\\s` hold beyond ASCII. A grammar writes only characters that all of them
agree on, so a text that it allows matches in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from puna.grammar.gbnf import (
    Chars,
    Expression,
    Repeat,
    Rules,
    choice,
    complement,
    contains,
    intersection,
    seq,
    union,
)
from puna.grammar.properties import property_ranges
from puna.grammar.regular import Language, Languages, TooManyStates

MAX_PATTERN = 4_000
MAX_COUNT = 100_000
_MAX_NESTING = 40
_MAX_UNROLLED = 8
_MOST_STEPS = 200_000

Ranges: TypeAlias = tuple[tuple[int, int], ...]


class PatternError(Exception):
    """Why a pattern cannot be held: a short phrase."""


# ------------------------------------------------------------------------------------------------------------ tree


@dataclass(frozen=True, slots=True)
class One:
    """One character: surely in the set in every dialect (`sure`), or in some (`maybe`)."""

    sure: Ranges
    maybe: Ranges


@dataclass(frozen=True, slots=True)
class Edge:
    """Begin or end of the text: `^` (start) or `$`."""

    start: bool


@dataclass(frozen=True, slots=True)
class Concatenation:
    """One after the other."""

    parts: tuple[PatternNode, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of these."""

    options: tuple[PatternNode, ...]


@dataclass(frozen=True, slots=True)
class Times:
    """A repetition."""

    item: PatternNode
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """A look ahead: `item` must, or must not (`without`), match from here on."""

    item: PatternNode
    without: bool


PatternNode: TypeAlias = One | Edge | Concatenation | Either | Times | Look

NOTHING = Concatenation(())


def _range(low: str, high: str) -> tuple[int, int]:
    return ord(low), ord(high)


_DIGITS: Ranges = (_range("0", "9"),)
_WORD: Ranges = union((_range("0", "9"), _range("A", "Z"), _range("a", "z"), _range("_", "_")))
_SPACE: Ranges = union((_range("\t", "\r"), _range(" ", " ")))
_BEYOND_ASCII: Ranges = ((0x80, 0x10FFFF),)
_MAYBE_SPACE: Ranges = union(
    (
        *_SPACE,
        (0x1C, 0x1F),
        (0x85, 0x85),
        (0xA0, 0xA0),
        (0x1680, 0x1680),
        (0x180E, 0x180E),
        (0x2000, 0x200B),
        (0x2028, 0x2029),
        (0x202F, 0x202F),
        (0x205F, 0x205F),
        (0x3000, 0x3000),
        (0xFEFF, 0xFEFF),
    )
)
# Blocks without a digit in any script: Latin, Greek, Cyrillic, Armenian, Hebrew; CJK ideographs; kana; emoji.
_NO_DIGITS: Ranges = ((0x80, 0x5FF), (0x3041, 0x30FF), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF))
_MAYBE_DIGITS: Ranges = union((*_DIGITS, *intersection(_BEYOND_ASCII, complement(_NO_DIGITS))))

_SHORTHANDS: dict[str, One] = {
    "d": One(_DIGITS, _MAYBE_DIGITS),
    "w": One(_WORD, union((*_WORD, *_BEYOND_ASCII))),
    "s": One(_SPACE, _MAYBE_SPACE),
}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_NEWLINES: Ranges = union(_range(c, c) for c in "\n\r\u2028\u2029")
_ANY = One(complement(union((*_NEWLINES, (0x85, 0x85)))), complement(_NEWLINES[:1]))
_CONTROL: Ranges = ((0, 8), (0x0B, 0x1F), (0x7F, 0x9F))
ANYTHING = One(complement(_CONTROL), complement(()))
"""Any text around a match; without control characters, which nobody means to write."""


def _exactly(code: int) -> One:
    return One(((code, code),), ((code, code),))


def _opposite(one: One) -> One:
    return One(complement(one.maybe), complement(one.sure))


# ---------------------------------------------------------------------------------------------------------- parser


class _Parser:
    """Recursive descent over one pattern."""

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        self.at = 0
        self.depth = 0
        self.names: set[str] = set()

    def parse(self) -> PatternNode:
        node = self.alternatives()
        if self.at < len(self.text):
            raise PatternError(f"unbalanced ')' at {self.at}")
        return node

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        char = self.peek()
        if not char:
            raise PatternError("it ends too early")
        self.at += 1
        return char

    def skip(self, word: str) -> bool:
        if self.text.startswith(word, self.at):
            self.at += len(word)
            return True
        return False

    def alternatives(self) -> PatternNode:
        options = [self.row()]
        while self.skip("|"):
            options.append(self.row())
        return options[0] if len(options) == 1 else Either(tuple(options))

    def row(self) -> PatternNode:
        parts: list[PatternNode] = []
        while self.peek() not in ("", "|", ")"):
            parts.append(self.quantified(self.atom()))
        return parts[0] if len(parts) == 1 else Concatenation(tuple(parts))

    def quantified(self, node: PatternNode) -> PatternNode:
        counts = self.counts()
        if counts is None:
            return node
        if isinstance(node, Edge):
            raise PatternError("a quantifier after an anchor")
        if isinstance(node, Look):
            raise PatternError("a quantifier after a look-ahead")
        low, high = counts
        self.skip("?")
        if self.peek() == "+" or self.counts() is not None:
            raise PatternError("a quantifier after a quantifier")
        if max(low, high or 0) > MAX_COUNT:
            raise PatternError(f"a count over {MAX_COUNT}")
        if high is not None and low > high:
            raise PatternError(f"the counts {{{low},{high}}} are out of order")
        return Times(node, low, high)

    def counts(self) -> tuple[int, int | None] | None:
        for sign, counts in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.skip(sign):
                return counts
        if self.peek() != "{":
            return None
        end = self.text.find("}", self.at)
        low, comma, high = self.text[self.at + 1 : max(end, 0)].partition(",")
        if not _number(low) or (high and not _number(high)):
            if not low and comma and _number(high):
                raise PatternError("a count without its beginning")
            return None
        self.at = end + 1
        return int(low), (int(high) if high else None) if comma else int(low)

    def atom(self) -> PatternNode:
        char = self.take()
        match char:
            case "(":
                return self.group()
            case "[":
                return self.character_class()
            case ".":
                return _ANY
            case "^" | "$":
                return Edge(char == "^")
            case "\\":
                return self.escape()
            case "*" | "+" | "?":
                raise PatternError(f"nothing to repeat at {self.at - 1}")
            case _:
                return _exactly(ord(char))

    def group(self) -> PatternNode:
        look = ""
        if self.skip("?"):
            if self.skip("<=") or self.skip("<!"):
                raise PatternError("look-behind")
            if self.peek() in ("=", "!"):
                look = self.take()
            elif self.peek() in ("P", "<"):
                self.name()
            elif not self.skip(":"):
                raise PatternError(f"the group '(?{self.peek()}'")
        self.depth += 1
        if self.depth > _MAX_NESTING:
            raise PatternError(f"more than {_MAX_NESTING} groups inside each other")
        node = self.alternatives()
        self.depth -= 1
        if not self.skip(")"):
            raise PatternError("a group that is not closed")
        return Look(node, look == "!") if look else node

    def name(self) -> None:
        """Of a group, which says nothing of what it matches: `<name>`, or `P<name>` as Python writes it."""
        self.skip("P")
        end = self.text.find(">", self.at)
        name = self.text[self.at + 1 : end]
        if self.peek() != "<" or not name.isidentifier() or name in self.names:
            raise PatternError("a group with a name that is none, or is another's")
        self.names.add(name)
        self.at = end + 1

    def escape(self) -> One:
        char = self.take()
        if char.lower() in _SHORTHANDS:
            one = _SHORTHANDS[char.lower()]
            return one if char.islower() else _opposite(one)
        if char in _CONTROLS and not (char == "0" and self.peek().isdigit()):
            return _exactly(ord(_CONTROLS[char]))
        if char in "xu":
            return _exactly(self.hexadecimal(2 if char == "x" else 4))
        if char in "bB":
            raise PatternError("a word boundary")
        if char in "kK" or char.isdigit():
            raise PatternError("a back-reference")
        if char in "pP":
            one = self.property_class()
            return one if char == "p" else _opposite(one)
        if char.isalnum():
            raise PatternError(f"the escape \\{char}")
        return _exactly(ord(char))

    def property_class(self) -> One:
        end = self.text.find("}", self.at)
        if self.peek() != "{" or end < 0:
            raise PatternError("the class \\p without its name")
        name = self.text[self.at + 1 : end]
        self.at = end + 1
        known = property_ranges(name)
        if known is None:
            raise PatternError(f"the class \\p{{{name}}}")
        return One(*known)

    def hexadecimal(self, width: int) -> int:
        digits = self.text[self.at : self.at + width]
        if len(digits) != width or any(c not in "0123456789abcdefABCDEF" for c in digits):
            raise PatternError("an escape without its hexadecimal digits")
        self.at += width
        code = int(digits, 16)
        if 0xD800 <= code <= 0xDFFF:
            raise PatternError("half a surrogate pair")
        return code

    def character_class(self) -> One:
        negate = self.skip("^")
        members: list[One] = []
        while self.peek() != "]":
            first = self.member()
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                members.append(_between(first, self.member()))
            else:
                members.append(first)
        if not members:
            raise PatternError("an empty class")
        self.at += 1
        together = One(
            union(part for one in members for part in one.sure), union(part for one in members for part in one.maybe)
        )
        return _opposite(together) if negate else together

    def member(self) -> One:
        char = self.take()
        if char == "[" and self.peek() == ":":
            raise PatternError("a named class [:…:]")
        if char != "\\":
            return _exactly(ord(char))
        return _exactly(8) if self.skip("b") else self.escape()


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _between(first: One, last: One) -> One:
    low, high = first.sure[0][0], last.sure[-1][1]
    if first != _exactly(low) or last != _exactly(high):
        raise PatternError("a range that begins or ends with a class")
    if low > high:
        raise PatternError(f"the range {chr(low)}-{chr(high)} is out of order")
    return One(((low, high),), ((low, high),))


# ------------------------------------------------------------------------------------------- from tree to grammar


def parse(pattern: str) -> PatternNode:
    """PatternError says what of it cannot be held."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"more than {MAX_PATTERN} characters")
    return _Parser(pattern).parse()


def searched(node: PatternNode) -> PatternNode:
    """A tree for the whole text, from one that need only match somewhere in it: anchors become plain ends."""
    rest = Times(ANYTHING, 0, None)
    return _whole(
        Concatenation((*(() if start else (rest,)), body, *(() if end else (rest,))))
        for start, body, end in _ends(node)
    )


def whole(node: PatternNode) -> PatternNode:
    """A tree for the whole text, from one that must match all of it: anchors at its ends mean nothing more."""
    return _whole(body for _, body, _ in _ends(node))


def _whole(many: Iterable[PatternNode]) -> PatternNode:
    options = tuple(many)
    for option in options:
        if _has_edge(option):
            raise PatternError("an anchor in the middle")
        if looks(option):
            language(option, Languages())
    return options[0] if len(options) == 1 else Either(options)


def _ends(node: PatternNode) -> list[tuple[bool, PatternNode, bool]]:
    """The alternatives of a tree, without the anchors at their ends, and whether there were any."""
    match node:
        case Either(options):
            return [end for option in options for end in _ends(option)]
        case Edge(start):
            return [(start, NOTHING, not start)]
        case Concatenation((Edge(True), *middle)) if any(isinstance(part, Look) for part in middle[:1]):
            return [(True, body, end) for _, body, end in _ends(Concatenation(_begun(middle)))]
        case Concatenation((first, *middle)) if middle and _has_edge(first):
            return [
                (start, Concatenation((body, rest)), end)
                for start, body, first_end in _ends(first)
                for rest_start, rest, end in _ends(Concatenation(tuple(middle)))
                if _not_inside(first_end or rest_start)
            ]
        case Concatenation((*middle, last)) if middle and _has_edge(last):
            return [
                (start, Concatenation((body, rest)), end)
                for start, body, _ in _ends(Concatenation(tuple(middle)))
                for last_start, rest, end in _ends(last)
                if _not_inside(last_start)
            ]
        case Concatenation((only,)):
            return _ends(only)
        case _:
            return [(False, node, False)]


def _begun(parts: Sequence[PatternNode]) -> tuple[PatternNode, ...]:
    """What follows a `^`: in what looks ahead there, another `^` says nothing more."""
    looking = next((index for index, part in enumerate(parts) if not isinstance(part, Look)), len(parts))
    return (
        *(Look(_without_start(part.item), part.without) for part in parts[:looking] if isinstance(part, Look)),
        *parts[looking:],
    )


def _without_start(node: PatternNode) -> PatternNode:
    match node:
        case Edge(True):
            return NOTHING
        case Concatenation((Edge(True), *rest)):
            return Concatenation(tuple(rest))
        case Either(options):
            return Either(tuple(_without_start(option) for option in options))
        case _:
            return node


def _not_inside(edge: bool) -> bool:
    if edge:
        raise PatternError("an anchor in the middle")
    return True


def _has_edge(node: PatternNode) -> bool:
    match node:
        case Edge():
            return True
        case Concatenation(items) | Either(items):
            return any(_has_edge(item) for item in items)
        case Times(item, _, _):
            return _has_edge(item)
        case _:
            return False


def looks(node: PatternNode) -> bool:
    """Whether it looks ahead anywhere."""
    match node:
        case Look():
            return True
        case Concatenation(items) | Either(items):
            return any(looks(item) for item in items)
        case Times(item, _, _):
            return looks(item)
        case _:
            return False


def language(node: PatternNode, languages: Languages, *, sure: bool = True) -> Language:
    """What a tree without anchors at its ends matches: `sure`, in every dialect, else in some. PatternError."""
    return _then(node, languages.nothing, languages, sure)


def _then(node: PatternNode, rest: Language, languages: Languages, sure: bool) -> Language:
    """What it matches, followed by `rest`, which it may look into."""
    match node:
        case One(certain, maybe):
            return languages.row(languages.one(certain if sure else maybe), rest)
        case Concatenation(parts):
            for part in reversed(parts):
                rest = _then(part, rest, languages, sure)
            return rest
        case Either(options):
            return languages.either(_then(option, rest, languages, sure) for option in options)
        case Times(item, low, high):
            if looks(item):
                return _unrolled(node, rest, languages, sure)
            inner = _then(item, languages.nothing, languages, sure)
            return languages.row(languages.times(inner, low, high), rest)
        case Look(item, without):
            # What surely must not match is what may not match in any dialect.
            seen = _then(item, languages.anything, languages, sure != without)
            return languages.both((rest, languages.other(seen) if without else seen))
        case Edge(start):
            if start:
                raise PatternError("an anchor in the middle")
            return languages.both((rest, languages.nothing))


def _unrolled(node: Times, rest: Language, languages: Languages, sure: bool) -> Language:
    """A few repetitions of what looks into what follows."""
    if node.high is None or node.high > _MAX_UNROLLED:
        raise PatternError("a look-ahead that is repeated")
    after = rest
    for number in range(node.high):
        once = _then(node.item, after, languages, sure)
        after = once if number >= node.high - node.low else languages.either((rest, once))
    return after


def unmetered(steps: int) -> None:
    """Work that nobody counts."""


def found(pattern: str, text: str, spend: Callable[[int], None] = unmetered) -> bool:
    """Whether a pattern is found in `text` in some dialect. PatternError for one that cannot be held.

    `spend` is told of the work, about a microsecond a step, before it is done; what it raises ends it.
    """
    spend(len(pattern))
    return matches(searched(parse(pattern)), text, spend)


def matches(node: PatternNode, text: str, spend: Callable[[int], None] = unmetered) -> bool:
    """Whether a tree without anchors matches all of `text` in some dialect, in polynomial time whatever it is."""
    if looks(node):
        languages = Languages(limit=_MOST_STEPS)
        spend(len(text))
        try:
            return languages.holds(language(node, languages, sure=False), text)
        except TooManyStates:
            return True
        finally:
            spend(languages.work)
    return len(text) in _ends_in(node, frozenset({0}), text, spend)


def _ends_in(node: PatternNode, starts: frozenset[int], text: str, spend: Callable[[int], None]) -> frozenset[int]:
    """Where matches end that begin at any of `starts`."""
    spend(1 + len(starts))
    match node:
        case One(_, maybe):
            return frozenset(at + 1 for at in starts if at < len(text) and contains(maybe, ord(text[at])))
        case Concatenation(parts):
            for part in parts:
                starts = _ends_in(part, starts, text, spend)
            return starts
        case Either(options):
            return frozenset(end for option in options for end in _ends_in(option, starts, text, spend))
        case Times(item, low, high):
            for _ in range(low):
                starts = _ends_in(item, starts, text, spend)
                if not starts:
                    return starts
            found, new, count = starts, starts, low
            while new and (high is None or count < high):
                new = _ends_in(item, new, text, spend) - found
                found, count = found | new, count + 1
            return found
        case _:
            return starts


def lengths(node: PatternNode) -> tuple[int, int | None]:
    """The shortest and the longest text it matches (None: without end)."""
    match node:
        case Concatenation(parts):
            found = [lengths(part) for part in parts]
            highs = [high for _, high in found]
            return sum(low for low, _ in found), None if None in highs else sum(h for h in highs if h is not None)
        case Either(options):
            found = [lengths(option) for option in options]
            highs = [high for _, high in found]
            shortest = min((low for low, _ in found), default=1)
            return shortest, None if None in highs else max((h for h in highs if h is not None), default=1)
        case Times(item, low, high):
            shortest, longest = lengths(item)
            if longest == 0 or high == 0:
                return shortest * low, 0
            return shortest * low, None if longest is None or high is None else longest * high
        case Edge() | Look():
            return 0, 0
        case _:
            return 1, 1


def within(node: PatternNode, low: int, high: int | None) -> PatternNode:
    """The texts of it that have from `low` to `high` characters. PatternError if that cannot be written."""
    shortest, longest = lengths(node)
    if shortest >= low and (high is None or (longest is not None and longest <= high)):
        return node
    if (high is not None and shortest > high) or (longest is not None and longest < low):
        return Either(())
    match node:
        case Concatenation(parts):
            return _row_within(_flat(parts), low, high)
        case Either(options):
            return Either(tuple(within(option, low, high) for option in options))
        case Times(item, least, most) if lengths(item)[0] == lengths(item)[1] != 0:
            width = lengths(item)[0]
            first = max(least, -(-low // width))
            last = most if high is None else high // width if most is None else min(most, high // width)
            return Times(item, first, last) if last is None or first <= last else Either(())
        case _:
            raise PatternError("a length that is not that of one part")


def _row_within(parts: tuple[PatternNode, ...], low: int, high: int | None) -> PatternNode:
    """Where only one part has no fixed length, the bounds are that part's."""
    open_parts = [index for index, part in enumerate(parts) if lengths(part)[0] != lengths(part)[1]]
    if len(open_parts) != 1:
        raise PatternError("several parts of no fixed length, together with minLength or maxLength")
    index = open_parts[0]
    fixed = sum(lengths(part)[0] for part in parts) - lengths(parts[index])[0]
    if high is not None and high < fixed:
        return Either(())
    inner = within(parts[index], max(low - fixed, 0), None if high is None else high - fixed)
    return Concatenation((*parts[:index], inner, *parts[index + 1 :]))


def shortened(node: PatternNode, most: int, groups: int, *, endless: bool = True) -> PatternNode:
    """The same with at most `most` repetitions of a character, and `groups` of anything longer, where fewer do.

    `endless`: also of what has no end.
    """
    match node:
        case Concatenation(parts):
            return Concatenation(tuple(shortened(part, most, groups, endless=endless) for part in parts))
        case Either(options):
            return Either(tuple(shortened(option, most, groups, endless=endless) for option in options))
        case Times(item, low, high):
            inner = shortened(item, most, groups, endless=endless)
            if high is None and not endless:
                return Times(inner, low, None)
            limit = most if lengths(item)[1] == 1 else groups
            return Times(inner, low, max(low, limit if high is None else min(high, limit)))
        case _:
            return node


def uncounted(node: PatternNode, longest: int) -> PatternNode:
    """The same for texts of at most `longest` characters, without counts that none of these reaches."""
    match node:
        case Concatenation(parts):
            return Concatenation(tuple(uncounted(part, longest) for part in parts))
        case Either(options):
            return Either(tuple(uncounted(option, longest) for option in options))
        case Look(item, without):
            return Look(uncounted(item, longest), without)
        case Times(item, low, high):
            reached = high is not None and max(lengths(item)[0], 1) * high < longest
            return Times(uncounted(item, longest), low, high if reached else None)
        case _:
            return node


def _flat(parts: tuple[PatternNode, ...]) -> tuple[PatternNode, ...]:
    return tuple(leaf for part in parts for leaf in (_flat(part.parts) if isinstance(part, Concatenation) else (part,)))


def something(node: PatternNode) -> PatternNode:
    """The same without the empty text."""
    if lengths(node)[0] > 0:
        return node
    match node:
        case Concatenation(parts):
            return Either(tuple(Concatenation((something(part), *parts[i + 1 :])) for i, part in enumerate(parts)))
        case Either(options):
            return Either(tuple(something(option) for option in options))
        case Times(item, _, high):
            return Times(something(item), 1, high)
        case _:
            return Either(())


def expression(node: PatternNode, rules: Rules, written: Callable[[Chars], Expression]) -> Expression:
    """`written` gives the notation of one character out of a set, where the text stands (raw, or in a JSON string)."""
    match node:
        case One(sure, _):
            return written(Chars(sure))
        case Concatenation(parts):
            return seq(*(expression(part, rules, written) for part in parts))
        case Either(options):
            return choice(*(expression(option, rules, written) for option in options))
        case Times(item, low, high):
            if lengths(item)[0] == 0:
                # A repetition of what may be nothing is left recursion to llama.cpp: repeat what is something.
                item, low = something(item), 0
            inner = expression(item, rules, written)
            return rules.repeat(rules.add(inner, "part") if isinstance(inner, Repeat) else inner, low, high)
        case Look():
            raise PatternError("look-ahead")
        case Edge():
            raise PatternError("an anchor in the middle")
