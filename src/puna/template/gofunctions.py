"""The functions that Go templates call: Go's own and Ollama's. Pure. What a call may not be is ModelFileError."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn
from urllib.parse import quote_plus

from puna.errors import ModelFileError, TemplateTooCostly
from puna.template.govalues import (
    MISSING,
    Missing,
    Struct,
    Value,
    Words,
    go_json,
    items,
    printed,
    sprint,
    sprintf,
    truth,
    type_name,
)


def fail(message: str) -> NoReturn:
    raise ModelFileError(f"the model's template failed: {message}")


def exhaust(message: str) -> NoReturn:
    raise TemplateTooCostly(f"the model's template failed: {message}")


def _basic(value: Value) -> bool | int | float | str | None:
    if isinstance(value, Words):
        return sprint(value)
    if isinstance(value, Missing):
        return None
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    fail(f"non-comparable type {type_name(value)} in a comparison")


def _eq(name: str, arguments: list[Value]) -> bool:
    if len(arguments) < 2:
        fail(f"{name}: missing argument for comparison")
    first, *others = map(_basic, arguments)
    for other in others:
        if first is not None and other is not None and type(first) is not type(other):
            fail(f"{name}: incompatible types for comparison")
        if first == other:
            return True
    return False


def _ne(arguments: list[Value]) -> bool:
    _count("ne", arguments, 2)
    return not _eq("ne", arguments)


def _ordered(name: str, holds: Callable[[int], bool]) -> Callable[[list[Value]], Value]:
    """`holds` is asked with -1, 0 or 1: how the first compares to the second."""

    def compare(arguments: list[Value]) -> bool:
        _count(name, arguments, 2)
        first, second = map(_basic, arguments)
        if isinstance(first, str) and isinstance(second, str):
            return holds((first > second) - (first < second))
        if isinstance(first, bool) or isinstance(second, bool) or type(first) is not type(second):
            fail(f"{name}: incompatible types for comparison")
        if not isinstance(first, int | float) or not isinstance(second, int | float):
            fail(f"{name}: invalid type for comparison")
        return holds((first > second) - (first < second))

    return compare


def _count(name: str, arguments: list[Value], wanted: int) -> None:
    if len(arguments) != wanted:
        fail(f"wrong number of args for {name}: want {wanted} got {len(arguments)}")


def _one(name: str, arguments: list[Value]) -> Value:
    _count(name, arguments, 1)
    return arguments[0]


def _len(arguments: list[Value]) -> int:
    value = _one("len", arguments)
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Words):
        return len(value.words)
    if isinstance(value, Mapping | list | tuple):
        return len(value)
    fail(f"len of type {type_name(value)}")


def _place(value: Value, limit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        fail(f"cannot index slice/array with type {type_name(value)}")
    if not 0 <= value <= limit:
        fail(f"index out of range: {value}")
    return value


def _index(arguments: list[Value]) -> Value:
    if not arguments:
        fail("wrong number of args for index: want at least 1 got 0")
    value, *places = arguments
    if value is None or isinstance(value, Missing):
        fail("index of untyped nil")
    for place in places:
        if isinstance(value, Mapping):
            if not isinstance(place, str):
                fail(f"index: value has type {type_name(place)}; should be string")
            value = value.get(place, MISSING)
        elif isinstance(value, str):
            value = value.encode()[_place(place, len(value.encode()) - 1)]
        elif isinstance(value, Words | list | tuple):
            value = items(value)[_place(place, len(items(value)) - 1)]
        else:
            fail(f"can't index item of type {type_name(value)}")
    return value


def _slice(arguments: list[Value]) -> Value:
    if not arguments or len(arguments) > 4:
        fail(f"too many slice indexes: {len(arguments) - 1}" if arguments else "slice: an argument is missing")
    value, *ends = arguments
    if isinstance(value, str):
        if len(ends) > 2:
            fail("cannot 3-index slice a string")
        data = value.encode()
        begin, end = _ends(ends, len(data))
        return data[begin:end].decode(errors="replace")
    if isinstance(value, Words):
        value = value.words
    if isinstance(value, list | tuple):
        begin, end = _ends(ends, len(value))
        # What prints as JSON does so in part too.
        return type(value)(value[begin:end])
    fail(f"can't slice item of type {type_name(value)}")


def _ends(ends: list[Value], size: int) -> tuple[int, int]:
    begin, end, most = [_place(place, size) for place in ends] + [0, size, size][len(ends) :]
    if not begin <= end <= most:
        fail(f"invalid slice index: {begin} > {end}")
    return begin, end


def sprint_all(arguments: list[Value]) -> str:
    """A blank between two operands when neither is text."""
    text = ""
    for number, value in enumerate(arguments):
        if number and not isinstance(value, str) and not isinstance(arguments[number - 1], str):
            text += " "
        text += sprint(value)
    return text


def _println(arguments: list[Value]) -> str:
    return " ".join(map(sprint, arguments)) + "\n"


def _printf(arguments: list[Value]) -> str:
    if not arguments:
        fail("wrong number of args for printf: want at least 1 got 0")
    form, *rest = arguments
    if not isinstance(form, str):
        fail(f"printf: expected string; found {printed(form)[:40]}")
    return sprintf(form, rest)


_HTML = str.maketrans({'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"})


def _js(arguments: list[Value]) -> str:
    """As Go escapes text for JavaScript."""

    def escaped(character: str) -> str:
        if character in "\\'\"":
            return f"\\{character}"
        if character in "<>&=" or not character.isprintable():
            return f"\\u{ord(character):04X}"
        return character

    return "".join(map(escaped, sprint_all(arguments)))


def _typescript(arguments: list[Value]) -> str:
    """A parameter's type as TypeScript writes it."""
    value = _one("toTypeScriptType", arguments)
    if not isinstance(value, Struct):
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


def _call(_: list[Value]) -> Value:
    fail("call: no value here is a function")


CALLED: Mapping[str, Callable[[list[Value]], Value]] = {
    "call": _call,
    "eq": lambda arguments: _eq("eq", arguments),
    "ne": _ne,
    "lt": _ordered("lt", lambda order: order < 0),
    "le": _ordered("le", lambda order: order <= 0),
    "gt": _ordered("gt", lambda order: order > 0),
    "ge": _ordered("ge", lambda order: order >= 0),
    "not": lambda arguments: not truth(_one("not", arguments)),
    "len": _len,
    "index": _index,
    "slice": _slice,
    "print": sprint_all,
    "println": _println,
    "printf": _printf,
    "html": lambda arguments: sprint_all(arguments).translate(_HTML),
    "js": _js,
    "urlquery": lambda arguments: quote_plus(sprint_all(arguments)),
    "json": lambda arguments: go_json(_one("json", arguments)),
    "toTypeScriptType": _typescript,
}
"""All but `and`, `or` and the dates, which need more than values."""
