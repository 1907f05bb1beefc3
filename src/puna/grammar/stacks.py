"""How many readings of a text a grammar may keep open at once, above all where its rules lead back to themselves. Pure.

What checks a text follows all that may yet have to come; llama.cpp keeps each as a stack of its own. Of rules such as
`s ::= "a" s "b" | "a" s "c" | "a"` there are twice as many after each character, and a server is held for minutes. So
texts are looked for that keep many open, by the same stacks. Whether there is one cannot be decided in general; what
is found is enough for a refusal, and what is not found within bounds has proven slow to come by.

Alternatives that begin alike are first written so that they begin once, which many schemas of trees need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from puna.grammar.gbnf import (
    EMPTY,
    Alternation,
    Chars,
    Expression,
    GrammarTooLarge,
    Ref,
    Repeat,
    Rules,
    Sequence,
    Terminal,
    choice,
    contains,
    references,
    seq,
    written,
)

MOST_OPEN = 1_000
"""Stacks that may be open at a character of any text."""

MOST_GROWING = 40
"""The same where longer texts open ever more."""

MOST_PATHS = 50_000
"""Ways from stack to stack by three characters. Of tokens that a grammar refuses late llama.cpp follows each way by
itself, though ways meet again: so of `r ::= s | "a" s`, 250 of those in each other, one token takes minutes.
"""

MOST_WORK = 15_000
"""Steps from rule to rule to come to the stacks that are open at one character: whoever follows a text takes them."""

_LENGTH = 120
"""Characters of the texts that are looked for."""
_TEXTS = 3
"""How many are followed at once: those with the most stacks."""
_WAYS = 6
"""Characters that are tried after each of them."""
_MOST_STEPS = 60_000
_MOST_STEPS_OF_ALL = 16 * _MOST_STEPS
"""Those of rules that lead to each other are followed by themselves."""
_MOST_COUNTING = 250_000
"""Steps to count ways between stacks."""
_FACTORED_DEPTH = 40
_KEPT = 256


class TooManyReadings(GrammarTooLarge):
    """The message says so, without a subject."""

    def __init__(self) -> None:
        super().__init__(
            "a text of it can be read in ever more ways at once: its alternatives begin alike, and what tells them "
            "apart comes after parts that hold each other"
        )


def readable(rules: Rules, root: Expression) -> str:
    """The grammar's text, as `Rules.text`, written so that no text of it is found to keep many readings open.

    Raises TooManyReadings, and what `Rules.text` does.
    """
    bodies = rules.final(root)
    text = written(bodies)
    if not (_embeds(bodies) or _places(bodies) > MOST_OPEN) or not _known_many(text, bodies):
        return text
    bodies = _factored(bodies)
    text = written(bodies)
    if _known_many(text, bodies):
        raise TooManyReadings
    return text


_known: dict[str, bool] = {}


def _known_many(text: str, bodies: Mapping[str, Expression]) -> bool:
    """As `many`; kept, because the same tools come again and again."""
    if text not in _known:
        while len(_known) >= _KEPT:
            _known.pop(next(iter(_known)), None)
        _known[text] = many(bodies)
    return _known[text]


def many(bodies: Mapping[str, Expression]) -> bool:
    """Whether some text was found that keeps more than MOST_OPEN stacks open, or takes MOST_WORK to find them, or has
    MOST_PATHS between them, or keeps MOST_GROWING open and ever more.
    """
    return _Search(bodies, _embeds(bodies)).many()


# ------------------------------------------------------------------------------------------------ which rules embed


def _embeds(bodies: Mapping[str, Expression]) -> bool:
    """Whether a rule leads back to itself with something left to come after it. Else there are as many stacks as
    `_places` at most.
    """
    ring = _rings_of(bodies)
    return any(ring.get(used) == ring[name] for name, body in bodies.items() if name in ring for used in _inner(body))


def _places(bodies: Mapping[str, Expression]) -> int:
    """Characters and classes of the grammar, each as often as ways lead there from the root: a rule that holds another
    twice has twice its places. Rules that lead back to each other have theirs together, once.
    """
    ring = _rings_of(bodies)
    known: dict[str | int, int] = {}

    def places(body: Expression, within: str) -> int:
        match body:
            case Alternation(parts) | Sequence(parts):
                return sum(places(part, within) for part in parts)
            case Repeat(item, low, high):
                return places(item, within) * max(low, high or 0, 1)
            case Ref(name):
                back = name in ring and ring[name] == ring.get(within)
                return 0 if back else known.get(ring.get(name, name), 0)
            case Terminal(text):
                return len(text)
            case _:
                return 1

    for name in _inner_first(bodies):
        key = ring.get(name, name)
        known[key] = known.get(key, 0) + places(bodies[name], name)
    return known[ring.get("root", "root")]


def _inner_first(bodies: Mapping[str, Expression]) -> Iterator[str]:
    """Names of the rules that the root needs, each after those that it refers to, but for what leads back to it."""
    seen = {"root"}
    way = [("root", references(bodies["root"]))]
    while way:
        name, rest = way[-1]
        following = next((one for one in rest if one in bodies and one not in seen), None)
        if following is None:
            way.pop()
            yield name
        else:
            seen.add(following)
            way.append((following, references(bodies[following])))


def _rings_of(bodies: Mapping[str, Expression]) -> dict[str, int]:
    """A number for each set of rules that lead to each other."""
    return _rings({name: set(references(body)) for name, body in bodies.items()})


def _rings(after: Mapping[str, set[str]]) -> dict[str, int]:
    """The same, of the names of which each leads to others (Tarjan's, without recursion)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    ring: dict[str, int] = {}
    path: list[str] = []
    places: dict[str, int] = {}  # of those on the path
    for start in after:
        if start in number:
            continue
        way: list[tuple[str, Iterator[str]]] = [(start, iter(after[start]))]
        number[start] = low[start] = len(number)
        places[start] = len(path)
        path.append(start)
        while way:
            name, rest = way[-1]
            following = next((one for one in rest if one in after), None)
            if following is None:
                way.pop()
                if way:
                    low[way[-1][0]] = min(low[way[-1][0]], low[name])
                if low[name] == number[name]:
                    members = path[places[name] :]
                    del path[places[name] :]
                    for member in members:
                        del places[member]
                    if len(members) > 1 or name in after[name]:
                        ring.update(dict.fromkeys(members, number[name]))
                    # No way leads back to them from what is looked at later.
                    low.update(dict.fromkeys(members, len(after)))
            elif following not in number:
                number[following] = low[following] = len(number)
                places[following] = len(path)
                path.append(following)
                way.append((following, iter(after[following])))
            elif following in places:
                low[name] = min(low[name], number[following])
    return ring


def _inner(body: Expression) -> Iterator[str]:
    """Names of rules that something may come after, in this body."""
    match body:
        case Sequence(parts):
            for part in parts[:-1]:
                yield from references(part)
            yield from _inner(parts[-1])
        case Alternation(options):
            for option in options:
                yield from _inner(option)
        case Repeat(item, _, high):
            yield from _inner(item) if high == 1 else references(item)
        case _:
            pass


# -------------------------------------------------------------------------------------------------- begin only once


def _factored(bodies: Mapping[str, Expression]) -> dict[str, Expression]:
    """The same rules, but for those that nothing uses any more."""
    used: dict[str, Expression] = {}
    waiting = ["root"]
    while waiting:
        name = waiting.pop()
        if name in bodies and name not in used:
            used[name] = _once(bodies[name], bodies, 0)
            waiting += references(used[name])
    return used


def _once(body: Expression, bodies: Mapping[str, Expression], depth: int) -> Expression:
    """The same texts; alternatives that begin alike begin once."""
    if depth > _FACTORED_DEPTH:
        return body
    match body:
        case Sequence(parts):
            return seq(*(_once(part, bodies, depth + 1) for part in parts))
        case Repeat(item, low, high):
            return Repeat(_once(item, bodies, depth + 1), low, high)
        case Alternation(options):
            groups: dict[Expression | None, list[tuple[Expression, tuple[Expression, ...]]]] = {}
            for option in options:
                row = _opened(_row(option), bodies)
                groups.setdefault(_first(row), []).append((option, row))
            if len(groups) == len(options):
                return choice(*(_once(option, bodies, depth + 1) for option in options))
            parted: list[Expression] = []
            for first, members in groups.items():
                if first is None or len(members) == 1:
                    parted += [_once(option, bodies, depth + 1) for option, _ in members]
                else:
                    begin, rests = _begin([row for _, row in members])
                    parted.append(seq(*begin, _once(choice(*(seq(*rest) for rest in rests)), bodies, depth + 1)))
            return choice(*parted)
        case _:
            return body


def _row(body: Expression) -> tuple[Expression, ...]:
    return body.parts if isinstance(body, Sequence) else () if body == EMPTY else (body,)


def _opened(row: tuple[Expression, ...], bodies: Mapping[str, Expression]) -> tuple[Expression, ...]:
    """With what a first rule begins with in its place, where that is one row of its own."""
    for _ in range(_FACTORED_DEPTH):
        if not row or not isinstance(row[0], Ref):
            return row
        body = bodies.get(row[0].name)
        if body is None or not isinstance(body, Sequence | Terminal):
            return row
        row = (*_row(body), *row[1:])
    return row


def _first(row: tuple[Expression, ...]) -> Expression | None:
    """What it begins with: one character of a text, or a whole part. None: nothing."""
    if not row:
        return None
    head = row[0]
    return Terminal(head.text[0]) if isinstance(head, Terminal) else head


def _begin(rows: list[tuple[Expression, ...]]) -> tuple[list[Expression], list[tuple[Expression, ...]]]:
    """All that these rows begin with alike, and what is left of each."""
    begin: list[Expression] = []
    while True:
        first = _first(rows[0])
        if first is None or any(_first(row) != first for row in rows):
            return begin, rows
        begin.append(first)
        rows = [_rest(row) for row in rows]


def _rest(row: tuple[Expression, ...]) -> tuple[Expression, ...]:
    head = row[0]
    if isinstance(head, Terminal) and len(head.text) > 1:
        return (Terminal(head.text[1:]), *row[1:])
    return row[1:]


# ---------------------------------------------------------------------------------------------------- a search


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """A part of the grammar as it lies on a stack."""

    body: Expression
    at: int = 0
    """Of a Terminal: characters that have come. Of a Sequence: parts. Of a Repeat: times."""


_Stack = tuple["_Place", "object"]
"""What has to come first, and the stack below; None: nothing. Equal ones are one object."""


@dataclass(slots=True)
class _Search:
    bodies: Mapping[str, Expression]
    embeds: bool
    places: dict[tuple[int, int], _Place] = field(default_factory=dict)
    stacks: dict[tuple[int, int], _Stack] = field(default_factory=dict)
    after: dict[int, list[_Stack]] = field(default_factory=dict)
    kept: list[Expression] = field(default_factory=list)
    steps: int = 0
    """From rule to rule, to find stacks; `counting`: to count the ways between them."""
    counting: int = 0
    dearest: int = 0
    """Steps that one character took, at most."""

    def many(self) -> bool:
        """Texts of the whole are followed, and those of a rule of each ring by themselves: they lie at the end of a way
        on which there is more to look at, such as any other text.
        """
        rings = {ring: name for name, ring in _rings_of(self.bodies).items()}
        return any(self._many(name) for name in dict.fromkeys(("root", *rings.values())))

    def _many(self, name: str) -> bool:
        """Also if it takes too long to tell."""
        texts = [self._open([self._push(self.bodies[name], 0, None)])]
        until, self.counting = self.steps + _MOST_STEPS, 0
        most: list[int] = []
        seen: set[frozenset[int]] = set()
        for _ in range(_LENGTH):
            found: dict[frozenset[int], list[_Stack]] = {}
            for text in texts:
                for following in self._following(text):
                    key = frozenset(map(id, following))
                    if key not in seen:
                        found[key] = following
            if not found:
                break
            seen |= found.keys()
            texts = sorted(found.values(), key=len, reverse=True)[:_TEXTS]
            most.append(len(texts[0]))
            if most[-1] > MOST_OPEN or self.dearest > MOST_WORK or self._paths(texts[0]) > MOST_PATHS:
                return True
            if self.steps > _MOST_STEPS_OF_ALL:
                return True
            if self.steps > until:
                break
        half = len(most) // 2
        early, late = max(most[:half], default=0), max(most[half:], default=0)
        return self.embeds and late > MOST_GROWING and late * 2 > early * 3

    def _following(self, stacks: list[_Stack]) -> Iterator[list[_Stack]]:
        """What is open after one more character, for those characters that most stacks take."""
        begins: dict[int, int] = {}
        for place, _ in stacks:
            for low in self._begins(place):
                begins[low] = begins.get(low, 0) + 1
        taken: dict[frozenset[int], list[_Stack]] = {}
        for code in sorted(begins, key=lambda code: (-begins[code], code))[: _WAYS * 4]:
            holding = [stack for stack in stacks if self._holds(stack[0], code)]
            self.steps += len(stacks)
            taken.setdefault(frozenset(map(id, holding)), holding)
        for holding in sorted(taken.values(), key=len, reverse=True)[:_WAYS]:
            yield self._open([self._passed(stack) for stack in holding])

    def _paths(self, stacks: list[_Stack]) -> int:
        """Ways through three characters from these; more than MOST_PATHS also when they take long to count."""
        found = 0
        for first in stacks:
            for second in self._after(first):
                found += len(self._after(second))
                if found > MOST_PATHS or self.counting > _MOST_COUNTING:
                    return MOST_PATHS + 1
        return found

    def _after(self, stack: _Stack) -> list[_Stack]:
        if id(stack) not in self.after:
            before, self.steps = self.steps, 0
            self.after[id(stack)] = self._open([self._passed(stack)])
            self.steps, self.counting = before, self.counting + self.steps
        return self.after[id(stack)]

    def _begins(self, place: _Place) -> Iterator[int]:
        if isinstance(place.body, Terminal):
            yield ord(place.body.text[place.at])
        elif isinstance(place.body, Chars):
            yield from (low for low, _ in place.body.ranges)

    def _holds(self, place: _Place, code: int) -> bool:
        if isinstance(place.body, Terminal):
            return ord(place.body.text[place.at]) == code
        return isinstance(place.body, Chars) and contains(place.body.ranges, code)

    def _passed(self, stack: _Stack) -> _Stack | None:
        """Without the character on top."""
        place, below = stack
        if isinstance(place.body, Terminal) and place.at + 1 < len(place.body.text):
            return self._push(place.body, place.at + 1, below)
        return below  # type: ignore[return-value]

    def _push(self, body: Expression, at: int, below: object) -> _Stack:
        key = (id(body), at)
        if key not in self.places:
            self.kept.append(body)  # an id is of one thing as long as that lives
            self.places[key] = _Place(body, at)
        place = self.places[key]
        return self.stacks.setdefault((id(place), id(below)), (place, below))

    def _open(self, waiting: list[_Stack | None]) -> list[_Stack]:
        """The stacks with a character on top that these come to."""
        opened: dict[int, _Stack] = {}
        before = self.steps
        seen: set[int] = set()
        todo = [stack for stack in waiting if stack is not None]
        while todo:
            stack = todo.pop()
            if id(stack) in seen:
                continue
            seen.add(id(stack))
            self.steps += 1
            if isinstance(stack[0].body, Chars) or (isinstance(stack[0].body, Terminal) and stack[0].body.text):
                opened[id(stack)] = stack
                continue
            todo += [one for one in self._ways(*stack) if one is not None]
            if len(opened) > 2 * MOST_OPEN or self.steps > _MOST_STEPS:
                break
        self.dearest = max(self.dearest, self.steps - before)
        return [*opened.values()]

    def _ways(self, place: _Place, below: object) -> Iterator[_Stack | None]:
        match place.body:
            case Ref(name):
                body = self.bodies.get(name)
                if body is not None:
                    yield self._push(body, 0, below)
            case Sequence(parts):
                rest = below if place.at + 1 == len(parts) else self._push(place.body, place.at + 1, below)
                yield self._push(parts[place.at], 0, rest)
            case Alternation(options):
                for option in options:
                    yield self._push(option, 0, below)
            case Repeat(item, low, high):
                if place.at >= low:
                    yield below  # type: ignore[misc]
                if high is None or place.at < high:
                    # Once there are enough, how many more came makes no difference where there is no end.
                    after = min(place.at + 1, low) if high is None else place.at + 1
                    yield self._push(item, 0, self._push(place.body, after, below))
            case _:
                yield below  # type: ignore[misc]
