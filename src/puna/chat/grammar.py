"""Grammars beside those of schemas: what a caller wrote himself, text that lacks a mark, a thought before the answer.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from puna.chat import pattern
from puna.chat.gbnf import EMPTY, Chars, Expression, GrammarTooLarge, NoAnswer, Rules, Text, but, choice, optional, seq
from puna.errors import InvalidRequest
from puna.types import Grammar

CODE = "invalid_grammar"
_MAX_TEXT = 200_000


def grammar_to_gbnf(grammar: Grammar, *, param: str) -> str:
    """GBNF of a caller's grammar, all of the answer. InvalidRequest names what cannot be read or held."""
    if grammar.syntax == "gbnf":
        return _checked(grammar.text, param)
    rules = Rules()
    try:
        return rules.text(grammar_text(rules, grammar, lambda allowed: allowed, param=param))
    except NoAnswer as error:
        raise _refusal("no text matches it", param) from error
    except GrammarTooLarge as error:
        raise _refusal("it is too large", param) from error


def grammar_text(rules: Rules, grammar: Grammar, written: Callable[[Chars], Expression], *, param: str) -> Expression:
    """A regex or Lark grammar as an expression; `written`: how a character is written where the text stands."""
    if grammar.syntax == "regex":
        try:
            return pattern.expression(pattern.whole(pattern.parse(grammar.text)), rules, written)
        except pattern.PatternError as error:
            raise _refusal(f"it has {error}", param) from error
    if grammar.syntax == "lark":
        from puna.chat.lark import LarkError, lark_expression

        try:
            return lark_expression(grammar.text, rules, written)
        except LarkError as error:
            raise _refusal(str(error), param) from error
    raise _refusal("a grammar in GBNF cannot stand inside a tool's JSON; use regex or lark", param)


def _refusal(reason: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"This grammar cannot be used: {reason}.", param=param, code=CODE)


# ----------------------------------------------------------------------------------------------- GBNF by its text

_TOKEN = re.compile(
    r"""(?P<literal>"(?:[^"\\]|\\.)*")|(?P<set>\[(?:[^\]\\]|\\.)*\])|(?P<comment>\#[^\n]*)"""
    r"""|(?P<count>\{[0-9 ,]*\})|(?P<name>[a-zA-Z0-9-]+)|(?P<sign>::=|[|()*+?.\s])""",
    re.DOTALL,
)


def _checked(text: str, param: str) -> str:
    """What an engine would only refuse after the model is loaded: unreadable text, rules without a definition."""
    if len(text) > _MAX_TEXT:
        raise _refusal(f"it has more than {_MAX_TEXT} characters", param)
    at, used, defined = 0, dict[str, int](), set[str]()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            line, column = text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1
            raise _refusal(f"line {line}, column {column}: {text[at : at + 20]!r} cannot be read", param)
        if match["name"]:
            if re.match(r"\s*::=", text[match.end() :]):
                defined.add(match["name"])
            used.setdefault(match["name"], at)
        at = match.end()
    if "root" not in defined:
        raise _refusal("it has no rule 'root'", param)
    for name, where in used.items():
        if name not in defined:
            line = text.count("\n", 0, where) + 1
            raise _refusal(f"line {line}: the rule {name!r} is not defined", param)
    return text


def renamed(gbnf: str, prefix: str) -> str:
    """The same grammar with `prefix` before the name of every rule."""

    def replace(match: re.Match[str]) -> str:
        return prefix + match[0] if match["name"] else match[0]

    return _TOKEN.sub(replace, gbnf)


# ------------------------------------------------------------------------------------------------- text and marks


def without(rules: Rules, mark: str) -> Expression:
    """Any text that `mark` does not occur in: the states of a search for it, one rule each, so that one reading stays
    open.
    """
    states = [rules.reserve("text") for _ in mark]
    for index, ref in enumerate(states):
        reached = {char: _after(mark, index, char) for char in sorted(set(mark))}
        targets = {char: state for char, state in reached.items() if state}
        away = but((ord(char), ord(char)) for char in targets)
        if index == 0:
            more = seq(Text(mark[0]), states[1]) if len(mark) > 1 else None
            first = rules.repeat(but([(ord(mark[0]), ord(mark[0]))]), 0, None)
            rules.define(ref, seq(first, optional(more)) if more is not None else first)
            continue
        options: list[Expression] = [EMPTY, seq(away, states[0])]
        options += [seq(Text(char), states[state]) for char, state in targets.items() if state < len(mark)]
        rules.define(ref, choice(*options))
    return states[0]


def _after(mark: str, matched: int, char: str) -> int:
    """How much of `mark` the text ends with, once `char` has followed `matched` characters of it."""
    text = mark[:matched] + char
    return next(n for n in range(len(text), -1, -1) if text.endswith(mark[:n]))


def not_beginning(rules: Rules, prefix: str) -> Expression:
    """Any text that does not begin with `prefix`, white space aside."""
    anything = rules.add(rules.repeat(but([]), 0, None), "anything")
    blank = Chars(((9, 10), (13, 13), (32, 32)))
    after: Expression | None = None
    for char in reversed(prefix):
        other = but([(ord(char), ord(char)), *blank.ranges])
        options: list[Expression] = [seq(other, anything)]
        if after is not None:
            options.append(seq(Text(char), after))
        after = rules.add(seq(rules.repeat(blank, 0, 20), optional(choice(*options))), "other")
    return after if after is not None else EMPTY


def after_thinking(gbnf: str, open_tag: str | None, close_tag: str) -> str:
    """`gbnf` after a thought that is not constrained but by its end.

    `open_tag` None: the prompt has opened the thought already, so it must come. Else it may come, or be left out.
    """
    rules = Rules()
    thought = seq(without(rules, close_tag), Text(close_tag), rules.repeat(Chars(((10, 10), (32, 32))), 0, 4))
    head = thought if open_tag is None else optional(seq(Text(open_tag), thought))
    return rules.text(seq(head, rules.external("answer-root"))) + renamed(gbnf, "answer-")
