"""Go's values as far as templates meet them, and how Go prints them. Pure.

Nil, booleans, numbers, text, lists, maps, and Records, which stand for structs. What Ollama gives a method of its own
for printing (tools, arguments of calls, properties) prints as JSON; any other list or map as Go's `fmt` writes it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from puna.types import JsonValue


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct: its fields, and what it is in JSON."""

    fields: Mapping[str, Value]
    shape: JsonValue


class Missing:
    """A key that a map does not have: false, and printed as `<no value>`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Words:
    """A list of words that prints as Ollama prints a property's types: bare when single, else `[a b]`."""

    words: tuple[str, ...]


class JsonMap(dict[str, "Value"]):
    """A map that prints as JSON."""


class JsonList(list["Value"]):
    """A list that prints as JSON."""


Value: TypeAlias = "bool | int | float | str | Sequence[Value] | Mapping[str, Value] | Struct | Words | Missing | None"

MISSING = Missing()


def truth(value: Value) -> bool:
    """As Go's templates see it: empty and zero are false, a struct is always true."""
    if isinstance(value, Struct):
        return True
    if isinstance(value, Words):
        return bool(value.words)
    return not isinstance(value, Missing) and bool(value)


def type_name(value: Value) -> str:
    """The name of its type in Go."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Struct):
        return "struct"
    if isinstance(value, Words):
        return "[]string"
    if isinstance(value, Mapping):
        return "map[string]interface {}"
    names: dict[type, str] = {int: "int", float: "float64", str: "string"}
    return names.get(type(value), "<nil>" if value is None or isinstance(value, Missing) else "[]interface {}")


# --------------------------------------------------------------------------------------------------------- printing


def printed(value: Value) -> str:
    """As an action prints it."""
    return "<no value>" if value is None or isinstance(value, Missing) else sprint(value)


def sprint(value: Value) -> str:
    """As `%v` prints it."""
    if value is None or isinstance(value, Missing):
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return go_float(value)
    if isinstance(value, Words) and len(value.words) == 1:
        return value.words[0]
    if isinstance(value, Struct | JsonMap | JsonList):
        return go_json(value)
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{sprint(value[key])}' for key in sorted(value))}]"
    if isinstance(value, str | int):
        return str(value)
    return f"[{' '.join(map(sprint, items(value)))}]"


def items(value: Value) -> Sequence[Value]:
    """The items of a list."""
    if isinstance(value, Words):
        return value.words
    assert isinstance(value, Sequence)
    return value


def go_json(value: Value) -> str:
    """As Go's encoder writes it: compact, maps sorted by key, `<`, `>` and `&` escaped, other scripts as they are."""
    text = json.dumps(_shape(value), ensure_ascii=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _shape(value: Value) -> JsonValue:
    if isinstance(value, Struct):
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


def go_float(value: float, verb: str = "g", precision: int | None = None) -> str:
    """A number as Go's verbs `e`, `f` and `g` write it; without a precision as many digits as tell it apart."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    if verb.lower() != "g":
        return format(value, f".{6 if precision is None else precision}{verb}")
    if precision is not None:
        return format(value, f".{precision}{verb}")
    # The shortest digits, and where the point stands among them.
    digits = format(Decimal(repr(value)).copy_abs().normalize(), "f").replace(".", "").strip("0") or "0"
    exponent = Decimal(repr(value)).adjusted() if value else 0
    sign = "-" if value < 0 else ""
    if -4 <= exponent < _EXPONENT:
        return sign + format(Decimal(repr(value)).copy_abs().normalize(), "f")
    return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


_EXPONENT = 6
"""From this power of ten on, `%v` writes an exponent, as for those below -4."""


# ------------------------------------------------------------------------------------------------------------ printf

_VERB = re.compile(r"%([-+# 0]*)(\*|[0-9]+)?(?:\.(\*|[0-9]*))?(.?)", re.DOTALL)
_WIDEST = 1_000_000
"""Go's bound of a width and a precision; of one that is written out it is held against all digits but the last."""


def sprintf(form: str, arguments: Sequence[Value]) -> str:
    """Go's `Sprintf`, but for indexes of arguments and `%#v`."""
    rest = iter(arguments)
    # Where one is too large, Go ends: the rest of the form is not looked at.
    wide = next((match for match in _VERB.finditer(form) if any(map(_too_wide, match.groups()[1:3]))), None)
    text = _VERB.sub(lambda match: _verb(match, rest), form if wide is None else form[: wide.start()])
    text += "" if wide is None else "%!(NOVERB)"
    extra = [f"{type_name(value)}={sprint(value)}" for value in rest]
    extra = [text.replace("<nil>=<nil>", "<nil>") for text in extra]
    return f"{text}%!(EXTRA {', '.join(extra)})" if extra else text


def _verb(match: re.Match[str], rest: Iterator[Value]) -> str:
    flags, width, precision, letter = match.groups()
    size, exact = _number(width, rest), _number(precision, rest) if precision != "" else 0
    exact = None if exact is not None and exact < 0 else exact
    bad = "%!(BADWIDTH)" if width and size is None else "%!(BADPREC)" if precision and exact is None else ""
    if size is not None and size < 0:
        flags, size = flags + "-", -size
    if letter == "%":
        return "%"
    if not letter:
        return "%!(NOVERB)"
    try:
        value = next(rest)
    except StopIteration:
        return f"%!{letter}(MISSING)"
    return bad + _padded(_formatted(value, letter, exact, flags), size or 0, flags, letter, value)


def _number(text: str | None, rest: Iterator[Value]) -> int | None:
    if text is None:
        return None
    if text != "*":
        return int(text.lstrip("0") or 0)
    value = next(rest, None)
    return value if isinstance(value, int) and abs(value) <= _WIDEST else None


def _too_wide(number: str | None) -> bool:
    digits = (number or "").lstrip("0")[:-1]
    return len(digits) > len(str(_WIDEST)) or int(digits.strip("*") or 0) > _WIDEST


def _padded(text: str, size: int, flags: str, letter: str, value: Value) -> str:
    if "-" in flags:
        return text.ljust(size)
    numeric = isinstance(value, int | float) and letter not in "qcsU"
    if "0" in flags and numeric:
        return text.zfill(size)
    return text.rjust(size, "0" if "0" in flags else " ")


def _formatted(value: Value, letter: str, precision: int | None, flags: str) -> str:
    value = None if isinstance(value, Missing) else value
    if isinstance(value, Words) and len(value.words) == 1:
        value = value.words[0]
    if isinstance(value, JsonMap | JsonList | Struct) and letter in "vsq":
        value = go_json(value)
    if letter == "T":
        return type_name(value)
    if isinstance(value, Mapping):
        pairs = (
            f"{_formatted(key, letter, None, '')}:{_formatted(value[key], letter, None, '')}" for key in sorted(value)
        )
        return f"map[{' '.join(pairs)}]"
    if isinstance(value, Words | list | tuple):
        return f"[{' '.join(_formatted(item, letter, precision, flags) for item in items(value))}]"
    text = _basic(value, letter, precision, flags)
    if text is None:
        return f"%!{letter}(<nil>)" if value is None else f"%!{letter}({type_name(value)}={sprint(value)})"
    return text


def _basic(value: Value, letter: str, precision: int | None, flags: str) -> str | None:
    """None: Go does not write this kind of value with this verb."""
    if isinstance(value, bool) or value is None:
        return sprint(value) if letter == "v" or (letter == "t" and value is not None) else None
    if isinstance(value, str):
        return _text(value, letter, precision)
    if isinstance(value, int):
        return _whole(value, letter, flags)
    assert isinstance(value, float)
    text = go_float(value, "g" if letter == "v" else letter, precision) if letter in "vgGeEfF" else None
    return f"+{text}" if text is not None and "+" in flags and value >= 0 else text


def _text(value: str, letter: str, precision: int | None) -> str | None:
    cut = value if precision is None else value[:precision]
    if letter in "sv":
        return cut
    if letter == "q":
        return go_quoted(cut)
    if letter in "xX":
        data = value.encode()[:precision]
        return data.hex() if letter == "x" else data.hex().upper()
    return None


def _whole(value: int, letter: str, flags: str) -> str | None:
    if letter in "vdxXob":
        text = format(abs(value), "d" if letter == "v" else letter)
        prefix = {"x": "0x", "X": "0X", "o": "0"}.get(letter, "") if "#" in flags else ""
        return f"{'-' if value < 0 else '+' if '+' in flags else ' ' if ' ' in flags else ''}{prefix}{text}"
    if letter in "cq" and 0 <= value <= 0x10FFFF:
        return chr(value) if letter == "c" else f"'{go_quoted(chr(value))[1:-1]}'"
    return f"U+{value:04X}" if letter == "U" else None


def go_quoted(text: str) -> str:
    """A text in Go's double quotes."""
    known = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
    known |= {"\\": "\\\\", '"': '\\"'}

    def escaped(character: str) -> str:
        if character in known:
            return known[character]
        if character.isprintable():
            return character
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return f'"{"".join(map(escaped, text))}"'
