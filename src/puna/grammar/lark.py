"""Lark grammars, as expressions of a grammar: the part of the notation that callers use to shape a custom tool's text.

Pure. Handled: rules and terminals, texts, regular expressions, groups, `[…]`, `? * +`, `~ n` and `~ n..m`, ranges,
`%import common.…` of the usual terminals, comments, `?` `!` `_` before names, aliases and priorities (which say nothing
of the text). Refused by name: `%ignore`, `%declare`, `%override`, `%extend`, other imports, templates, flags of regular
expressions, left recursion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from puna.grammar import pattern
from puna.grammar.gbnf import EMPTY, Expression, Ref, Rules, Terminal, choice, optional, seq, span

_COMMON: Mapping[str, str] = MappingProxyType(
    {
        "DIGIT": "[0-9]",
        "HEXDIGIT": "[0-9a-fA-F]",
        "INT": "[0-9]+",
        "SIGNED_INT": "[+-]?[0-9]+",
        "DECIMAL": r"[0-9]+\.[0-9]*|\.[0-9]+",
        "FLOAT": r"[0-9]+[eE][+-]?[0-9]+|([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?",
        "NUMBER": r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?",
        "SIGNED_NUMBER": r"[+-]?([0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?)",
        "LCASE_LETTER": "[a-z]",
        "UCASE_LETTER": "[A-Z]",
        "LETTER": "[A-Za-z]",
        "WORD": "[A-Za-z]+",
        "CNAME": "[A-Za-z_][A-Za-z0-9_]*",
        "ESCAPED_STRING": r'"([^"\\\n]|\\[^\n])*"',
        "WS_INLINE": r"[ \t]+",
        "WS": r"[ \t\f\r\n]+",
        "CR": r"\r",
        "LF": r"\n",
        "NEWLINE": r"(\r?\n)+",
    }
)
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|//[^\n]*|\#[^\n]*)|(?P<line>\n)|(?P<text>"(?:[^"\\\n]|\\.)*"i?)"""
    r"""|(?P<regex>/(?!/)(?:[^/\\\n]|\\.)+/[a-z]*)|(?P<name>[!?]?_?[A-Za-z][A-Za-z0-9_]*)|(?P<directive>%[a-z]+)"""
    r"""|(?P<number>\d+)|(?P<sign>->|\.\.|[:|()\[\]?*+~.,{}-])"""
)
_MAX_TEXT = 100_000
_MAX_NESTING = 40


class LarkError(Exception):
    """What cannot be read or held: a phrase, with its line."""


def lark_rules(text: str) -> dict[str, Expression]:
    """The grammar's rules under names of ours; `root` is its `start`. Raises LarkError."""
    if len(text) > _MAX_TEXT:
        raise LarkError(f"it has more than {_MAX_TEXT} characters")
    reader = _Reader(text)
    start = reader.read()
    return {**reader.rules.bodies(), "root": start}


class _Reader:
    def __init__(self, text: str) -> None:
        self.rules = Rules()
        self.tokens = _tokens(text)
        self.at = 0
        self.depth = 0
        self.refs: dict[str, Ref] = {}
        self.bodies: dict[str, Expression] = {}

    def read(self) -> Expression:
        while self.at < len(self.tokens):
            self._statement()
        if "start" not in self.bodies:
            raise LarkError("it has no rule 'start'")
        start = self._ref("start")
        for name, ref in self.refs.items():
            if name not in self.bodies:
                raise LarkError(f"{name!r} is not defined")
            self.rules.define(ref, self.bodies[name])
        endless = self.rules.endless()
        if endless is not None:
            names = {ref.name: name for name, ref in self.refs.items()}
            raise LarkError(f"{names.get(endless, 'a part')!r} begins with itself, or repeats what may be nothing")
        return start

    # -- tokens

    def _peek(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.tokens[index][1] if index < len(self.tokens) else ""

    def _kind(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def _take(self) -> str:
        if self.at >= len(self.tokens):
            raise LarkError("it ends too early")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def _skip(self, word: str) -> bool:
        if self._peek() == word:
            self.at += 1
            return True
        return False

    def _wrong(self, what: str) -> LarkError:
        line = self.tokens[min(self.at, len(self.tokens) - 1)][2] if self.tokens else 1
        return LarkError(f"line {line}: {what}")

    def _want(self, word: str) -> None:
        if not self._skip(word):
            raise self._wrong(f"{word!r} is missing before {self._peek()!r}")

    def _lines(self) -> None:
        while self._kind() == "line":
            self.at += 1

    # -- statements

    def _statement(self) -> None:
        self._lines()
        if not self._kind():
            return
        if self._kind() == "directive":
            self._directive()
            return
        if self._kind() != "name":
            raise self._wrong(f"{self._peek()!r} cannot begin a rule")
        name = _plain(self._take())
        if self._skip("."):
            self._skip("-")
            self._take()
        if self._peek() == "{":
            raise self._wrong("templates")
        self._want(":")
        if name in self.bodies:
            raise self._wrong(f"{name!r} is defined twice")
        self.bodies[name] = self._either()

    def _directive(self) -> None:
        directive = self._take()
        if directive != "%import":
            raise self._wrong(f"{directive} cannot be held")
        self._want("common")
        if self._skip("("):
            names = self._listed()
        else:
            self._want(".")
            names = [self._take()]
        for name in names:
            alias = self._take() if len(names) == 1 and self._skip("->") else name
            if name not in _COMMON:
                raise self._wrong(f"common.{name} is not known")
            self.bodies[_plain(alias)] = self._regex(_COMMON[name])

    def _listed(self) -> list[str]:
        names = [self._take()]
        while self._skip(","):
            names.append(self._take())
        self._want(")")
        return names

    # -- expressions

    def _either(self) -> Expression:
        self._lines_before("|")
        options = [self._row()]
        while self._more():
            options.append(self._row())
        return choice(*options)

    def _more(self) -> bool:
        self._lines_before("|")
        return self._skip("|")

    def _lines_before(self, word: str) -> None:
        """A rule goes on over a line that begins with `|`, and anywhere inside brackets."""
        ahead = 0
        while self.at + ahead < len(self.tokens) and self.tokens[self.at + ahead][0] == "line":
            ahead += 1
        if ahead and (self._peek(ahead) == word or self.depth):
            self.at += ahead

    def _row(self) -> Expression:
        parts: list[Expression] = []
        while True:
            if self.depth:
                self._lines()
            if self._skip("->"):
                self._take()
            if self._kind() in ("", "line") or self._peek() in ("|", ")", "]"):
                return seq(*parts) if parts else EMPTY
            parts.append(self._counted(self._atom()))

    def _counted(self, item: Expression) -> Expression:
        if self._skip("?"):
            return optional(item)
        if self._skip("*"):
            return self._times(item, 0, None)
        if self._skip("+"):
            return self._times(item, 1, None)
        if self._skip("~"):
            low = self._count()
            return self._times(item, low, self._count() if self._skip("..") else low)
        return item

    def _times(self, item: Expression, low: int, high: int | None) -> Expression:
        if high is not None and high < low:
            raise self._wrong("the counts are out of order")
        return self.rules.repeat(self.rules.add(item, "part"), low, high)

    def _count(self) -> int:
        if self._kind() != "number" or len(self._peek()) > 6:
            raise self._wrong("a number is missing after ~")
        return int(self._take())

    def _atom(self) -> Expression:
        kind = self._kind()
        word = self._take()
        match kind, word:
            case _, "(" | "[":
                self.depth += 1
                if self.depth > _MAX_NESTING:
                    raise self._wrong(f"more than {_MAX_NESTING} brackets inside each other")
                inner = self._either()
                self._lines()
                self.depth -= 1
                self._want(")" if word == "(" else "]")
                return optional(inner) if word == "[" else inner
            case "text", _:
                return self._text(word)
            case "regex", _:
                body, flags = word[1:].rsplit("/", 1)
                if flags:
                    raise self._wrong(f"the flags {flags!r}")
                return self._regex(body.replace("\\/", "/"))
            case "name", _:
                if self._peek() == "{":
                    raise self._wrong("templates")
                return self._ref(_plain(word))
            case _:
                raise self._wrong(f"{word!r} cannot stand here")

    def _text(self, word: str) -> Expression:
        if self._peek() == "..":
            self._take()
            low, high = self._unquoted(word), self._unquoted(self._take())
            if len(low) != 1 or len(high) != 1 or low > high:
                raise self._wrong("a range needs two characters, in order")
            return span(low, high)
        if word.endswith("i"):
            text = self._unquoted(word[:-1])
            return seq(*(choice(*map(Terminal, sorted({char.lower(), char.upper()}))) for char in text))
        return Terminal(self._unquoted(word))

    def _unquoted(self, word: str) -> str:
        if not word.startswith('"') or not word.endswith('"'):
            raise self._wrong(f"{word!r} is no text")
        return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), word[1:-1])

    def _regex(self, text: str) -> Expression:
        try:
            return pattern.expression(pattern.whole(pattern.parse(text)), self.rules, lambda allowed: allowed)
        except pattern.PatternError as error:
            raise self._wrong(f"a regular expression with {error}") from error

    def _ref(self, name: str) -> Ref:
        if name not in self.refs:
            self.refs[name] = self.rules.reserve("lark")
        return self.refs[name]


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}


def _plain(name: str) -> str:
    return name.lstrip("!?")


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """Kind, text and line of each."""
    found: list[tuple[str, str, int]] = []
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise LarkError(f"line {line}: {text[at : at + 20]!r} cannot be read")
        if match.lastgroup is not None and match.lastgroup != "space":
            found.append((match.lastgroup, match[0], line))
        line += match[0].count("\n")
        at = match.end()
    return found
