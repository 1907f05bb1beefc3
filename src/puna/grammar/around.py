"""What stands around a grammar: free text that lacks a mark or does not begin like it, a thought before the answer.

Pure.
"""

from __future__ import annotations

import re

from puna.grammar.gbnf import EMPTY, Chars, Expression, Rules, Terminal, but, choice, optional, seq

_TOKEN = re.compile(
    r"""(?P<literal>"(?:[^"\\]|\\.)*")|(?P<set>\[(?:[^\]\\]|\\.)*\])|(?P<comment>\#[^\n]*)"""
    r"""|(?P<count>\{[0-9 ,]*\})|(?P<name>[a-zA-Z0-9-]+)|(?P<sign>::=|[|()*+?.\s])""",
    re.DOTALL,
)


def renamed(gbnf: str, prefix: str) -> str:
    """The same grammar with `prefix` before the name of every rule."""

    def replace(match: re.Match[str]) -> str:
        return prefix + match[0] if match["name"] else match[0]

    return _TOKEN.sub(replace, gbnf)


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
            more = seq(Terminal(mark[0]), states[1]) if len(mark) > 1 else None
            first = rules.repeat(but([(ord(mark[0]), ord(mark[0]))]), 0, None)
            rules.define(ref, seq(first, optional(more)) if more is not None else first)
            continue
        options: list[Expression] = [EMPTY, seq(away, states[0])]
        options += [seq(Terminal(char), states[state]) for char, state in targets.items() if state < len(mark)]
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
            options.append(seq(Terminal(char), after))
        after = rules.add(seq(rules.repeat(blank, 0, 20), optional(choice(*options))), "other")
    return after if after is not None else EMPTY


def after_thinking(gbnf: str, open_tag: str | None, close_tag: str) -> str:
    """`gbnf` after a thought that is not constrained but by its end.

    `open_tag` None: the prompt has opened the thought already, so it must come. Else it may come, or be left out.
    """
    rules = Rules()
    thought = seq(without(rules, close_tag), Terminal(close_tag), rules.repeat(Chars(((10, 10), (32, 32))), 0, 4))
    head = thought if open_tag is None else optional(seq(Terminal(open_tag), thought))
    return rules.text(seq(head, rules.external("answer-root"))) + renamed(gbnf, "answer-")
