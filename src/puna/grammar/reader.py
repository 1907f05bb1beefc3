"""GBNF read: a grammar's text to rules of expressions. Pure.

The reading is llama.cpp's, but for what that takes in silence and reads otherwise than meant: a second rule of the same
name, a count over its limit, an escape that is none. Those are errors here, as are tokens by name or number, which not
every engine knows.
"""

from __future__ import annotations

from puna.grammar.gbnf import (
    ANY,
    Chars,
    Expression,
    Ref,
    Repeat,
    Terminal,
    choice,
    complement,
    seq,
    union,
    without_surrogates,
)

MAX_REPEAT = 20_000
"""Repetitions that may be asked for: what is bounded higher is refused, not cut."""

MAX_DEPTH = 60
"""How deep parentheses may stand in each other."""

MAX_LENGTH = 2_000_000
"""Characters of a grammar."""

_ESCAPES = {"t": 9, "n": 10, "r": 13, "\\": 92, '"': 34, "[": 91, "]": 93, "-": 45}
_HEX = {"x": 2, "u": 4, "U": 8}


class GrammarError(Exception):
    """What is no GBNF, or names a rule that is not there: a phrase, with its line."""


def read(text: str) -> dict[str, Expression]:
    """Rules by name, `root` among them. Raises GrammarError."""
    if len(text) > MAX_LENGTH:
        raise GrammarError(f"it has more than {MAX_LENGTH} characters")
    reader = _Reader(text)
    rules = reader.rules()
    if "root" not in rules:
        raise GrammarError("it has no rule 'root'")
    for name, at in reader.used.items():
        if name not in rules:
            raise GrammarError(f"line {reader.line(at)}: the rule {name!r} is not defined")
    return rules


class _Reader:
    """`used`: where in the text each name is first used."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.used: dict[str, int] = {}

    def line(self, at: int) -> int:
        return self._text.count("\n", 0, at) + 1

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
        return choice(*options)

    def _sequence(self, depth: int) -> Expression:
        parts: list[Expression] = []
        while (part := self._part(depth)) is not None:
            self._space(newlines=depth > 0)
            parts.append(self._repeated(part, depth))
        return seq(*parts)

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
        if not _is_word(here):
            return None
        at, name = self._at, self._name()
        self.used.setdefault(name, at)
        return Ref(name)

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

    def _literal(self) -> Terminal:
        self._expect('"')
        codes: list[int] = []
        while self._here() != '"':
            codes.append(self._character())
        self._at += 1
        return Terminal("".join(map(chr, codes)))

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
        chosen = complement(union(ranges)) if negated else union(ranges)
        if not without_surrogates(chosen):
            raise self._error("this class matches nothing")
        return Chars(chosen)

    def _character(self) -> int:
        here = self._here()
        if not here:
            raise self._error("the grammar ends in the middle of a text or a class")
        self._at += 1
        code = ord(here) if here != "\\" else self._escaped()
        if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
            raise self._error("this is no character")
        return code

    def _escaped(self) -> int:
        kind = self._here()
        self._at += 1
        if kind in _ESCAPES:
            return _ESCAPES[kind]
        digits = self._text[self._at : self._at + _HEX.get(kind, 0)]
        if not digits or len(digits) != _HEX[kind] or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
            raise self._error("an unknown escape")
        self._at += len(digits)
        return int(digits, 16)

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

    def _error(self, what: str) -> GrammarError:
        near = self._text[self._at : self._at + 20].splitlines()
        return GrammarError(f"line {self.line(self._at)}, at {near[0] if near else 'the end'!r}: {what}")


def _is_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character in {"-", "_"})
