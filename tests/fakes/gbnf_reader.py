"""A second reading of GBNF, apart from the code that writes it: random texts of a grammar, whether it matches one."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Char:
    ranges: tuple[tuple[int, int], ...]
    negated: bool

    def holds(self, char: str) -> bool:
        return any(low <= ord(char) <= high for low, high in self.ranges) != self.negated


@dataclass(frozen=True, eq=False)
class Name:
    name: str


@dataclass(frozen=True, eq=False)
class Row:
    parts: tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Either:
    options: tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Times:
    item: object
    low: int
    high: int | None


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]"}
_RULE = re.compile(r"([a-zA-Z0-9-]+) ::= ")
_NAME = re.compile(r"[a-zA-Z0-9-]+")
_COUNT = re.compile(r"\{(\d+)(,(\d*))?\}")
LONGEST_COUNT = 2000  # llama.cpp reads more as "without end"
FAR = 10**9
NEAR = 5_000
"""Characters that a walk may take more than it must."""


class _Line:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def char(self) -> str:
        char = self.text[self.at]
        self.at += 1
        if char != "\\":
            return char
        kind = self.text[self.at]
        self.at += 1
        if kind == "x":
            self.at += 2
            return chr(int(self.text[self.at - 2 : self.at], 16))
        return _ESCAPES[kind]

    def either(self) -> object:
        options = [self.row()]
        while self.peek() == "|":
            self.at += 1
            options.append(self.row())
        return Either(tuple(options))

    def row(self) -> object:
        parts: list[object] = []
        while True:
            while self.peek() == " ":
                self.at += 1
            if self.peek() in ("", "|", ")"):
                return Row(tuple(parts))
            parts.append(self.counted(self.atom()))

    def atom(self) -> object:
        if self.peek() == '"':
            self.at += 1
            chars = []
            while self.peek() != '"':
                char = self.char()
                chars.append(Char(((ord(char), ord(char)),), False))
            self.at += 1
            return Row(tuple(chars))
        if self.peek() == "[":
            self.at += 1
            negated = self.peek() == "^"
            self.at += negated
            ranges = []
            while self.peek() != "]":
                low = high = self.char()
                if self.peek() == "-":
                    self.at += 1
                    high = self.char()
                assert low <= high
                ranges.append((ord(low), ord(high)))
            self.at += 1
            assert ranges, "an empty class"
            return Char(tuple(ranges), negated)
        if self.peek() == "(":
            self.at += 1
            inner = self.either()
            assert self.peek() == ")"
            self.at += 1
            return inner
        match = _NAME.match(self.text, self.at)
        assert match, self.text[self.at :]
        self.at = match.end()
        return Name(match[0])

    def counted(self, item: object) -> object:
        for sign, low, high in (("*", 0, None), ("+", 1, None), ("?", 0, 1)):
            if self.peek() == sign:
                self.at += 1
                return Times(item, low, high)
        match = _COUNT.match(self.text, self.at)
        if match is None:
            return item
        self.at = match.end()
        low = int(match[1])
        high = low if match[2] is None else int(match[3]) if match[3] else None
        assert max(low, high or 0) < LONGEST_COUNT
        return Times(item, low, high)


class Gbnf:
    """A parsed grammar. AssertionError for text that llama.cpp would not read, left recursion included."""

    def __init__(self, text: str) -> None:
        self.rules: dict[str, object] = {}
        self._rests: dict[tuple[object, int, int | None], Times] = {}
        for line in text.split("\n"):
            if not line:
                continue
            head = _RULE.match(line)
            assert head, line
            assert head[1] not in self.rules
            reader = _Line(line[head.end() :])
            self.rules[head[1]] = reader.either()
            assert reader.at == len(reader.text), line
        self._costs = self._shortest()
        assert self._costs["root"] < FAR, "root never ends"
        self._refuse_left_recursion()

    # -- random texts

    def walk(self, chance: random.Random, length: int = 60) -> str:
        """A text of it; past `length` characters the shortest way to the end is taken."""
        out: list[str] = []
        todo: list[object] = [Name("root")]
        while todo:
            node = todo.pop()
            if isinstance(node, Char):
                out.append(_pick(node, chance))
            elif isinstance(node, Name):
                todo.append(self.rules[node.name])
            elif isinstance(node, Row):
                todo.extend(reversed(node.parts))
            elif isinstance(node, Either):
                short = min(node.options, key=self._cost)
                # A text of the longest that may be, such as a thousand million characters, would take as long to write.
                ends = [option for option in node.options if self._cost(option) <= max(NEAR, self._cost(short))]
                todo.append(chance.choice(ends) if len(out) < length else short)
            elif isinstance(node, Times):
                count = node.low
                most = node.high if node.high is not None else node.low + 6
                near = self._cost(node.item) <= NEAR
                while near and count < most and len(out) < length and chance.random() < 0.7:
                    count += 1
                todo.extend([node.item] * count)
        return "".join(out)

    def _cost(self, node: object) -> int:
        if isinstance(node, Char):
            return 1
        if isinstance(node, Name):
            return self._costs[node.name]
        if isinstance(node, Row):
            return min(FAR, sum(self._cost(part) for part in node.parts))
        if isinstance(node, Either):
            return min(self._cost(option) for option in node.options)
        assert isinstance(node, Times)
        return min(FAR, node.low * self._cost(node.item))

    def _shortest(self) -> dict[str, int]:
        self._costs = dict.fromkeys(self.rules, FAR)
        changed = True
        while changed:
            changed = False
            for name, body in self.rules.items():
                cost = self._cost(body)
                if cost < self._costs[name]:
                    self._costs[name], changed = cost, True
        return self._costs

    def _refuse_left_recursion(self) -> None:
        first: dict[str, set[str]] = {name: set(self._leftmost(body)) for name, body in self.rules.items()}
        for name, begins in first.items():
            seen: set[str] = set()
            waiting = list(begins)
            while waiting:
                other = waiting.pop()
                assert other != name, f"{name} is left-recursive"
                if other not in seen:
                    seen.add(other)
                    waiting.extend(first[other])

    def _leftmost(self, node: object) -> list[str]:
        if isinstance(node, Name):
            return [node.name]
        if isinstance(node, Either):
            return [name for option in node.options for name in self._leftmost(option)]
        if isinstance(node, Times):
            if node.high is None or node.high > 1:
                assert self._cost(node.item) > 0, "a repetition of what may be nothing"
            return self._leftmost(node.item)
        if isinstance(node, Row):
            names: list[str] = []
            for part in node.parts:
                names += self._leftmost(part)
                if self._cost(part) > 0:
                    break
            return names
        return []

    # -- how many ways to read it

    def readings(self, text: str) -> int:
        """How many stacks llama.cpp would hold at most while it reads `text`: each is what may yet have to come."""
        stacks = self._opened({(Name("root"),)})
        most = len(stacks)
        for char in text:
            holding = {
                stack[:-1] for stack in stacks if stack and isinstance(stack[-1], Char) and stack[-1].holds(char)
            }
            stacks = self._opened(holding)
            assert stacks, f"no way on at {char!r}"
            most = max(most, len(stacks))
        return most

    def _opened(self, waiting: set[tuple[object, ...]]) -> set[tuple[object, ...]]:
        """The stacks with a character on top, or nothing at all."""
        opened: set[tuple[object, ...]] = set()
        seen = set(waiting)
        todo = list(waiting)
        while todo:
            stack = todo.pop()
            if not stack or isinstance(stack[-1], Char):
                opened.add(stack)
                continue
            new = {(*stack[:-1], *reversed(way)) for way in self._ways(stack[-1])} - seen
            seen |= new
            todo += new
        return opened

    def _ways(self, node: object) -> list[tuple[object, ...]]:
        if isinstance(node, Name):
            return [(self.rules[node.name],)]
        if isinstance(node, Row):
            return [node.parts]
        if isinstance(node, Either):
            return [(option,) for option in node.options]
        assert isinstance(node, Times)
        key = (node.item, max(node.low - 1, 0), None if node.high is None else node.high - 1)
        rest = self._rests.setdefault(key, Times(*key))
        more = [] if node.high == 0 else [(node.item, rest)]
        return more if node.low else [(), *more]

    # -- does it match

    def accepts(self, text: str) -> bool:
        return len(text) in self._ends(Name("root"), 0, text, {})

    def _ends(
        self, node: object, start: int, text: str, known: dict[tuple[int, int], frozenset[int]]
    ) -> frozenset[int]:
        if isinstance(node, Char):
            return frozenset({start + 1}) if start < len(text) and node.holds(text[start]) else frozenset()
        key = (id(self.rules[node.name]) if isinstance(node, Name) else id(node), start)
        if key not in known:
            known[key] = frozenset(self._find_ends(node, start, text, known))
        return known[key]

    def _find_ends(self, node: object, start: int, text: str, known: dict[tuple[int, int], frozenset[int]]) -> set[int]:
        if isinstance(node, Name):
            return set(self._find_ends(self.rules[node.name], start, text, known))
        if isinstance(node, Either):
            return {end for option in node.options for end in self._ends(option, start, text, known)}
        if isinstance(node, Row):
            at = {start}
            for part in node.parts:
                at = {end for middle in at for end in self._ends(part, middle, text, known)}
            return at
        assert isinstance(node, Times)
        at, found = {start}, {start} if node.low == 0 else set()
        count = 0
        seen = set(at)
        while at and (node.high is None or count < node.high):
            at = {end for middle in at for end in self._ends(node.item, middle, text, known)}
            count += 1
            if count >= node.low:
                found |= at
                if node.high is None:
                    at -= seen
                    seen |= at
        return found


def _pick(char: Char, chance: random.Random) -> str:
    if not char.negated:
        low, high = chance.choice(char.ranges)
        return chr(chance.randint(low, high))
    while True:
        found = chance.choice("abcXYZ019 ,.;:_-/{}[]()'\"\\éß中😀\u2028\x7f\n\t")
        if char.holds(found):
            return found
