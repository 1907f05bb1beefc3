"""Rules that end in a rule, turned round: each begins with what came before it. Pure; the texts stay the same.

The constraint library keeps, at every character, all that is not over yet. Of `text: "" | letter text` that is one rule
a character: each has to end with the one inside it. Of `text: "" | text letter` it is one rule, however long the text.
GBNF has only the first form, since llama.cpp, which forgets a rule as soon as its last part begins, refuses the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from puna.grammar.gbnf import EMPTY, Alternation, Expression, Ref, Repeat, Sequence, choice, references, seq

MOST_RULES = 20_000
"""New rules at most; what would take more stays as it was."""


def turned(rules: Mapping[str, Expression]) -> dict[str, Expression]:
    """The rules that `root` uses, none of which goes on with itself in its last part, by whatever way."""
    circles = _circles({name: {tail for tail in _tails(body) if tail in rules} for name, body in rules.items()})
    result: dict[str, Expression] = {}
    waiting, new = ["root"], 0
    while waiting:
        name = waiting.pop()
        if name in result:
            continue
        made = {name: rules[name]}
        if name in circles and new < MOST_RULES:
            made = _Turning(rules, circles[name], name).rules()
            new += len(made)
        result |= made
        waiting += {used for body in made.values() for used in references(body) if used in rules}
    return result


def _tails(body: Expression) -> Iterator[str]:
    """Names of the rules that it may end in."""
    match body:
        case Ref(name):
            yield name
        case Sequence(parts):
            yield from _tails(parts[-1])
        case Alternation(options):
            for option in options:
                yield from _tails(option)
        case Repeat(item, 0, 1):
            yield from _tails(item)
        case _:
            pass


def _circles(after: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    """By name, for those that lead back to themselves: all that it leads to and that lead to it (Kosaraju)."""
    before: dict[str, list[str]] = {name: [] for name in after}
    for name, following in after.items():
        for one in following:
            before[one].append(name)
    found: dict[str, frozenset[str]] = {}
    seen: set[str] = set()
    for start in reversed(_in_order_of_ending(after)):
        if start in seen:
            continue
        circle, waiting = {start}, [start]
        while waiting:
            new = {name for name in before[waiting.pop()] if name not in seen and name not in circle}
            circle |= new
            waiting += new
        seen |= circle
        if len(circle) > 1 or start in after[start]:
            found |= dict.fromkeys(circle, frozenset(circle))
    return found


def _in_order_of_ending(after: Mapping[str, set[str]]) -> list[str]:
    """Each after all that a search, depth first, finds behind it."""
    ended: list[str] = []
    seen: set[str] = set()
    for start in after:
        way = [(start, iter(after[start]))] if start not in seen else []
        seen.add(start)
        while way:
            name, rest = way[-1]
            following = next((one for one in rest if one not in seen), None)
            if following is None:
                way.pop()
                ended.append(name)
            else:
                seen.add(following)
                way.append((following, iter(after[following])))
    return ended


class _Turning:
    """One rule, and those of its circle, written as what came before each of them."""

    def __init__(self, rules: Mapping[str, Expression], circle: frozenset[str], entry: str) -> None:
        self.bodies = rules
        self.circle = circle
        self.entry = entry
        self.before: dict[str, list[Expression]] = {entry: [EMPTY]}
        """By rule: the ways from the beginning of `entry` to it."""
        self.whole: list[Expression] = []
        self.parts: dict[str, Expression] = {}
        self.waiting = [entry]

    def rules(self) -> dict[str, Expression]:
        for name in self.waiting:
            self._follow(self._name(name), self.bodies[name])
        return {
            self.entry: choice(*self.whole),
            **{self._name(name).name: choice(*ways) for name, ways in self.before.items()},
            **self.parts,
        }

    def _name(self, name: str) -> Ref:
        return Ref(f"{self.entry} {name}")

    def _follow(self, come: Ref, body: Expression) -> None:
        """What has `come` goes on with `body`: notes where to."""
        match body:
            case Ref(name) if name in self.circle:
                self._reach(name, come)
            case Sequence((*first, Ref(name))) if name in self.circle:
                self._reach(name, seq(come, *first))
            case Sequence((*first, last)) if self._stays(last):
                part = Ref(f"{self.entry} part {len(self.parts)}")
                self.parts[part.name] = seq(come, *first)
                self._follow(part, last)
            case Alternation(options) if self._stays(body):
                for option in options:
                    self._follow(come, option)
            case Repeat(item, 0, 1) if self._stays(body):
                self.whole.append(come)
                self._follow(come, item)
            case _:
                self.whole.append(seq(come, body))

    def _reach(self, name: str, way: Expression) -> None:
        if name not in self.before:
            self.before[name] = []
            self.waiting.append(name)
        self.before[name].append(way)

    def _stays(self, body: Expression) -> bool:
        return any(tail in self.circle for tail in _tails(body))
