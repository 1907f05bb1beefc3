"""Go's text/template, as far as model templates use it: text to a tree of nodes. Pure.

What Go's own parser refuses is refused, in its words and with the line: `template: :LINE: what is wrong`. Nothing is
evaluated here; see `puna.template.goexec`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NoReturn, TypeAlias

from puna.errors import ModelFileError

MAX_SOURCE = 200_000
MAX_DEPTH = 100

FUNCTIONS = frozenset(
    {
        *("and", "call", "html", "index", "slice", "js", "len", "not", "or", "print", "printf", "println", "urlquery"),
        *("eq", "ge", "gt", "le", "lt", "ne"),
        *("json", "currentDate", "yesterdayDate", "toTypeScriptType"),
    }
)
"""Go's own, then Ollama's."""

# ------------------------------------------------------------------------------------------------------ expressions


@dataclass(frozen=True, slots=True)
class Literal:
    """None: `nil`."""

    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Dot:
    """The value that is looked at: `.`"""


@dataclass(frozen=True, slots=True)
class Field:
    """A path of fields: `.A.B` of the dot."""

    path: tuple[str, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable, with a path of fields: `$name.A.B`; the root is named `$`."""

    name: str
    path: tuple[str, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """Fields of what an expression gives: `(pipeline).A.B`, or a function's result and `.A.B`."""

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
    """A block with a condition: `if`, `with` or `range`."""

    kind: str
    pipe: Pipe
    body: Nodes
    otherwise: Nodes


@dataclass(frozen=True, slots=True)
class Jump:
    """The way out of a `range`: `break` or `continue`"""

    kind: str


@dataclass(frozen=True, slots=True)
class Call:
    """A template called by its name: `template "name" pipeline`"""

    name: str
    pipe: Pipe | None
    line: int = field(default=0, compare=False)


TemplateNode: TypeAlias = Text | Action | Branch | Jump | Call
Nodes: TypeAlias = tuple[TemplateNode, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """A parsed template. `defined`: the templates that it defines for itself, by name. Shared: not to be changed."""

    body: Nodes
    defined: dict[str, Nodes]


@lru_cache(maxsize=128)
def parse(source: str) -> Tree:
    """Raises ModelFileError."""
    if len(source) > MAX_SOURCE:
        raise ModelFileError(f"the template is longer than {MAX_SOURCE} characters")
    return _Parser(_Tokens(_tokens(source))).tree()


def fault(line: int, message: str) -> ModelFileError:
    """What is wrong with a template, as Go writes it; Ollama's templates have no name."""
    return ModelFileError(f"template: :{line}: {message}")


# ----------------------------------------------------------------------------------------------------------- tokens


@dataclass(frozen=True, slots=True)
class _Token:
    """`kind`: text, open, close, space, word, field, variable, dot, number, string, raw, rune, mark, error or end."""

    kind: str
    text: str
    line: int

    def __str__(self) -> str:
        if self.kind == "end":
            return "EOF"
        if self.kind == "error":
            return self.text
        if self.kind == "word" and self.text in _KEYWORDS:
            return f"<{self.text}>"
        if self.kind in {"close", "dot"}:
            return {"close": '"}}"', "dot": "<.>"}[self.kind]
        return _quoted(self.text[:10]) + ("..." if len(self.text) > 10 else "")


_KEYWORDS = frozenset({"block", "break", "continue", "define", "else", "end", "if", "range", "nil", "template", "with"})
_SPACES = " \t\r\n"
_COMMENT = re.compile(r"/\*.*?\*/(?P<trim>[ \t\r\n]-)?(?P<close>\}\})?", re.DOTALL)
_PART = re.compile(
    r"""(?P<close>[ \t\r\n]-\}\}|\}\})
    |(?P<space>[ \t\r\n]+?(?=[ \t\r\n]-\}\})|[ \t\r\n]+)
    |(?P<string>"(?:\\[^\n]|[^"\\\n])*")
    |(?P<raw>`[^`]*`)
    |(?P<rune>'(?:\\[^\n]|[^'\\\n])*')
    |(?P<number>[+-]?(?:0[xX](?:[0-9a-fA-F_]*\.?[0-9a-fA-F_]*(?:[pP][+-]?[0-9_]+)?)|0[oO][0-7_]*|0[bB][01_]*
        |[0-9][0-9_]*\.?[0-9_]*(?:[eE][+-]?[0-9_]*)?|\.[0-9][0-9_]*(?:[eE][+-]?[0-9_]*)?)|[+-])
    |(?P<variable>\$\w*)
    |(?P<field>\.\w+)
    |(?P<dot>\.)
    |(?P<word>\w+)
    |(?P<mark>:=|[!#-&(-_a-~])
    """,
    re.VERBOSE,
)
_ENDS_WORD = re.compile(r"[ \t\r\n.,|:()]|\}\}|\Z")


_LONGEST_QUOTE = 100


def _quoted(text: str) -> str:
    text = text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _tokens(source: str) -> Generator[_Token, None, None]:
    """Text and the parts of actions. An error is the last token; else `end` is."""
    position, line, trim = 0, 1, False
    while True:
        begin = source.find("{{", position)
        text = source[position:] if begin < 0 else source[position:begin]
        left = begin >= 0 and source[begin + 2 : begin + 3] == "-" and source[begin + 3 : begin + 4] in tuple(_SPACES)
        shown = text.lstrip(_SPACES) if trim else text
        shown = shown.rstrip(_SPACES) if left else shown
        if shown:
            yield _Token("text", shown, line)
        line += text.count("\n")
        if begin < 0:
            yield _Token("end", "", line)
            return
        inside = begin + (4 if left else 2)
        line += source.count("\n", begin, inside)
        if source.startswith("/*", inside):
            comment = _COMMENT.match(source, inside)
            if comment is None or not comment["close"]:
                yield _Token("error", "unclosed comment" if comment is None else _OPEN_COMMENT, line)
                return
            line += comment[0].count("\n")
            position, trim = comment.end(), comment["trim"] is not None
            continue
        yield _Token("open", "{{", line)
        ended = yield from _action(source, inside, line)
        if ended is None:
            return
        position, line, trim = ended


_OPEN_COMMENT = "comment ends before closing delimiter"


def _action(source: str, position: int, line: int) -> Generator[_Token, None, tuple[int, int, bool] | None]:
    """Up to the closing braces. Returns where they end, on which line, and whether they trim; None after an error."""
    depth = 0
    while True:
        match = _PART.match(source, position)
        if match is None or match.lastgroup is None:
            yield _Token("error", _stray(source, position), line)
            return None
        kind, text = match.lastgroup, match[0]
        wrong = _misplaced(kind, text, depth, source, match.end())
        if wrong is not None:
            yield _Token("error", wrong, line)
            return None
        yield _Token("mark" if kind == "mark" else kind, text, line)
        depth += {"(": 1, ")": -1}.get(text, 0) if kind == "mark" else 0
        line += text.count("\n")
        position = match.end()
        if kind == "close":
            return position, line, text[0] in _SPACES


def _stray(source: str, position: int) -> str:
    """What is wrong where no token can be read."""
    if position >= len(source):
        return "unclosed action"
    opened = {'"': "unterminated quoted string", "`": "unterminated raw quoted string"}
    opened["'"] = "unterminated character constant"
    return opened.get(source[position], f"unrecognized character in action: {_named(source[position])}")


def _misplaced(kind: str, text: str, depth: int, source: str, end: int) -> str | None:
    """What Go's lexer has against this token here, if anything."""
    after = source[end : end + 1]
    if kind == "close" and depth:
        return "unclosed left paren"
    if kind == "mark" and text == ")" and not depth:
        return "unexpected right paren"
    if kind == "mark" and text == ":":
        return "expected :="
    if kind == "number" and re.match(r"[\w+\-]", after):
        return f"bad number syntax: {_quoted(text + after)}"
    if kind in {"word", "field", "variable", "dot"} and not _ENDS_WORD.match(source, end):
        return f"bad character {_named(after)}"
    return None


def _named(character: str) -> str:
    return f"U+{ord(character):04X}" + (f" '{character}'" if character.isprintable() else "")


@dataclass(slots=True)
class _Tokens:
    """Tokens, with a look ahead as far as is needed."""

    source: Iterator[_Token]
    last: _Token = _Token("text", "", 1)
    _ahead: list[_Token] = field(default_factory=list)

    def peek(self, at: int = 0) -> _Token:
        while len(self._ahead) <= at:
            self._ahead.append(next(self.source, _Token("end", "", self.last.line)))
        return self._ahead[at]

    def next(self) -> _Token:
        self.last = self.peek()
        self._ahead.pop(0)
        return self.last

    def skip(self) -> _Token:
        """The next token that is no space, not taken."""
        while self.peek().kind == "space":
            self.next()
        return self.peek()

    def take(self) -> _Token:
        """The next token that is no space."""
        self.skip()
        return self.next()


# -------------------------------------------------------------------------------------------------------- the parser

_CONTROLS = frozenset({"if", "with", "range", "break", "continue", "block", "template", "end", "else"})


class _Variables:
    """Those that are known at a place. A name may be declared more than once, each time within the last."""

    def __init__(self) -> None:
        self._declared: list[str] = []
        self._times: Counter[str] = Counter()
        self.declare("$")

    def __len__(self) -> int:
        return len(self._declared)

    def declare(self, name: str) -> None:
        self._declared.append(name)
        self._times[name] += 1

    def times(self, name: str) -> int:
        return self._times[name]

    def forget(self, count: int) -> None:
        """All but the first `count` declarations."""
        self._times.subtract(self._declared[count:])
        del self._declared[count:]


@dataclass(slots=True)
class _Scope:
    """What is known in one template: its variables so far, and in how many ranges this place is."""

    variables: _Variables = field(default_factory=_Variables)
    ranges: int = 0


@dataclass(slots=True)
class _Parser:
    tokens: _Tokens
    defined: dict[str, Nodes] = field(default_factory=dict)
    scope: _Scope = field(default_factory=_Scope)
    _depth: int = 0

    def tree(self) -> Tree:
        nodes: list[TemplateNode] = []
        while self.tokens.peek().kind != "end":
            if self.tokens.peek().kind == "open" and self._head() == "define":
                self._define()
                continue
            node = self._node()
            if isinstance(node, _Token):
                self._fail(f"unexpected {{{{{node.text.split()[0]}}}}}")
            nodes.append(node)
        tree = Tree(tuple(nodes), self.defined)
        _check_calls(tree)
        return tree

    def _head(self) -> str:
        """The first word of the action that begins here, if it is one."""
        token = self.tokens.peek(1)
        token = self.tokens.peek(2) if token.kind == "space" else token
        return token.text if token.kind == "word" else ""

    def _fail(self, message: str) -> NoReturn:
        raise fault(self.tokens.last.line, message)

    def _unexpected(self, token: _Token, where: str) -> NoReturn:
        if token.kind == "error":
            raise fault(token.line, token.text)
        raise fault(token.line, f"unexpected {token} in {where}")

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("exceeded maximum nesting depth")

    # ------------------------------------------------------------------------------------------------------- nodes

    def _node(self) -> TemplateNode | _Token:
        """One node; for `end` and `else` their word."""
        token = self.tokens.next()
        if token.kind == "text":
            return Text(token.text)
        if token.kind != "open":
            self._unexpected(token, "input")
        word = self.tokens.skip()
        if word.kind != "word" or word.text not in _CONTROLS:
            return Action(self._pipe("command", "close"))
        self.tokens.take()
        match word.text:
            case "end":
                self._close("end")
                return word
            case "else":
                return self._else(word)
            case "break" | "continue":
                return self._jump(word)
            case "template":
                return self._call(word)
            case "block":
                return self._block(word)
            case _:
                return self._branch(word.text)

    def _else(self, word: _Token) -> _Token:
        """A chained condition is left to be read."""
        after = self.tokens.skip()
        if after.kind == "word" and after.text in {"if", "with"}:
            return replace(word, text=f"else {after.text}")
        self._close("else")
        return word

    def _close(self, where: str) -> None:
        token = self.tokens.take()
        if token.kind != "close":
            self._unexpected(token, where)

    def _list(self) -> tuple[Nodes, _Token]:
        """Nodes up to an `end` or `else`, whose word is given too."""
        self._deeper()
        nodes: list[TemplateNode] = []
        while self.tokens.peek().kind != "end":
            node = self._node()
            if isinstance(node, _Token):
                self._depth -= 1
                return tuple(nodes), node
            nodes.append(node)
        raise fault(self.tokens.peek().line, "unexpected EOF")

    def _branch(self, kind: str) -> Branch:
        known = len(self.scope.variables)
        pipe = self._pipe(kind, "close")
        self.scope.ranges += kind == "range"
        body, end = self._list()
        self.scope.ranges -= kind == "range"
        otherwise: Nodes = ()
        if end.text == f"else {kind}" and kind != "range":
            self.tokens.take()
            self._deeper()
            otherwise = (self._branch(kind),)
            self._depth -= 1
        elif end.text.startswith("else "):
            self._unexpected(self.tokens.take(), "input")
        elif end.text == "else":
            otherwise, end = self._list()
            if end.text != "end":
                raise fault(end.line, f"expected end; found {{{{{end.text.split()[0]}}}}}")
        self.scope.variables.forget(known)
        return Branch(kind, pipe, body, otherwise)

    def _jump(self, word: _Token) -> Jump:
        self._close(f"{{{{{word.text}}}}}")
        if not self.scope.ranges:
            raise fault(word.line, f"{{{{{word.text}}}}} outside {{{{range}}}}")
        return Jump(word.text)

    def _call(self, word: _Token) -> Call:
        name = self._name("template clause")
        if self.tokens.skip().kind == "close":
            self.tokens.next()
            return Call(name, None, word.line)
        return Call(name, self._pipe("template clause", "close"), word.line)

    def _block(self, word: _Token) -> Call:
        name = self._name("block clause")
        pipe = self._pipe("block clause", "close")
        self._body(name, "block clause")
        return Call(name, pipe, word.line)

    def _define(self) -> None:
        self.tokens.next()
        self.tokens.take()
        name = self._name("define clause")
        self._close("define clause")
        self._body(name, "define clause")

    def _body(self, name: str, where: str) -> None:
        """Of a template that is defined: its own variables, and no range around it."""
        outer, self.scope = self.scope, _Scope()
        nodes, end = self._list()
        self.scope = outer
        if end.text != "end":
            raise fault(end.line, f"unexpected {{{{{end.text.split()[0]}}}}} in {where}")
        if _says_something(self.defined.get(name, ())) and _says_something(nodes):
            raise fault(end.line, f"template: multiple definition of template {_quoted(name)}")
        if name not in self.defined or _says_something(nodes):
            self.defined[name] = nodes

    def _name(self, where: str) -> str:
        token = self.tokens.take()
        if token.kind not in {"string", "raw"}:
            self._unexpected(token, where)
        return str(self._literal(token))

    # ------------------------------------------------------------------------------------------------- expressions

    def _pipe(self, where: str, end: str) -> Pipe:
        """Up to `end`: the closing braces, or a right parenthesis."""
        names, assigns = self._declared(where)
        commands: list[tuple[Operand, ...]] = []
        while True:
            token = self.tokens.skip()
            if token.kind == end or (token.kind == "mark" and token.text == end):
                self.tokens.next()
                break
            if token.kind not in _OPERANDS and (token.kind, token.text) != ("mark", "("):
                self._unexpected(token, where)
            if token.kind == "word" and token.text in _KEYWORDS - {"nil"}:
                self._unexpected(token, where)
            commands.append(self._command())
        if not commands:
            self._fail(f"missing value for {where}")
        for stage, (first, *_) in enumerate(commands[1:], 2):
            if isinstance(first, Literal | Dot):
                self._fail(f"non executable command in pipeline stage {stage}")
        return Pipe(tuple(commands), names, assigns)

    def _declared(self, where: str) -> tuple[tuple[str, ...], bool]:
        """Variables that the pipeline declares or assigns to; they are known from here on."""
        names: list[str] = []
        while (variable := self.tokens.skip()).kind == "variable":
            spaced = self.tokens.peek(1).kind == "space"
            mark = self.tokens.peek(2 if spaced else 1)
            if mark.kind == "mark" and mark.text in {":=", "="}:
                self._declare(names, variable)
                new = [name for name in names if self.scope.variables.times(name) == names.count(name)]
                if mark.text == "=" and new:
                    # Go finds this out at the run, each time.
                    self._fail(f"undefined variable {_quoted(min(new))}")
                return tuple(names), mark.text == "="
            if (mark.kind, mark.text) != ("mark", ","):
                break
            self._declare(names, variable)
            if where != "range" or len(names) > 1:
                self._fail(f"too many declarations in {where}")
            if (after := self.tokens.skip()).kind not in {"variable", "close"} and after.text != ")":
                self._fail("range can only initialize variables")
        return tuple(names), False

    def _declare(self, names: list[str], variable: _Token) -> None:
        self.tokens.next()
        self.tokens.take()
        names.append(variable.text)
        self.scope.variables.declare(variable.text)

    def _command(self) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while True:
            self.tokens.skip()
            operand = self._operand()
            if operand is not None:
                operands.append(operand)
            token = self.tokens.peek()
            if token.kind == "space":
                continue
            if token.kind == "mark" and token.text == "|":
                self.tokens.next()
            elif token.kind != "close" and (token.kind, token.text) != ("mark", ")"):
                self._unexpected(token, "operand")
            break
        if not operands:
            self._fail("empty command")
        return tuple(operands)

    def _operand(self) -> Operand | None:
        """A term and the fields that follow it; None where none begins."""
        token = self.tokens.peek()
        term = self._term(token)
        if term is None or self.tokens.peek().kind != "field":
            return term
        path: list[str] = []
        while self.tokens.peek().kind == "field":
            path.append(self.tokens.next().text[1:])
        if isinstance(term, Field | Variable):
            return replace(term, path=(*term.path, *path))
        if isinstance(term, Chain):
            return replace(term, path=tuple(path))
        if isinstance(term, Function):
            return Chain(Pipe(((term,),)), tuple(path))
        self._fail(f"unexpected . after term {_quoted(token.text)}")

    def _term(self, token: _Token) -> Operand | None:
        match token.kind:
            case "word":
                return self._word(token)
            case "dot":
                self.tokens.next()
                return Dot()
            case "variable":
                if not self.scope.variables.times(token.text):
                    raise fault(token.line, f"undefined variable {_quoted(token.text)}")
                self.tokens.next()
                return Variable(token.text, (), token.line)
            case "field":
                self.tokens.next()
                return Field((token.text[1:],), token.line)
            case "number" | "string" | "raw" | "rune":
                self.tokens.next()
                return Literal(self._literal(token))
            case "mark" if token.text == "(":
                self.tokens.next()
                self._deeper()
                pipe = self._pipe("parenthesized pipeline", ")")
                self._depth -= 1
                return Chain(pipe, ())
        return None

    def _word(self, token: _Token) -> Operand | None:
        if token.text in _KEYWORDS - {"nil"}:
            return None
        self.tokens.next()
        if token.text in _CONSTANTS:
            return Literal(_CONSTANTS[token.text])
        if token.text not in FUNCTIONS:
            raise fault(token.line, f"function {_quoted(token.text)} not defined")
        return Function(token.text)

    def _literal(self, token: _Token) -> int | float | str:
        match token.kind:
            case "raw":
                return token.text[1:-1].replace("\r", "")
            case "string":
                return self._unquoted(token)
            case "rune":
                text = self._unquoted(token)
                if len(text) != 1:
                    wrong = f"malformed character constant: {token.text}" if text else "invalid syntax"
                    raise fault(token.line, wrong)
                return ord(text)
            case _:
                return _number(token)

    def _unquoted(self, token: _Token) -> str:
        other = {'"': "'", "'": '"'}[token.text[0]]
        data = bytearray()
        position, text = 0, token.text[1:-1]
        for match in _ESCAPE.finditer(text):
            data += text[position : match.start()].encode()
            code, position = match[1], match.end()
            if code in _ESCAPES and code != other:
                data += _ESCAPES[code].encode()
            elif code[0] in "uU" and len(code) > 1 and not 0xD800 <= int(code[1:], 16) < 0xE000:
                data += chr(int(code[1:], 16)).encode()
            elif code[0] == "x" and len(code) > 1:
                data += _byte(int(code[1:], 16), token)
            elif len(code) == 3 and int(code, 8) < 256:
                data += _byte(int(code, 8), token)
            else:
                raise fault(token.line, "invalid syntax")
        return (data + text[position:].encode()).decode(errors="replace")


def _byte(number: int, token: _Token) -> bytes:
    """In a character constant `\\xe9` is the character of that number, in a text that byte."""
    return chr(number).encode() if token.kind == "rune" else bytes((number,))


_OPERANDS = frozenset({"word", "dot", "variable", "field", "number", "string", "raw", "rune"})
_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "nil": None}
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}|[0-7]{3}|.)", re.DOTALL)
_WHOLE = re.compile(
    r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*)"
)
_FLOAT = re.compile(
    r"[+-]?(?:[0-9](?:_?[0-9])*\.?(?:[0-9](?:_?[0-9])*)?|\.[0-9](?:_?[0-9])*)(?:[eE][+-]?[0-9](?:_?[0-9])*)?"
)
_HEX_FLOAT = re.compile(r"[+-]?0[xX][0-9a-fA-F_]*\.?[0-9a-fA-F_]*[pP][+-]?[0-9]+")


_LONGEST_NUMBER = 1000


def _number(token: _Token) -> int | float:
    text, plain = token.text, token.text.replace("_", "")
    if len(text) > _LONGEST_NUMBER:
        raise fault(token.line, f"illegal number syntax: {_quoted(text)}")
    if _WHOLE.fullmatch(text):
        sign, digits = ("-", plain[1:]) if plain[0] == "-" else ("", plain.lstrip("+"))
        # An octal number may leave out its letter.
        octal = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
        return _fitting(int(sign + digits, 8 if octal else 0), token)
    if _FLOAT.fullmatch(text):
        return float(plain) if set(".eE") & set(plain) else _fitting(2**63, token)
    if _HEX_FLOAT.fullmatch(text):
        return float.fromhex(plain)
    raise fault(token.line, f"illegal number syntax: {_quoted(text)}")


def _fitting(number: int, token: _Token) -> int:
    if not -(2**63) <= number < 2**63:
        raise fault(token.line, f"integer overflow: {_quoted(token.text)}")
    return number


def _says_something(nodes: Nodes) -> bool:
    """Go takes a template of nothing but white space for none."""
    return any(not isinstance(node, Text) or node.text.strip() for node in nodes)


def _check_calls(tree: Tree) -> None:
    """Go's parser leaves it to the run that a template is not defined; here nothing can define it later."""

    def check(nodes: Nodes) -> None:
        for node in nodes:
            if isinstance(node, Branch):
                check(node.body)
                check(node.otherwise)
            elif isinstance(node, Call) and node.name not in tree.defined:
                raise fault(node.line, f"undefined template specified: {_quoted(node.name)}")

    for nodes in (tree.body, *tree.defined.values()):
        check(nodes)
