"""GBNF, llama.cpp's grammar notation, to the notation of the constraint library, with exactly the same texts. Pure.

The library cuts text into lexemes, each as long as it can be: `[a-z]+ "x"` would never end, because the first takes
every x. GBNF knows no lexemes. So every lexeme written here is one character, which cannot be longer or shorter than it
is; the parser behind it follows all readings of a text at once, as GBNF wants it.

Where only one text can follow, the library would let through one way to cut it into tokens and no other, which would
change what is drawn: it is told not to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from puna.engine.cpu.tails import turned
from puna.errors import InvalidRequest
from puna.grammar.gbnf import Alternation, Chars, Expression, Ref, Repeat, Sequence, Terminal, shorter
from puna.grammar.reader import GrammarError, read


def parse(text: str) -> dict[str, Expression]:
    """Rules by name, none of which goes on with itself at its end (see `tails`).

    InvalidRequest, with the line, for what is no GBNF or names a rule that is not there.
    """
    try:
        return turned(read(text))
    except GrammarError as error:
        raise InvalidRequest(
            f"This grammar cannot be used: {error}.", param="grammar", code="invalid_grammar"
        ) from error


def to_lark(rules: Mapping[str, Expression]) -> str:
    """Rules as `parse` gives them, for the constraint library; its start rule is `start`."""
    writer = _Writer({name: "start" if name == "root" else f"r{number}" for number, name in enumerate(rules)})
    lines = [f"{writer.names[name]}: {writer.text(rule)}" for name, rule in rules.items()]
    return "\n".join(['%llguidance {"no_forcing": true}', *lines, *writer.characters(), ""])


def depth(rules: Mapping[str, Expression]) -> int:
    """How deep rules and brackets lie in each other as the library compiles them, each rule where it first comes."""
    deepest, seen = 0, {"root"}
    open_ = [(0, _inner(rules["root"]))]
    while open_:
        level, inner = open_[-1]
        for name, inside in inner:
            deepest = max(deepest, level + inside)
            if name and name not in seen:
                seen.add(name)
                open_.append((level + inside, _inner(rules[name])))
                break
        else:
            open_.pop()
    return deepest


def _inner(body: Expression, inside: int = 1) -> Iterator[tuple[str, int]]:
    """What it mentions and the brackets in it, in their order: the rule's name or nothing, and how deep it lies."""
    match body:
        case Ref(name):
            yield name, inside
        case Sequence(parts):
            for part in parts:
                yield from _inner(part, inside)
        case Alternation(options):
            for option in options:
                yield from _inner(option, inside + 1)
        case Repeat(item, _, _):
            yield from _inner(item, inside + 1)
        case _:
            yield "", inside


class _Writer:
    """Writes rules under their new `names`. Characters become rules too, each one once: there are few of them."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self._chars: dict[Chars, str] = {}

    def text(self, expression: Expression) -> str:
        match expression:
            case Terminal(text):
                return " ".join(self._one(Chars(((ord(char), ord(char)),))) for char in text) or '""'
            case Chars():
                return self._one(expression)
            case Ref(name):
                return self.names[name]
            case Sequence(parts):
                return " ".join(self.text(part) for part in parts)
            case Alternation(options):
                return "(" + " | ".join(self.text(option) for option in options) + ")"
            case Repeat(_, _, 0):
                return '""'  # the library has no such count
            case Repeat(item, low, high):
                inner = f"({self.text(item)})"
                if (low, high) in ((0, None), (1, None), (0, 1)):
                    return inner + {(0, None): "*", (1, None): "+", (0, 1): "?"}[low, high]
                return f"{inner}{{{low},{'' if high is None else high}}}"

    def _one(self, chars: Chars) -> str:
        return self._chars.setdefault(chars, f"c{len(self._chars)}")

    def characters(self) -> Iterator[str]:
        """The rules of all characters that were written."""
        for chars, name in self._chars.items():
            yield f"{name}: {_regex(chars)}"


def _regex(chars: Chars) -> str:
    listed, negated = shorter(chars.ranges)
    if not listed:
        return r"/(?s:.)/"
    body = "".join(f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in listed)
    return f"/[{'^' if negated else ''}{body}]/"
