"""A grammar that lets a model think first: the thought is free, what comes after it is not. Pure."""

from __future__ import annotations

import re

from puna.chat.text import ThinkTags

_SPACE = r"[ \t\n]{0,4}"
_ROOT = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*|(?<![\w-])root(?![\w-])', re.DOTALL)


def thought_first(gbnf: str, tags: ThinkTags, *, inside: bool) -> str:
    """`gbnf` after a thought, which may be left out unless the prompt has opened it (`inside`)."""
    answer = _ROOT.sub(lambda match: "thought-answer" if match[0] == "root" else match[0], gbnf)
    thought = f"thought-0 {_SPACE}"
    if not inside:
        thought = f"({_SPACE} {_literal(tags.open)} {thought})?"
    return f"root ::= {thought} thought-answer\n{_up_to(tags.close)}{answer}"


def _up_to(close: str) -> str:
    """Rules for any text that ends with the first `close`: one a number of its characters that are matched."""
    lines = []
    for matched in range(len(close)):
        ways = []
        for character in sorted(set(close)):
            state = _longest_match(close, close[:matched] + character)
            ways.append(_literal(character) + (f" thought-{state}" if state < len(close) else ""))
        ways.append(f"[^{''.join(_in_class(character) for character in sorted(set(close)))}] thought-0")
        lines.append(f"thought-{matched} ::= {' | '.join(ways)}\n")
    return "".join(lines)


def _longest_match(close: str, text: str) -> int:
    """How many characters at the end of `text` begin `close`."""
    return next(size for size in range(min(len(close), len(text)), -1, -1) if text.endswith(close[:size]))


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _in_class(character: str) -> str:
    return f"\\x{ord(character):02X}" if ord(character) < 128 else character
