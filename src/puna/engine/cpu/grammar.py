"""GBNF, llama.cpp's grammar notation, to the notation of the constraint library, with exactly the same texts. Pure.

The library cuts text into lexemes, each as long as it can be: `[a-z]+ "x"` would never end, because the first takes
every x. GBNF knows no lexemes. So every lexeme written here is one character, which cannot be longer or shorter than it
is; the parser behind it follows all readings of a text at once, as GBNF wants it.

Where only one text can follow, the library lets through one way to cut it into tokens and no other, which would change
what is drawn. So beside every character that could be such a text stands a token that never comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from puna.errors import InvalidRequest

MAX_REPEAT = 20_000
"""Repetitions that may be asked for: what is bounded higher is refused, not cut."""

MAX_DEPTH = 200
"""How deep parentheses may stand in each other."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character in (or, `negated`, outside) these ranges of code points, both ends included."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Ref:
    name: str


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    options: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`high` None: without end."""

    item: Expression
    low: int
    high: int | None


Expression: TypeAlias = Chars | Ref | Sequence | Choice | Repeat

ANY = Chars((), negated=True)
ESCAPES = {"t": 9, "n": 10, "r": 13, "\\": 92, '"': 34, "[": 91, "]": 93, "-": 45}
HEX = {"x": 2, "u": 4, "U": 8}


def parse(text: str) -> dict[str, Expression]:
    """Rules by name. InvalidRequest, with the line, for what is no GBNF or names a rule that is not there."""
    rules = _Parser(text).rules()
    if "root" not in rules:
        raise InvalidRequest("the grammar has no rule named root", param="grammar")
    for name, rule in rules.items():
        for ref in _refs(rule):
            if ref not in rules:
                raise InvalidRequest(f"the grammar's rule {name} names {ref}, which is not there", param="grammar")
    return rules


def to_lark(rules: dict[str, Expression], never: int) -> str:
    """The same grammar for the constraint library; its start rule is `start`. `never`: the token that never comes."""
    writer = _Writer({name: "start" if name == "root" else f"r{number}" for number, name in enumerate(rules)})
    lines = [f"{writer.names[name]}: {writer.text(rule)}" for name, rule in rules.items()]
    return "\n".join(["%llguidance {}", *lines, *writer.characters(), f"never: <[{never}]>", ""])


def _refs(expression: Expression) -> Iterator[str]:
    match expression:
        case Ref(name):
            yield name
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from _refs(part)
        case Repeat(item):
            yield from _refs(item)
        case Chars():
            pass


class _Writer:
    """Writes rules under their new `names`. Characters become rules too, each one once: there are few of them."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self._chars: dict[Chars, str] = {}

    def text(self, expression: Expression) -> str:
        match expression:
            case Chars():
                return self._chars.setdefault(expression, f"c{len(self._chars)}")
            case Ref(name):
                return self.names[name]
            case Sequence(parts):
                return " ".join(self.text(part) for part in parts) if parts else '""'
            case Choice(options):
                return "(" + " | ".join(self.text(option) for option in options) + ")"
            case Repeat(item, low, high):
                inner = f"({self.text(item)})"
                if (low, high) in ((0, None), (1, None), (0, 1)):
                    return inner + {(0, None): "*", (1, None): "+", (0, 1): "?"}[low, high]
                return f"{inner}{{{low},{'' if high is None else high}}}"

    def characters(self) -> Iterator[str]:
        """The rules of all characters that were written."""
        for chars, name in self._chars.items():
            alone = not chars.negated and len(chars.ranges) == 1 and chars.ranges[0][0] == chars.ranges[0][1]
            yield f"{name}: {_regex(chars)}{' | never' if alone else ''}"


def _regex(chars: Chars) -> str:
    if not chars.ranges:
        return r"/(?s:.)/"
    body = "".join(f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in chars.ranges)
    return f"/[{'^' if chars.negated else ''}{body}]/"


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def rules(self) -> dict[str, Expression]:
        rules: dict[str, Expression] = {}
        self._space(newlines=True)
        while self._here():
            name = self._name()
            self._space(newlines=False)
            self._expect("::=")
            self._space(newlines=True)
            if name in rules:
                raise self._error(f"a second rule named {name}")
            rules[name] = self._choice(depth=0)
            if self._here() and self._here() not in "\r\n":
                raise self._error("the end of the rule is expected")
            self._space(newlines=True)
        return rules

    def _choice(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise self._error("parentheses too deep")
        options = [self._sequence(depth)]
        while self._here() == "|":
            self._at += 1
            self._space(newlines=True)
            options.append(self._sequence(depth))
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self, depth: int) -> Expression:
        parts: list[Expression] = []
        while (part := self._part(depth)) is not None:
            self._space(newlines=depth > 0)
            parts.append(self._repeated(part, depth))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _part(self, depth: int) -> Expression | None:
        here = self._here()
        if here == '"':
            return self._literal()
        if here == "[":
            return self._class()
        if here == ".":
            self._at += 1
            return ANY
        if here == "(":
            self._at += 1
            self._space(newlines=True)
            inner = self._choice(depth + 1)
            self._expect(")")
            return inner
        if here in {"<", "!"}:
            raise self._error("tokens by name or number are not supported")
        return Ref(self._name()) if _is_word(here) else None

    def _repeated(self, item: Expression, depth: int) -> Expression:
        first = self._at
        while (here := self._here()) and here in "*+?{":
            if self._at > first:
                raise self._error("a repetition of a repetition needs parentheses")
            self._at += 1
            if here == "{":
                low, high = self._bounds()
            else:
                low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[here]
            item = Repeat(item, low, high)
            self._space(newlines=depth > 0)
        return item

    def _bounds(self) -> tuple[int, int | None]:
        self._space(newlines=True)
        low = self._number()
        high: int | None = low
        self._space(newlines=True)
        if self._here() == ",":
            self._at += 1
            self._space(newlines=True)
            high = self._number() if self._here().isdigit() else None
            self._space(newlines=True)
        self._expect("}")
        if high is not None and high < low:
            raise self._error(f"{{{low},{high}}} counts down")
        return low, high

    def _number(self) -> int:
        start = self._at
        while self._here() and self._here() in "0123456789":
            self._at += 1
        if start == self._at:
            raise self._error("a number is expected")
        if self._at - start > 9 or int(self._text[start : self._at]) > MAX_REPEAT:
            raise self._error(f"a repetition over {MAX_REPEAT}")
        return int(self._text[start : self._at])

    def _literal(self) -> Expression:
        self._expect('"')
        parts: list[Expression] = []
        while self._here() != '"':
            code = self._character()
            parts.append(Chars(((code, code),)))
        self._at += 1
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _class(self) -> Chars:
        self._expect("[")
        negated = self._here() == "^"
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while self._here() != "]":
            low = high = self._character()
            if self._here() == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                high = self._character()
            if high < low:
                raise self._error("a range counts down")
            ranges.append((low, high))
        self._at += 1
        if not ranges and not negated:
            raise self._error("an empty class matches nothing")
        return Chars(tuple(ranges), negated)

    def _character(self) -> int:
        here = self._here()
        if not here:
            raise self._error("the grammar ends in the middle of a text or a class")
        self._at += 1
        if here != "\\":
            return ord(here)
        kind = self._here()
        self._at += 1
        if kind in ESCAPES:
            return ESCAPES[kind]
        digits = self._text[self._at : self._at + HEX.get(kind, 0)]
        if not digits or len(digits) != HEX[kind] or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
            raise self._error("an unknown escape")
        self._at += len(digits)
        code = int(digits, 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise self._error("an escape of no character")
        return code

    def _name(self) -> str:
        start = self._at
        while _is_word(self._here()):
            self._at += 1
        if start == self._at:
            raise self._error("a name is expected")
        return self._text[start : self._at]

    def _space(self, *, newlines: bool) -> None:
        while here := self._here():
            if here == "#":
                while self._here() and self._here() not in "\r\n":
                    self._at += 1
            elif here in " \t" or (newlines and here in "\r\n"):
                self._at += 1
            else:
                return

    def _here(self) -> str:
        return self._text[self._at : self._at + 1]

    def _expect(self, text: str) -> None:
        if not self._text.startswith(text, self._at):
            raise self._error(f"{text} is expected")
        self._at += len(text)

    def _error(self, what: str) -> InvalidRequest:
        line = self._text.count("\n", 0, self._at) + 1
        near = self._text[self._at : self._at + 20].splitlines()
        return InvalidRequest(f"grammar, line {line}, at {near[0] if near else 'the end'!r}: {what}", param="grammar")


def _is_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character in {"-", "_"})
