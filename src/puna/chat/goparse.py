"""Go's text/template, as far as model templates use it: text to a tree of nodes. Pure.

Syntax errors are ModelFileError with the line. Nothing is evaluated here; see `puna.chat.goexec`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

from puna.errors import ModelFileError

MAX_SOURCE = 1_000_000
MAX_DEPTH = 100

# ------------------------------------------------------------------------------------------------------ expressions


@dataclass(frozen=True, slots=True)
class Literal:
    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Dot:
    """`.`"""


@dataclass(frozen=True, slots=True)
class Field:
    """`.A.B` of the dot."""

    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """`$name.A.B`; the root is named `$`."""

    name: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """`(pipeline).A.B`"""

    pipe: Pipe
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Function:
    name: str


Operand: TypeAlias = Literal | Dot | Field | Variable | Chain | Function


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands, each the operands that it begins with; `names` are declared, or assigned to, with the result."""

    commands: tuple[tuple[Operand, ...], ...]
    names: tuple[str, ...] = ()
    assigns: bool = False


# ------------------------------------------------------------------------------------------------------------ nodes


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Action:
    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Branch:
    """`if`, `with` or `range`."""

    kind: str
    pipe: Pipe
    body: Nodes
    otherwise: Nodes


@dataclass(frozen=True, slots=True)
class Jump:
    """`break` or `continue`"""

    kind: str


@dataclass(frozen=True, slots=True)
class Call:
    """`template "name" pipeline`"""

    name: str
    pipe: Pipe | None


Node: TypeAlias = Text | Action | Branch | Jump | Call
Nodes: TypeAlias = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """`fields`: every field and variable that is mentioned anywhere."""

    body: Nodes
    defined: dict[str, Nodes]
    fields: frozenset[str]


def parse(source: str) -> Tree:
    """Raises ModelFileError."""
    if len(source) > MAX_SOURCE:
        raise ModelFileError(f"the template is longer than {MAX_SOURCE} characters")
    return _Parser(source).tree()


# ---------------------------------------------------------------------------------------------------- text, actions

_COMMENT = re.compile(r"\{\{(- )?\s*/\*.*?\*/\s*?( -)?\}\}", re.DOTALL)
_WORD = re.compile(
    r"""\s+
    |(?P<string>"(?:\\.|[^"\\\n])*")
    |(?P<raw>`[^`]*`)
    |(?P<character>'(?:\\.|[^'\\\n])+')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+))
    |(?P<variable>\$\w*(?:\.\w+)*)
    |(?P<field>(?:\.[^\W\d]\w*)+)
    |(?P<name>[^\W\d]\w*)
    |(?P<mark>:=|=|\||\(|\)|,|\.)
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class _Word:
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text, or the words of an action."""

    line: int
    text: str | None
    words: tuple[_Word, ...] = ()


def _pieces(source: str) -> Iterator[_Piece]:
    position, trim = 0, False
    while position <= len(source):
        begin = source.find("{{", position)
        text = source[position:] if begin < 0 else source[position:begin]
        line = source.count("\n", 0, max(begin, 0)) + 1
        if trim:
            text = text.lstrip(" \t\r\n")
        left = begin >= 0 and re.match(r"\{\{-\s", source[begin : begin + 4]) is not None
        yield _Piece(line, text.rstrip(" \t\r\n") if left else text)
        if begin < 0:
            return
        comment = re.compile(r"\{\{(?:-\s)?\s*/\*.*?\*/\s*?(?P<right>\s-)?\}\}", re.DOTALL).match(source, begin)
        if comment:
            position, trim = comment.end(), comment["right"] is not None
            continue
        words, position, trim = _action(source, begin + (3 if left else 2), line)
        yield _Piece(line, None, words)


def _action(source: str, position: int, line: int) -> tuple[tuple[_Word, ...], int, bool]:
    """The words up to the closing braces, what follows these, and whether they trim."""
    words: list[_Word] = []
    while True:
        close = re.compile(r"\s-\}\}|\}\}").match(source, position)
        if close:
            return tuple(words), close.end(), close[0].startswith((" ", "\t", "\r", "\n"))
        match = _WORD.match(source, position)
        if match is None:
            what = "unclosed action" if position >= len(source) else f"unexpected {source[position : position + 10]!r}"
            raise ModelFileError(f"template: line {line}: {what}")
        # White space before a trimming close belongs to it.
        position = match.end() if match.lastgroup else match.start() + 1
        if match.lastgroup:
            words.append(_Word(match.lastgroup, match[0]))


# -------------------------------------------------------------------------------------------------------- the parser


@dataclass(slots=True)
class _Parser:
    source: str
    defined: dict[str, Nodes] = field(default_factory=dict)
    fields: set[str] = field(default_factory=set)
    _line: int = 1
    _depth: int = 0

    def tree(self) -> Tree:
        pieces = _pieces(self.source)
        body, end = self._nodes(pieces, ())
        if end is not None:
            self._fail(f"unexpected {{{{{end[0].text}}}}}")
        return Tree(body, self.defined, frozenset(self.fields))

    def _fail(self, message: str) -> NoReturn:
        raise ModelFileError(f"template: line {self._line}: {message}")

    def _nodes(self, pieces: Iterator[_Piece], ends: tuple[str, ...]) -> tuple[Nodes, tuple[_Word, ...] | None]:
        """Nodes up to one of `ends`, whose words are given too; None at the end of the source."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("nested too deep")
        nodes: list[Node] = []
        for piece in pieces:
            self._line = piece.line
            if piece.text is not None:
                if piece.text:
                    nodes.append(Text(piece.text))
                continue
            if not piece.words:
                self._fail("missing value for command")
            head = piece.words[0].text if piece.words[0].kind == "name" else ""
            if head in ends:
                self._depth -= 1
                return tuple(nodes), piece.words
            if head in {"end", "else"}:
                self._fail(f"unexpected {{{{{head}}}}}")
            node = self._node(head, piece.words, pieces)
            if node is not None:
                nodes.append(node)
        if ends:
            self._fail("unexpected EOF: an {{end}} is missing")
        self._depth -= 1
        return tuple(nodes), None

    def _node(self, head: str, words: tuple[_Word, ...], pieces: Iterator[_Piece]) -> Node | None:
        if head in {"if", "with", "range"}:
            return self._branch(head, words[1:], pieces)
        if head in {"break", "continue"}:
            return Jump(head)
        if head in {"define", "block"}:
            return self._define(head, words, pieces)
        if head == "template":
            return Call(self._name(words), self._pipe_or_none(words[2:]))
        return Action(self._pipe(words))

    def _branch(self, kind: str, words: tuple[_Word, ...], pieces: Iterator[_Piece]) -> Branch:
        pipe = self._pipe(words, ranging=kind == "range")
        body, end = self._nodes(pieces, ("end", "else"))
        if end is None or end[0].text == "end":
            return Branch(kind, pipe, body, ())
        if len(end) == 1:
            otherwise, _ = self._nodes(pieces, ("end",))
            return Branch(kind, pipe, body, otherwise)
        if end[1].text != kind or kind == "range":
            self._fail(f"unexpected {end[1].text} after else")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("nested too deep")
        chained = self._branch(kind, end[2:], pieces)
        self._depth -= 1
        return Branch(kind, pipe, body, (chained,))

    def _define(self, kind: str, words: tuple[_Word, ...], pieces: Iterator[_Piece]) -> Node | None:
        name = self._name(words)
        pipe = self._pipe_or_none(words[2:])
        self.defined[name], _ = self._nodes(pieces, ("end",))
        return Call(name, pipe) if kind == "block" else None

    def _name(self, words: tuple[_Word, ...]) -> str:
        if len(words) < 2 or words[1].kind not in {"string", "raw"}:
            self._fail("a template's name is missing")
        return str(self._literal(words[1]))

    def _pipe_or_none(self, words: tuple[_Word, ...]) -> Pipe | None:
        return self._pipe(words) if words else None

    # ------------------------------------------------------------------------------------------------- expressions

    def _pipe(self, words: tuple[_Word, ...], *, ranging: bool = False) -> Pipe:
        names, assigns, words = self._declared(words, ranging)
        commands, rest = self._commands(words)
        if rest:
            self._fail(f"unexpected {rest[0].text!r}")
        return Pipe(commands, names, assigns)

    def _declared(self, words: tuple[_Word, ...], ranging: bool) -> tuple[tuple[str, ...], bool, tuple[_Word, ...]]:
        texts = [word.text for word in words[:4]]
        for count, marks in ((1, (1,)), (2, (1, 3))):
            last = marks[-1]
            if (
                len(words) > last
                and texts[last] in {":=", "="}
                and all(words[i].kind == "variable" for i in (0, last - 1))
            ):
                if count == 2 and (texts[1] != "," or not ranging):
                    self._fail("too many variables")
                names = (texts[0],) if count == 1 else (texts[0], texts[2])
                return names, texts[last] == "=", words[last + 1 :]
        return (), False, words

    def _commands(self, words: tuple[_Word, ...]) -> tuple[tuple[tuple[Operand, ...], ...], tuple[_Word, ...]]:
        """Commands up to the end or a closing parenthesis, which stays in the rest."""
        commands: list[tuple[Operand, ...]] = []
        command: list[Operand] = []
        while words and words[0].text != ")":
            if words[0] == _Word("mark", "|"):
                commands.append(self._command(command))
                command, words = [], words[1:]
                continue
            operand, words = self._operand(words)
            command.append(operand)
        commands.append(self._command(command))
        return tuple(commands), words

    def _command(self, operands: list[Operand]) -> tuple[Operand, ...]:
        if not operands:
            self._fail("missing value for command")
        if len(operands) > 1 and not isinstance(operands[0], Function | Field | Variable | Chain):
            self._fail("can't give argument to non-function")
        return tuple(operands)

    def _operand(self, words: tuple[_Word, ...]) -> tuple[Operand, tuple[_Word, ...]]:
        word, rest = words[0], words[1:]
        if word.kind == "field":
            path = tuple(word.text[1:].split("."))
            self.fields.update(path)
            return Field(path), rest
        if word.kind == "variable":
            name, *names = word.text.split(".")
            self.fields.update((name[1:], *names))
            return Variable(name, tuple(names)), rest
        if word.text == "(" and word.kind == "mark":
            return self._parenthesis(rest)
        if word.text == "." and word.kind == "mark":
            return Dot(), rest
        if word.kind == "name" and word.text not in {"true", "false", "nil"}:
            return Function(word.text), rest
        if word.kind == "mark":
            self._fail(f"unexpected {word.text!r}")
        return Literal(self._literal(word)), rest

    def _parenthesis(self, words: tuple[_Word, ...]) -> tuple[Operand, tuple[_Word, ...]]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("nested too deep")
        commands, rest = self._commands(words)
        if not rest:
            self._fail("unclosed left paren")
        self._depth -= 1
        rest = rest[1:]
        path: tuple[str, ...] = ()
        if rest and rest[0].kind == "field":
            path, rest = tuple(rest[0].text[1:].split(".")), rest[1:]
            self.fields.update(path)
        return Chain(Pipe(commands), path), rest

    def _literal(self, word: _Word) -> bool | int | float | str | None:
        if word.kind == "name":
            return {"true": True, "false": False, "nil": None}[word.text]
        if word.kind == "raw":
            return word.text[1:-1]
        if word.kind == "string":
            return self._unquoted(word.text)
        if word.kind == "character":
            return ord(self._unquoted(word.text)[:1] or "\0")
        return self._number(word.text)

    def _number(self, text: str) -> int | float:
        plain = text.replace("_", "")
        try:
            return int(plain, 0) if re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|0|[1-9]\d*)", plain) else float(plain)
        except ValueError:
            self._fail(f"bad number {text}")

    def _unquoted(self, text: str) -> str:
        def escaped(match: re.Match[str]) -> str:
            code = match[0][1:]
            if code in _ESCAPES:
                return _ESCAPES[code]
            if code[0] in "xuU":
                return chr(int(code[1:], 16))
            if code[0] in "01234567":
                return chr(int(code, 8))
            self._fail(f"unknown escape {match[0]}")

        return _ESCAPE.sub(escaped, text[1:-1])


_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|[0-7]{3}|.)", re.DOTALL)
