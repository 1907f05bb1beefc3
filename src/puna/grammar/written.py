"""Grammars that callers wrote themselves: GBNF, Lark or a regular expression, written the way that every engine reads
alike. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from puna.errors import Code, InvalidRequest
from puna.grammar import pattern, readings, texts
from puna.grammar.gbnf import (
    Alternation,
    Chars,
    Expression,
    GrammarTooLarge,
    NoAnswer,
    Ref,
    Repeat,
    Rules,
    Sequence,
    Terminal,
    choice,
    references,
    seq,
)
from puna.grammar.pattern import Concatenation, Either, One, PatternNode, Times
from puna.grammar.reader import GrammarError, read
from puna.grammar.stacks import TooManyReadings, readable
from puna.types import Grammar

CODE: Code = "invalid_grammar"
_MAX_TEXT = 200_000
_MAX_PATTERNS = 20_000
"""Parts of the patterns that a grammar's rules may be, all together, for their readings to be counted."""


def grammar_to_gbnf(grammar: Grammar, *, param: str) -> str:
    """GBNF of a caller's grammar, all of the answer. InvalidRequest names what cannot be read or held."""
    rules = Rules()
    try:
        return readable(rules, grammar_text(rules, grammar, lambda allowed: allowed, param=param))
    except NoAnswer as error:
        raise _refusal("no text matches it", param) from error
    except TooManyReadings as error:
        raise _refusal(str(error), param) from error
    except GrammarTooLarge as error:
        raise _refusal("it is too large", param) from error


def grammar_text(rules: Rules, grammar: Grammar, written: Callable[[Chars], Expression], *, param: str) -> Expression:
    """A caller's grammar as an expression; `written`: how a character is written where the text stands."""
    if grammar.syntax == "regex":
        try:
            return texts.whole(rules, pattern.whole(pattern.parse(grammar.text)), written)
        except pattern.PatternError as error:
            raise _refusal(f"it has {error}", param) from error
    if grammar.syntax == "lark":
        from puna.grammar.lark import LarkError, lark_rules

        try:
            return _adopted(lark_rules(grammar.text), rules, written)
        except (LarkError, GrammarError) as error:
            raise _refusal(str(error), param) from error
    if len(grammar.text) > _MAX_TEXT:
        raise _refusal(f"it has more than {_MAX_TEXT} characters", param)
    try:
        return _adopted(read(grammar.text), rules, written)
    except GrammarError as error:
        raise _refusal(str(error), param) from error


def _refusal(reason: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"This grammar cannot be used: {reason}.", param=param, code=CODE)


def _adopted(found: Mapping[str, Expression], rules: Rules, written: Callable[[Chars], Expression]) -> Expression:
    """The rules of a grammar under new names, written the way that every engine reads alike."""
    refs = {name: rules.reserve("own") for name in found}
    plain = _Adopt(rules, refs, written)
    for name, body in found.items():
        rules.define(refs[name], plain.expression(body))
    endless = rules.endless()
    if endless is not None:
        names = {ref.name: name for name, ref in refs.items()}
        raise GrammarError(
            f"the rule {names.get(endless, endless)!r} begins with itself, or repeats what may be nothing"
        )
    known = _regular(found)
    if known is None:
        return refs["root"]
    told_apart = _Adopt(rules, refs, written, known)
    bodies = {name: told_apart.expression(body) for name, body in found.items()}
    for name, body in bodies.items():
        rules.define(refs[name], body)
    return bodies["root"]


def _regular(found: Mapping[str, Expression]) -> dict[str, PatternNode] | None:
    """The rules that do not lead back to themselves, as patterns. None: these would be too large."""
    known: dict[str, PatternNode] = {}
    sizes: dict[str, int] = {}
    waiting = list(found)
    users: dict[str, list[str]] = {name: [] for name in found}
    for name, body in found.items():
        for used in set(references(body)):
            users[used].append(name)
    while waiting:
        name = waiting.pop()
        if name in known or not all(used in known for used in references(found[name])):
            continue
        sizes[name] = _size(found[name], sizes)
        if sum(sizes.values()) > _MAX_PATTERNS:
            return None
        known[name] = _as_pattern(found[name], known)
        waiting += users[name]
    return known


def _size(body: Expression, sizes: Mapping[str, int]) -> int:
    match body:
        case Terminal(text):
            return len(text)
        case Ref(name):
            return sizes[name]
        case Sequence(parts) | Alternation(parts):
            return 1 + sum(_size(part, sizes) for part in parts)
        case Repeat(item, _, _):
            return 1 + _size(item, sizes)
        case _:
            return 1


def _as_pattern(body: Expression, known: Mapping[str, PatternNode]) -> PatternNode:
    match body:
        case Terminal(text):
            return Concatenation(tuple(One(((ord(char), ord(char)),), ((ord(char), ord(char)),)) for char in text))
        case Chars(ranges):
            return One(ranges, ranges)
        case Ref(name):
            return known[name]
        case Sequence(parts):
            return Concatenation(tuple(_as_pattern(part, known) for part in parts))
        case Alternation(options):
            return Either(tuple(_as_pattern(option, known) for option in options))
        case Repeat(item, low, high):
            return Times(_as_pattern(item, known), low, high)


@dataclass(frozen=True, slots=True)
class _Adopt:
    """`patterns`: of the rules that have one. What only these make up is written so that each text has few readings;
    None: nothing is.
    """

    rules: Rules
    refs: Mapping[str, Ref]
    written: Callable[[Chars], Expression]
    patterns: Mapping[str, PatternNode] | None = None

    def expression(self, body: Expression, *, looked_at: bool = False) -> Expression:
        """`looked_at`: it is part of what has few readings."""
        if not looked_at and self._has_pattern(body):
            node = _as_pattern(body, self.patterns or {})
            if readings.many(node, self.rules):
                try:
                    return texts.whole(self.rules, node, self.written)
                except pattern.PatternError as error:
                    raise GrammarError(f"it has {error}") from error
            looked_at = True
        match body:
            case Terminal(text):
                return seq(*(self._letter(char) for char in text))
            case Chars():
                return self.written(body)
            case Ref(name):
                return self.refs[name]
            case Sequence(parts):
                return seq(
                    *(
                        self.expression(part, looked_at=looked_at)
                        for part in (parts if looked_at else self._runs(parts))
                    )
                )
            case Alternation(options):
                return choice(*(self.expression(option, looked_at=looked_at) for option in options))
            case Repeat(item, low, high):
                inner = self.expression(item, looked_at=looked_at)
                # A repetition of a repetition needs a name between them.
                return self.rules.repeat(self.rules.add(inner) if isinstance(inner, Repeat) else inner, low, high)

    def _has_pattern(self, body: Expression) -> bool:
        return self.patterns is not None and all(name in self.patterns for name in references(body))

    def _runs(self, parts: tuple[Expression, ...]) -> Iterator[Expression]:
        """The same in a row; neighbours that have patterns are one."""
        for regular, run in groupby(parts, self._has_pattern):
            members = tuple(run)
            yield from (seq(*members),) if regular else members

    def _letter(self, char: str) -> Expression:
        chars = Chars(((ord(char), ord(char)),))
        written = self.written(chars)
        return Terminal(char) if written == chars else written
