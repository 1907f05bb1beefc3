"""Runs a parsed Go template over values, with a bound on steps and output. Pure.

Values are Go's as far as templates meet them: nil, booleans, numbers, text, lists, maps, and Records, which stand for
structs: their fields are known, they print as JSON. What a template may not do is ModelFileError.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn, TypeAlias
from urllib.parse import quote_plus

from puna.chat.goparse import (
    Action,
    Branch,
    Call,
    Chain,
    Dot,
    Field,
    Function,
    Jump,
    Literal,
    Node,
    Nodes,
    Operand,
    Pipe,
    Text,
    Tree,
    Variable,
)
from puna.errors import ModelFileError
from puna.types import JsonValue

MAX_STEPS = 2_000_000
MAX_OUTPUT = 32_000_000
MAX_CALLS = 100


@dataclass(frozen=True, slots=True)
class Record:
    """A struct. `shape`: what it prints as, in JSON; None: it has no JSON of its own."""

    fields: Mapping[str, Value]
    shape: JsonValue


class Missing:
    """A key that a map does not have: false, and printed as `<no value>`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Words:
    """A list of words that prints as Go prints one: bare when single, else `[a b]`."""

    words: tuple[str, ...]


Value: TypeAlias = "bool | int | float | str | Sequence[Value] | Mapping[str, Value] | Record | Words | Missing | None"

MISSING = Missing()


class _Stop(Exception):
    """The output ends here."""


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


def execute(
    tree: Tree, root: Mapping[str, Value], *, now: Callable[[], datetime], stop_after: str | None = None
) -> str:
    """The output. `stop_after`: end it once this field has been printed. Raises ModelFileError."""
    return _Run(tree, root, now, stop_after).output()


class _Run:
    def __init__(
        self, tree: Tree, root: Mapping[str, Value], now: Callable[[], datetime], stop_after: str | None
    ) -> None:
        self._tree = tree
        self._root = root
        self._now = now
        self._stop_after = None if stop_after is None else Field((stop_after,))
        self._written: list[str] = []
        self._size = 0
        self._steps = 0
        self._calls = 0

    def output(self) -> str:
        try:
            self._nodes(self._tree.body, self._root, [("$", self._root)])
        except _Stop:
            pass
        except (_Break, _Continue):
            _fail("break or continue outside a range")
        except RecursionError:
            _fail("nested too deep")
        return "".join(self._written)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            _fail(f"it takes more than {MAX_STEPS} steps")

    def _write(self, text: str) -> None:
        self._size += len(text)
        if self._size > MAX_OUTPUT:
            _fail(f"it writes more than {MAX_OUTPUT} characters")
        self._written.append(text)

    # ------------------------------------------------------------------------------------------------------- nodes

    def _nodes(self, nodes: Nodes, dot: Value, scope: list[tuple[str, Value]]) -> None:
        """Variables declared within end with it."""
        depth = len(scope)
        for node in nodes:
            self._step()
            self._node(node, dot, scope)
        del scope[depth:]

    def _node(self, node: Node, dot: Value, scope: list[tuple[str, Value]]) -> None:
        if isinstance(node, Text):
            self._write(node.text)
        elif isinstance(node, Action):
            self._action(node.pipe, dot, scope)
        elif isinstance(node, Branch):
            self._branch(node, dot, scope)
        elif isinstance(node, Jump):
            raise _Break if node.kind == "break" else _Continue
        else:
            self._call(node, dot, scope)

    def _action(self, pipe: Pipe, dot: Value, scope: list[tuple[str, Value]]) -> None:
        value = self._pipe(pipe, dot, scope)
        if not pipe.names:
            self._write(printed(value))
        if self._stop_after is not None and pipe.commands == ((self._stop_after,),):
            raise _Stop

    def _branch(self, node: Branch, dot: Value, scope: list[tuple[str, Value]]) -> None:
        depth = len(scope)
        if node.kind == "range":
            self._range(node, dot, scope)
        else:
            value = self._pipe(node.pipe, dot, scope)
            inner = value if node.kind == "with" and truth(value) else dot
            self._nodes(node.body if truth(value) else node.otherwise, inner, scope)
        del scope[depth:]

    def _range(self, node: Branch, dot: Value, scope: list[tuple[str, Value]]) -> None:
        items = _items(self._pipe(Pipe(node.pipe.commands), dot, scope))
        if not items:
            self._nodes(node.otherwise, dot, scope)
            return
        depth = len(scope)
        for key, item in items:
            self._step()
            values = {1: (item,), 2: (key, item)}.get(len(node.pipe.names), ())
            for name, value in zip(node.pipe.names, values, strict=True):
                self._bind(name, value, node.pipe.assigns, scope)
            try:
                self._nodes(node.body, item, scope)
            except _Break:
                break
            except _Continue:
                pass
            finally:
                del scope[depth:]
        del scope[depth:]

    def _call(self, node: Call, dot: Value, scope: list[tuple[str, Value]]) -> None:
        body = self._tree.defined.get(node.name)
        if body is None:
            _fail(f'template "{node.name}" is not defined')
        value = None if node.pipe is None else self._pipe(node.pipe, dot, scope)
        self._calls += 1
        if self._calls > MAX_CALLS:
            _fail("templates call each other too deep")
        self._nodes(body, value, [("$", value)])
        self._calls -= 1

    @staticmethod
    def _bind(name: str, value: Value, assigns: bool, scope: list[tuple[str, Value]]) -> None:
        if assigns:
            for place in range(len(scope) - 1, -1, -1):
                if scope[place][0] == name:
                    scope[place] = (name, value)
                    return
            _fail(f"undefined variable {name}")
        scope.append((name, value))

    # ------------------------------------------------------------------------------------------------- expressions

    def _pipe(self, pipe: Pipe, dot: Value, scope: list[tuple[str, Value]]) -> Value:
        value: Value = None
        for number, command in enumerate(pipe.commands):
            value = self._command(command, dot, scope, [value] if number else [])
        for name in pipe.names:
            self._bind(name, value, pipe.assigns, scope)
        return value

    def _command(
        self, command: tuple[Operand, ...], dot: Value, scope: list[tuple[str, Value]], piped: list[Value]
    ) -> Value:
        self._step()
        first, rest = command[0], command[1:]
        if not isinstance(first, Function):
            if rest or piped:
                _fail("can't give argument to non-function")
            return self._operand(first, dot, scope)
        if first.name in {"and", "or"}:
            return self._short(first.name == "or", rest, dot, scope, piped)
        arguments = [self._operand(operand, dot, scope) for operand in rest] + piped
        return self._function(first.name, arguments)

    def _short(
        self, wanted: bool, rest: tuple[Operand, ...], dot: Value, scope: list[tuple[str, Value]], piped: list[Value]
    ) -> Value:
        """`and`, `or`: the first operand that decides, and none after it is looked at."""
        value: Value = None
        for operand in rest:
            value = self._operand(operand, dot, scope)
            if truth(value) == wanted:
                return value
        if piped:
            return piped[0]
        if not rest:
            _fail("and, or: an argument is missing")
        return value

    def _operand(self, operand: Operand, dot: Value, scope: list[tuple[str, Value]]) -> Value:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Dot):
            return dot
        if isinstance(operand, Field):
            return _path(dot, operand.path)
        if isinstance(operand, Variable):
            return _path(_variable(operand.name, scope), operand.path)
        if isinstance(operand, Chain):
            return _path(self._pipe(operand.pipe, dot, scope), operand.path)
        return self._function(operand.name, [])

    def _function(self, name: str, arguments: list[Value]) -> Value:
        if name == "currentDate":
            return self._now().strftime("%Y-%m-%d")
        if name == "yesterdayDate":
            return (self._now() - timedelta(days=1)).strftime("%Y-%m-%d")
        function = FUNCTIONS.get(name)
        if function is None:
            _fail(f'function "{name}" not defined')
        value = function(arguments)
        if isinstance(value, str):
            # Text can grow inside expressions too.
            self._steps += len(value) // 100
        return value


def _fail(message: str) -> NoReturn:
    raise ModelFileError(f"the model's template failed: {message}")


def _variable(name: str, scope: list[tuple[str, Value]]) -> Value:
    for known, value in reversed(scope):
        if known == name:
            return value
    _fail(f"undefined variable {name}")


def _path(value: Value, path: tuple[str, ...]) -> Value:
    for name in path:
        if isinstance(value, Record):
            if name not in value.fields:
                _fail(f"there is no field {name}")
            value = value.fields[name]
        elif isinstance(value, Mapping):
            value = value.get(name, MISSING)
        elif value is None or isinstance(value, Missing):
            _fail(f"nil has no field {name}")
        else:
            _fail(f"can't look up field {name} in {printed(value)[:40]!r}")
    return value


def truth(value: Value) -> bool:
    """As Go's templates see it: empty and zero are false, a struct is always true."""
    if isinstance(value, Record):
        return True
    if isinstance(value, Words):
        return bool(value.words)
    return not isinstance(value, Missing) and bool(value)


def _items(value: Value) -> list[tuple[Value, Value]]:
    if isinstance(value, Mapping):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, Words):
        return list(enumerate(value.words))
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        if value > MAX_STEPS:
            _fail("a range is too long")
        return [(number, number) for number in range(value)]
    if value is None or isinstance(value, Missing):
        return []
    _fail(f"can't range over {printed(value)[:40]!r}")


# --------------------------------------------------------------------------------------------------------- printing


def printed(value: Value) -> str:
    """As an action prints it."""
    if value is None or isinstance(value, Missing):
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return go_number(value)
    if isinstance(value, Words):
        return value.words[0] if len(value.words) == 1 else f"[{' '.join(value.words)}]"
    if isinstance(value, Record | Mapping | list | tuple):
        return go_json(value)
    return str(value)


def go_json(value: Value) -> str:
    """As Go's encoder writes it: compact, maps sorted by key, `<`, `>` and `&` escaped, other scripts as they are."""
    text = json.dumps(_shape(value), ensure_ascii=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _shape(value: Value) -> JsonValue:
    if isinstance(value, Record):
        return value.shape
    if isinstance(value, Missing):
        return None
    if isinstance(value, Words):
        return value.words[0] if len(value.words) == 1 else list(value.words)
    if isinstance(value, Mapping):
        return {key: _shape(value[key]) for key in sorted(value)}
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e21 else value
    if isinstance(value, str | int) or value is None:
        return value
    return [_shape(item) for item in value]


def go_number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)


# -------------------------------------------------------------------------------------------------------- functions


def _basic(value: Value) -> bool | int | float | str | None:
    if isinstance(value, Words):
        return printed(value)
    if isinstance(value, Missing):
        return None
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    _fail("non-comparable type in a comparison")


def _kind(value: object) -> str:
    return type(value).__name__


def _eq(arguments: list[Value]) -> bool:
    if len(arguments) < 2:
        _fail("eq: missing argument for comparison")
    first, *others = map(_basic, arguments)
    for other in others:
        if first is not None and other is not None and _kind(first) != _kind(other):
            _fail("incompatible types for comparison")
        if first == other:
            return True
    return False


def _ordered(holds: Callable[[int], bool]) -> Callable[[list[Value]], Value]:
    """`holds` is asked with -1, 0 or 1: how the first compares to the second."""

    def compare(arguments: list[Value]) -> bool:
        if len(arguments) != 2:
            _fail("a comparison takes two arguments")
        first, second = map(_basic, arguments)
        if isinstance(first, str) and isinstance(second, str):
            return holds((first > second) - (first < second))
        numbers = isinstance(first, int | float) and isinstance(second, int | float)
        if not numbers or isinstance(first, bool) or _kind(first) != _kind(second):
            _fail("incompatible types for comparison")
        assert isinstance(first, int | float)
        assert isinstance(second, int | float)
        return holds((first > second) - (first < second))

    return compare


def _one(name: str, arguments: list[Value]) -> Value:
    if len(arguments) != 1:
        _fail(f"{name} takes one argument")
    return arguments[0]


def _len(arguments: list[Value]) -> int:
    value = _one("len", arguments)
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Words):
        return len(value.words)
    if isinstance(value, Mapping | list | tuple):
        return len(value)
    _fail(f"len of {printed(value)[:40]!r}")


def _place(value: Value, limit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        _fail(f"index out of range: {printed(value)[:40]}")
    return value


def _index(arguments: list[Value]) -> Value:
    if not arguments:
        _fail("index: an argument is missing")
    value, *places = arguments
    for place in places:
        if isinstance(value, Mapping):
            value = value.get(printed(place), MISSING)
        elif isinstance(value, Words):
            value = value.words[_place(place, len(value.words) - 1)]
        elif isinstance(value, str):
            value = value.encode()[_place(place, len(value.encode()) - 1)]
        elif isinstance(value, list | tuple):
            value = value[_place(place, len(value) - 1)]
        else:
            _fail(f"can't index {printed(value)[:40]!r}")
    return value


def _slice(arguments: list[Value]) -> Value:
    if not arguments or len(arguments) > 4:
        _fail("slice: wrong number of arguments")
    value, *ends = arguments
    if isinstance(value, str):
        data = value.encode()
        begin, end = _ends(ends, len(data))
        return data[begin:end].decode(errors="replace")
    if isinstance(value, list | tuple):
        begin, end = _ends(ends, len(value))
        return value[begin:end]
    _fail(f"can't slice {printed(value)[:40]!r}")


def _ends(ends: list[Value], size: int) -> tuple[int, int]:
    begin = _place(ends[0], size) if ends else 0
    end = _place(ends[1], size) if len(ends) > 1 else size
    if begin > end:
        _fail(f"slice bounds out of range: {begin} > {end}")
    return begin, end


def _print(arguments: list[Value]) -> str:
    """A blank between two operands when neither is text."""
    text = ""
    for number, value in enumerate(arguments):
        if number and not isinstance(value, str) and not isinstance(arguments[number - 1], str):
            text += " "
        text += printed(value)
    return text


def _println(arguments: list[Value]) -> str:
    return " ".join(map(printed, arguments)) + "\n"


_VERB = re.compile(r"%([-+# 0]*)(\d{0,4})(?:\.(\d{1,4}))?([a-zA-Z%])")


def _printf(arguments: list[Value]) -> str:
    if not arguments or not isinstance(arguments[0], str):
        _fail("printf: the format is missing")
    rest = iter(arguments[1:])

    def verb(match: re.Match[str]) -> str:
        flags, width, precision, letter = match.groups()
        if letter == "%":
            return "%"
        value = next(rest, MISSING)
        if isinstance(value, Missing):
            return f"%!{letter}(MISSING)"
        text = _formatted(value, letter, precision)
        size = int(width or 0)
        if "-" in flags:
            return text.ljust(size)
        return text.zfill(size) if "0" in flags else text.rjust(size)

    return _VERB.sub(verb, arguments[0])


def _formatted(value: Value, letter: str, precision: str | None) -> str:
    if letter in "sv":
        text = printed(value)
        return text[: int(precision)] if letter == "s" and precision else text
    if letter == "q":
        return json.dumps(printed(value), ensure_ascii=False)
    if letter == "t" and isinstance(value, bool):
        return printed(value)
    if letter in "dxXob" and isinstance(value, int) and not isinstance(value, bool):
        return format(value, letter)
    if letter in "feg" and isinstance(value, float):
        return format(value, f".{precision or 6}{letter}")
    return f"%!{letter}({printed(value)})"


def _typescript(arguments: list[Value]) -> str:
    """A parameter's type as TypeScript writes it."""
    value = _one("toTypeScriptType", arguments)
    if not isinstance(value, Record):
        return "any"
    choices = value.fields.get("AnyOf")
    if isinstance(choices, list | tuple) and choices:
        return " | ".join(_typescript([choice]) for choice in choices)
    types = value.fields.get("Type")
    words = types.words if isinstance(types, Words) else ()
    return " | ".join(_TYPESCRIPT.get(word, "any") for word in words) or "any"


_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}

FUNCTIONS: Mapping[str, Callable[[list[Value]], Value]] = {
    "eq": _eq,
    "ne": lambda arguments: not _eq(arguments),
    "lt": _ordered(lambda order: order < 0),
    "le": _ordered(lambda order: order <= 0),
    "gt": _ordered(lambda order: order > 0),
    "ge": _ordered(lambda order: order >= 0),
    "not": lambda arguments: not truth(_one("not", arguments)),
    "len": _len,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "println": _println,
    "printf": _printf,
    "html": lambda arguments: html.escape(_print(arguments)),
    "js": lambda arguments: json.dumps(_print(arguments))[1:-1],
    "urlquery": lambda arguments: quote_plus(_print(arguments)),
    "json": lambda arguments: go_json(_one("json", arguments)),
    "toTypeScriptType": _typescript,
}
"""Go's own and Ollama's, but for `and`, `or` and the dates. `call` has nothing to call here."""
