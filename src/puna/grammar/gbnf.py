"""GBNF, llama.cpp's grammar notation: expressions as values, named rules, and their text.

Pure. Knows neither JSON nor schemas. What it writes is read alike by llama.cpp and by converters to Lark, so it keeps
to what both understand: rule names of letters, digits and `-`; no `.`, no `\\u` escapes (characters beyond ASCII stand
for themselves); in a class every ASCII character but letters and digits as `\\xNN`.

llama.cpp turns a repetition over 2,000 into an endless one without a word, and refuses one of exactly that number; so
`repeat` builds large counts from blocks. It also refuses left recursion, and would loop on a rule that can never end:
`Rules.text` leaves out every alternative that has no finite answer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, cast

MAX_RULES = 20_000
MAX_TEXT = 2_000_000
MAX_WORK = 100_000
"""Steps that finding out the rules may take (see `Rules.spend`); some seconds."""
MAX_SMALL_STEPS = 2_000_000
"""Steps that reading a schema and judging its values may take (see `Rules.take`); some seconds."""
MAX_HEAVY_WORK = 400_000
"""Steps that machines of several patterns may take, all together (see `Rules.heavy`); a second or two."""
_BLOCK = 200
_LAST = 0x10FFFF


Made = TypeVar("Made")


class GrammarTooLarge(Exception):
    """The grammar would exceed MAX_RULES rules or MAX_TEXT characters, or takes more than MAX_WORK or MAX_SMALL_STEPS
    to find out.
    """


class NoAnswer(Exception):
    """No finite text matches the grammar."""


# ---------------------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class Terminal:
    """These characters."""

    text: str


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of sorted, disjoint, inclusive ranges of code points."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Ref:
    """Whatever the rule of this name matches."""

    name: str


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """One of these; none at all: nothing matches."""

    options: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A repetition: `item` at least `low` times, at most `high` times (None: without end). Made by `Rules.repeat`."""

    item: Expression
    low: int
    high: int | None


Expression: TypeAlias = Terminal | Chars | Ref | Sequence | Alternation | Repeat

EMPTY = Terminal("")
NEVER = Alternation(())
ANY = Chars(((0, 0x10FFFF),))


def seq(*parts: Expression) -> Expression:
    """All of them in order, neighbouring texts joined."""
    flat: list[Expression] = []
    for part in parts:
        for item in part.parts if isinstance(part, Sequence) else (part,):
            if item == NEVER:
                return NEVER
            if isinstance(item, Terminal) and flat and isinstance(flat[-1], Terminal):
                flat[-1] = Terminal(flat[-1].text + item.text)
            elif item != EMPTY:
                flat.append(item)
    if not flat:
        return EMPTY
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def choice(*options: Expression) -> Expression:
    """Any one of them, duplicates left out."""
    flat: dict[Expression, None] = {}
    for option in options:
        flat.update(dict.fromkeys(option.options if isinstance(option, Alternation) else (option,)))
    return next(iter(flat)) if len(flat) == 1 else Alternation(tuple(flat))


def optional(item: Expression) -> Expression:
    if item in (EMPTY, NEVER):
        return EMPTY
    return Repeat(item, 0, 1)


def chars(characters: str) -> Chars:
    """One of these characters."""
    return Chars(union((ord(c), ord(c)) for c in characters))


def span(first: str, last: str) -> Chars:
    return Chars(((ord(first), ord(last)),))


def but(excluded: Iterable[tuple[int, int]]) -> Chars:
    """Any character outside these ranges."""
    return Chars(complement(union(excluded)))


# ------------------------------------------------------------------------------------------- sets of code points


def union(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sorted, disjoint, neighbours joined."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def complement(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """All other code points."""
    result: list[tuple[int, int]] = []
    start = 0
    for low, high in ranges:
        if start < low:
            result.append((start, low - 1))
        start = high + 1
    if start <= _LAST:
        result.append((start, _LAST))
    return tuple(result)


def intersection(left: tuple[tuple[int, int], ...], right: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """The code points of both. Each is sorted and disjoint, as `union` makes it."""
    result: list[tuple[int, int]] = []
    one = other = 0
    while one < len(left) and other < len(right):
        low, high = max(left[one][0], right[other][0]), min(left[one][1], right[other][1])
        if low <= high:
            result.append((low, high))
        if left[one][1] < right[other][1]:
            one += 1
        else:
            other += 1
    return tuple(result)


def contains(ranges: tuple[tuple[int, int], ...], code: int) -> bool:
    """Ranges as `union` makes them."""
    place = bisect_right(ranges, (code, _LAST))
    return place > 0 and code <= ranges[place - 1][1]


# ---------------------------------------------------------------------------------------------------------- rules


@dataclass(slots=True)
class Rules:
    """Named rules under construction. A name may be reserved first and defined later: that is how recursion is
    written.
    """

    _bodies: dict[str, Expression | None] = field(default_factory=dict)
    _names: dict[Expression, Ref] = field(default_factory=dict)
    _made: dict[Hashable, Expression] = field(default_factory=dict)
    _external: set[str] = field(default_factory=set)
    _work: list[int] = field(default_factory=lambda: [MAX_WORK])
    _small: list[int] = field(default_factory=lambda: [MAX_SMALL_STEPS])
    _heavy: list[int] = field(default_factory=lambda: [MAX_HEAVY_WORK])
    _heavily_made: dict[Hashable, object] = field(default_factory=dict)

    def scratch(self) -> Rules:
        """Rules to try something out, whose work counts with that of these."""
        return Rules(_work=self._work, _small=self._small, _heavy=self._heavy, _heavily_made=self._heavily_made)

    def spend(self, steps: int) -> None:
        """Count work that may grow faster than what is written. Raises GrammarTooLarge."""
        self._work[0] -= steps
        if self._work[0] < 0:
            raise GrammarTooLarge

    def take(self, steps: int) -> None:
        """Count small steps, about a microsecond each: work that is as long as lists are. Raises GrammarTooLarge."""
        self._small[0] -= steps
        if self._small[0] < 0:
            raise GrammarTooLarge

    def heavy(self, key: Hashable, make: Callable[[], tuple[Made | None, int]]) -> Made | None:
        """What `make` gives for this key beside the work that it took, of which there is a share apart: made once, also
        for what is only tried. None when that is used up: who asked is too large, and not all that comes after it.
        """
        if key not in self._heavily_made:
            if self._heavy[0] <= 0:
                return None
            self._heavily_made[key], work = make()
            self._heavy[0] -= work
        return cast("Made | None", self._heavily_made[key])

    def reserve(self, hint: str = "rule") -> Ref:
        """A new name that begins with `hint` (lower-case letters and `-`)."""
        if len(self._bodies) >= MAX_RULES:
            raise GrammarTooLarge
        name = hint if hint not in self._bodies else f"{hint}-{len(self._bodies)}"
        self._bodies[name] = None
        return Ref(name)

    def external(self, name: str) -> Ref:
        """A rule whose text the caller adds himself."""
        self._external.add(name)
        return Ref(name)

    def define(self, ref: Ref, body: Expression) -> Ref:
        self._bodies[ref.name] = body
        return ref

    def add(self, body: Expression, hint: str = "rule") -> Ref:
        """A name for `body`; equal bodies share one."""
        if isinstance(body, Ref):
            return body
        if body not in self._names:
            self._names[body] = self.define(self.reserve(hint), body)
        return self._names[body]

    def once(self, key: Hashable, make: Callable[[], Expression]) -> Expression:
        """What `make` gives for this key, which may define rules: made at the first time."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def repeat(self, item: Expression, low: int, high: int | None) -> Expression:
        """`item` from `low` to `high` times. Unambiguous if `item` is, so that few readings stay open at once."""
        if high is not None and high < low:
            return NEVER
        if high == 0 or item == EMPTY:
            return EMPTY
        if item == NEVER:
            return NEVER if low else EMPTY
        if (low, high) == (1, 1):
            return item
        if not isinstance(item, Ref | Chars) and (low, high) not in ((0, 1), (0, None), (1, None)):
            item = self.add(item)
        if high is None:
            return seq(self._exactly(item, low), Repeat(item, 0, None)) if low > 1 else Repeat(item, low, None)
        if low == high:
            return self._exactly(item, low)
        if high <= _BLOCK:
            return Repeat(item, low, high)
        return seq(self._exactly(item, low), self._at_most(item, high - low))

    def _exactly(self, item: Expression, count: int) -> Expression:
        if count <= _BLOCK:
            return EMPTY if count == 0 else item if count == 1 else Repeat(item, count, count)
        blocks, rest = divmod(count, _BLOCK)
        block = self.add(Repeat(item, _BLOCK, _BLOCK), "block")
        return seq(self._exactly(block, blocks), self._exactly(item, rest))

    def _at_most(self, item: Expression, count: int) -> Expression:
        if count <= _BLOCK:
            return Repeat(item, 0, count) if count else EMPTY
        blocks, rest = divmod(count, _BLOCK)
        block = self.add(Repeat(item, _BLOCK, _BLOCK), "block")
        some = seq(self._at_most(block, blocks - 1), Repeat(item, 0, _BLOCK - 1))
        full = seq(self._exactly(block, blocks), self._at_most(item, rest))
        return self.add(choice(some, full), "count")

    def text(self, root: Expression) -> str:
        """The grammar whose start rule `root` is this expression: only rules that are used and can end.

        Raises NoAnswer if `root` itself cannot, GrammarTooLarge past MAX_TEXT characters.
        """
        return written(self.final(root))

    def final(self, root: Expression) -> dict[str, Expression]:
        """The rules of that grammar; its start is `root`. Raises NoAnswer."""
        ending = self._ending(self._bodies)
        body = _pruned(root, ending)
        if body == NEVER:
            raise NoAnswer
        bodies: dict[str, Expression] = {}
        waiting: list[tuple[str, Expression]] = [("root", body)]
        while waiting:
            name, body = waiting.pop()
            if name in bodies:
                continue
            bodies[name] = body
            new = (used for used in references(body) if used not in bodies and used not in self._external)
            waiting.extend((used, _pruned(self._body(used), ending)) for used in new)
        return bodies

    def bodies(self) -> dict[str, Expression]:
        """All rules that are defined."""
        return {name: body for name, body in self._bodies.items() if body is not None}

    def can_end(self, root: Expression) -> bool:
        """Whether any finite text matches."""
        return _can_end(root, self._ending(self._reached(root)))

    def endless(self) -> str | None:
        """A rule that would be read for ever without a character: it begins with itself, or repeats what may be
        nothing.
        """
        empty = self._empty()
        first = {name: set(_leftmost(self._body(name), empty)) for name in self._bodies}
        done: set[str] = set()
        for name, begins in first.items():
            # Depth-first, with the names on the way: a name met again on its own way is left recursion.
            way: list[tuple[str, Iterator[str]]] = [(name, iter(begins))] if name not in done else []
            on_way = {name}
            while way:
                current, rest = way[-1]
                following = next(rest, None)
                if following is None:
                    way.pop()
                    on_way.discard(current)
                    done.add(current)
                elif following in on_way or following == _LOOP:
                    return current
                elif following not in done and following in first:
                    way.append((following, iter(first[following])))
                    on_way.add(following)
        return None

    def _empty(self) -> set[str]:
        """Names of the rules that the empty text matches."""
        empty: set[str] = set()
        changed = True
        while changed:
            new = {name for name in self._bodies if name not in empty and _may_be_empty(self._body(name), empty)}
            empty |= new
            changed = bool(new)
        return empty

    def _body(self, name: str) -> Expression:
        body = self._bodies.get(name)
        return NEVER if body is None else body

    def _reached(self, root: Expression) -> set[str]:
        """Names of the rules that `root` uses, directly or not. Others may be many: the tools before."""
        reached: set[str] = set()
        waiting = [root]
        while waiting:
            new = set(references(waiting.pop())) - reached
            reached |= new
            waiting.extend(self._body(name) for name in new)
        return reached

    def _ending(self, names: Collection[str]) -> set[str]:
        """Those of these rules that match at least one finite text; they use no others. By who waits for whom."""
        users: dict[str, set[str]] = {}
        for name in names:
            for used in references(self._body(name)):
                users.setdefault(used, set()).add(name)
        ending = set(self._external)
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in ending and _can_end(self._body(name), ending):
                ending.add(name)
                waiting.extend(users.get(name, ()))
        return ending


def references(body: Expression) -> Iterator[str]:
    """Names of the rules that it mentions."""
    match body:
        case Ref(name):
            yield name
        case Sequence(items) | Alternation(items):
            for item in items:
                yield from references(item)
        case Repeat(item, _, _):
            yield from references(item)
        case _:
            pass


_LOOP = "*"
"""Stands for a repetition of nothing among the names of rules."""


def _may_be_empty(body: Expression, empty: set[str]) -> bool:
    match body:
        case Terminal(text):
            return not text
        case Ref(name):
            return name in empty
        case Sequence(parts):
            return all(_may_be_empty(part, empty) for part in parts)
        case Alternation(options):
            return any(_may_be_empty(option, empty) for option in options)
        case Repeat(item, low, _):
            return low == 0 or _may_be_empty(item, empty)
        case _:
            return False


def _leftmost(body: Expression, empty: set[str]) -> Iterator[str]:
    """Names of the rules that may be read before any character."""
    match body:
        case Ref(name):
            yield name
        case Sequence(parts):
            for part in parts:
                yield from _leftmost(part, empty)
                if not _may_be_empty(part, empty):
                    return
        case Alternation(options):
            for option in options:
                yield from _leftmost(option, empty)
        case Repeat(item, _, high):
            if high != 1 and _may_be_empty(item, empty):
                yield _LOOP
            yield from _leftmost(item, empty)
        case _:
            pass


def _can_end(body: Expression, ending: set[str]) -> bool:
    match body:
        case Ref(name):
            return name in ending
        case Sequence(parts):
            return all(_can_end(part, ending) for part in parts)
        case Alternation(options):
            return any(_can_end(option, ending) for option in options)
        case Repeat(item, low, _):
            return low == 0 or _can_end(item, ending)
        case Chars(ranges):
            return bool(ranges)
        case _:
            return True


def _pruned(body: Expression, ending: set[str]) -> Expression:
    """The same without alternatives that never end; NEVER if nothing is left."""
    if not _can_end(body, ending):
        return NEVER
    match body:
        case Sequence(parts):
            return seq(*(_pruned(part, ending) for part in parts))
        case Alternation(options):
            return choice(*(_pruned(option, ending) for option in options if _can_end(option, ending)))
        case Repeat(item, low, high):
            inner = _pruned(item, ending)
            return EMPTY if inner == NEVER else Repeat(inner, low, high)
        case _:
            return body


# ------------------------------------------------------------------------------------------------------------ text

_IN_TEXT: Mapping[str, str] = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def written(bodies: Mapping[str, Expression]) -> str:
    """The text of these rules, in their order. Raises GrammarTooLarge past MAX_TEXT characters."""
    lines: list[str] = []
    size = 0
    for name, body in bodies.items():
        lines.append(f"{name} ::= {_written(body)}\n")
        size += len(lines[-1])
        if size > MAX_TEXT:
            raise GrammarTooLarge
    return "".join(lines)


def quoted(text: str) -> str:
    """A GBNF literal."""
    return '"' + "".join(_IN_TEXT.get(c) or (c if c >= " " else f"\\x{ord(c):02X}") for c in text) + '"'


def _in_class(code: int) -> str:
    char = chr(code)
    return char if code > 0x7F or (char.isascii() and char.isalnum()) else f"\\x{code:02X}"


def _class(ranges: tuple[tuple[int, int], ...]) -> str:
    listed, negate = shorter(ranges)
    if not listed:
        return r"[\x00-\x7F\x80-" + chr(_LAST) + "]"
    body = "".join(_in_class(low) if low == high else f"{_in_class(low)}-{_in_class(high)}" for low, high in listed)
    return f"[^{body}]" if negate else f"[{body}]"


def shorter(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[tuple[int, int], ...], bool]:
    """The ranges to write, and whether they are those left out; none at all: every character."""
    negate = ranges[0][0] == 0 or ranges[-1][1] == _LAST
    return without_surrogates(complement(ranges) if negate else ranges), negate


def without_surrogates(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """The ranges without surrogates: these are no characters of a text, and cannot be written in one."""
    parts = ((low, min(high, 0xD7FF)) for low, high in ranges), ((max(low, 0xE000), high) for low, high in ranges)
    return tuple(sorted((low, high) for part in parts for low, high in part if low <= high))


def _suffix(low: int, high: int | None) -> str:
    match low, high:
        case 0, 1:
            return "?"
        case 0, None:
            return "*"
        case 1, None:
            return "+"
        case _ if low == high:
            return f"{{{low}}}"
        case _:
            return f"{{{low},{'' if high is None else high}}}"


def _written(body: Expression) -> str:
    match body:
        case Alternation(options):
            return " | ".join(_written(option) for option in options)
        case Sequence(parts):
            return " ".join(_atom(part) if isinstance(part, Alternation) else _written(part) for part in parts)
        case Repeat(item, low, high):
            return _atom(item) + _suffix(low, high)
        case Terminal(text):
            return quoted(text)
        case Chars(ranges):
            return _class(ranges)
        case Ref(name):
            return name


def _atom(body: Expression) -> str:
    return _written(body) if isinstance(body, Chars | Ref) else f"({_written(body)})"
