"""Runs a parsed Go template over values, with a bound on steps and output. Pure.

What a template may not do is ModelFileError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from puna.model.bounds import MAX_OUTPUT
from puna.model.goparse import (
    Action,
    Branch,
    Call,
    Chain,
    Dot,
    Field,
    Function,
    Jump,
    Literal,
    Nodes,
    Operand,
    Pipe,
    TemplateNode,
    Text,
    Tree,
    Variable,
)
from puna.template.gofunctions import CALLED, exhaust, fail
from puna.template.govalues import MISSING, Missing, Struct, Value, Words, printed, truth

MAX_STEPS = 2_000_000
MAX_CALLS = 100


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
            fail("break or continue outside a range")
        except RecursionError:
            fail("nested too deep")
        return "".join(self._written)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            exhaust(f"it takes more than {MAX_STEPS} steps")

    def _write(self, text: str) -> None:
        self._size += len(text)
        if self._size > MAX_OUTPUT:
            exhaust(f"it writes more than {MAX_OUTPUT} characters")
        self._written.append(text)

    # ------------------------------------------------------------------------------------------------------- nodes

    def _nodes(self, nodes: Nodes, dot: Value, scope: list[tuple[str, Value]]) -> None:
        """Variables declared within end with it."""
        depth = len(scope)
        for node in nodes:
            self._step()
            self._node(node, dot, scope)
        del scope[depth:]

    def _node(self, node: TemplateNode, dot: Value, scope: list[tuple[str, Value]]) -> None:
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
        depth = len(scope)
        whole = self._pipe(node.pipe, dot, scope)
        if isinstance(whole, int) and len(node.pipe.names) > 1:
            fail(f"can't use {whole} to iterate over more than one variable")
        items = _items(whole)
        if not items:
            self._nodes(node.otherwise, dot, scope)
            return
        for key, item in items:
            self._step()
            values = {1: (item,), 2: (key, item)}.get(len(node.pipe.names), ())
            del scope[depth:]
            for name, value in zip(node.pipe.names, values, strict=True):
                self._bind(name, value, node.pipe.assigns, scope)
            try:
                self._nodes(node.body, item, scope)
            except _Break:
                break
            except _Continue:
                pass

    def _call(self, node: Call, dot: Value, scope: list[tuple[str, Value]]) -> None:
        body = self._tree.defined.get(node.name)
        if body is None:
            fail(f'template "{node.name}" is not defined')
        value = None if node.pipe is None else self._pipe(node.pipe, dot, scope)
        self._calls += 1
        if self._calls > MAX_CALLS:
            fail("templates call each other too deep")
        self._nodes(body, value, [("$", value)])
        self._calls -= 1

    @staticmethod
    def _bind(name: str, value: Value, assigns: bool, scope: list[tuple[str, Value]]) -> None:
        if assigns:
            for place in range(len(scope) - 1, -1, -1):
                if scope[place][0] == name:
                    scope[place] = (name, value)
                    return
            fail(f"undefined variable {name}")
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
                fail("can't give argument to non-function")
            if first == Literal(None):
                fail("nil is not a command")
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
            fail(f"wrong number of args for {'or' if wanted else 'and'}: want at least 1 got 0")
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
        function = CALLED.get(name)
        if function is None:
            fail(f'function "{name}" not defined')
        value = function(arguments)
        if isinstance(value, str):
            # Text can grow inside expressions too.
            self._steps += len(value) // 100
        return value


def _variable(name: str, scope: list[tuple[str, Value]]) -> Value:
    for known, value in reversed(scope):
        if known == name:
            return value
    fail(f"undefined variable {name}")


def _path(value: Value, path: tuple[str, ...]) -> Value:
    for name in path:
        if isinstance(value, Struct):
            if name not in value.fields:
                fail(f"there is no field {name}")
            value = value.fields[name]
        elif isinstance(value, Mapping):
            value = value.get(name, MISSING)
        elif value is None or isinstance(value, Missing):
            fail(f"nil has no field {name}")
        else:
            fail(f"can't look up field {name} in {printed(value)[:40]!r}")
    return value


def _items(value: Value) -> list[tuple[Value, Value]]:
    if isinstance(value, Mapping):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, Words):
        return list(enumerate(value.words))
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        if value > MAX_STEPS:
            fail("a range is too long")
        return [(number, number) for number in range(value)]
    if value is None or isinstance(value, Missing):
        return []
    fail(f"can't range over {printed(value)[:40]!r}")
