"""Pydantic's errors in OpenAI's words: message, `param` and a string `code`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic_core import ErrorDetails

from puna.errors import Code, InvalidRequest, Unsupported
from puna.server.body import kind
from puna.server.contract.faults import Wording, join
from puna.server.contract.shapes import UNION

UNSUPPORTED = "unsupported"
"""The error type of a value that is understood, and that this server cannot do; its message says why."""

_EXPECTED: Mapping[str, str] = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a decimal",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def _fault_of(error: ErrorDetails, path: str) -> InvalidRequest:
    type_, context, value = error["type"], error.get("ctx", {}), error["input"]
    if type_ in _EXPECTED or type_ == UNION:
        expected = _EXPECTED.get(type_, error["msg"])
        return _fault(
            path, f"Invalid type for '{path}': expected {expected}, but got {kind(value)} instead.", "invalid_type"
        )
    if type_ == UNSUPPORTED:
        return _refused(path, error["msg"])
    rule = _RULES.get(type_)
    if rule is None:
        return _fault(path, f"Invalid '{path}': {error['msg']}.", "invalid_value")
    return rule(path, context, value)


def _fault(path: str, message: str, code: Code) -> InvalidRequest:
    return InvalidRequest(message, param=path or None, code=code)


def _missing(path: str, _context: dict[str, Any], _value: object) -> InvalidRequest:
    return _fault(path, f"Missing required parameter: '{path}'.", "missing_required_parameter")


def _no_tag(path: str, context: dict[str, Any], _value: object) -> InvalidRequest:
    return _missing(join(path, context["discriminator"].strip("'")), {}, None)


def _wrong_tag(path: str, context: dict[str, Any], value: object) -> InvalidRequest:
    key = context["discriminator"].strip("'")
    given = value.get(key) if isinstance(value, dict) else value
    return _choice(join(path, key), _listed(context["expected_tags"].split(", ")), given)


def _literal(path: str, context: dict[str, Any], value: object) -> InvalidRequest:
    return _choice(path, _listed(context["expected"].replace(" or ", ", ").split(", ")), value)


def _choice(path: str, supported: str, value: object) -> InvalidRequest:
    if not isinstance(value, str):
        message = f"Invalid type for '{path}': expected one of {supported}, but got {kind(value)} instead."
        return _fault(path, message, "invalid_type")
    return _fault(path, f"Invalid value: '{value[:100]}'. Supported values are: {supported}.", "invalid_value")


def _listed(items: list[str]) -> str:
    if len(items) <= 2:
        return " and ".join(items)
    return f"{', '.join(items[:-1])}, and {items[-1]}"


def _outside(path: str, fault: str, expected: str, got: str, code: Code) -> InvalidRequest:
    return _fault(path, f"Invalid '{path}': {fault}. Expected {expected}, but got {got} instead.", code)


def _bound(word: str, side: str, sign: str, key: str) -> Callable[[str, dict[str, Any], object], InvalidRequest]:
    """`word` 'minimum', `side` 'below', `sign` '>=', `key` of the bound in Pydantic's context."""

    def render(path: str, context: dict[str, Any], value: object) -> InvalidRequest:
        bound = context[key]
        number, shown = ("decimal", f"{bound:g}") if isinstance(bound, float) else ("integer", f"{bound}")
        got = f"{value}" if len(f"{value}") <= 30 else f"a number of {len(f'{value}')} digits"
        code = cast("Code", f"{number}_{side}_{word[:3]}_value")
        return _outside(path, f"{number} {side} {word} value", f"a value {sign} {shown}", got, code)

    return render


def _short(path: str, context: dict[str, Any], _value: object) -> InvalidRequest:
    expected, size = f"an array with minimum length {context['min_length']}", context["actual_length"]
    if size == 0:
        return _outside(path, "empty array", expected, "an empty array", "empty_array")
    return _outside(path, "array too short", expected, f"one of length {size}", "array_below_min_length")


def _long(path: str, context: dict[str, Any], value: object) -> InvalidRequest:
    most = context["max_length"]
    if isinstance(value, dict):
        expected = f"an object with at most {most}"
        return _outside(path, "too many properties", expected, str(len(value)), "object_above_max_properties")
    size = len(value) if isinstance(value, list) else context["actual_length"]
    expected = f"an array with maximum length {most}"
    return _outside(path, "array too long", expected, f"one of length {size}", "array_above_max_length")


def _short_string(path: str, context: dict[str, Any], value: object) -> InvalidRequest:
    expected = f"a string with minimum length {context['min_length']}"
    return _outside(path, "string too short", expected, f"one of length {len(str(value))}", "string_below_min_length")


def _long_string(path: str, context: dict[str, Any], value: object) -> InvalidRequest:
    expected = f"a string with maximum length {context['max_length']}"
    return _outside(path, "string too long", expected, f"one of length {len(str(value))}", "string_above_max_length")


def _pattern(path: str, context: dict[str, Any], _value: object) -> InvalidRequest:
    message = f"Invalid '{path}': string does not match pattern. Expected a string that matches '{context['pattern']}'."
    return _fault(path, message, "invalid_value")


_RULES: Mapping[str, Callable[[str, dict[str, Any], object], InvalidRequest]] = {
    "missing": _missing,
    "union_tag_not_found": _no_tag,
    "union_tag_invalid": _wrong_tag,
    "literal_error": _literal,
    "greater_than": _bound("minimum", "below", ">", "gt"),
    "greater_than_equal": _bound("minimum", "below", ">=", "ge"),
    "less_than_equal": _bound("maximum", "above", "<=", "le"),
    "too_short": _short,
    "too_long": _long,
    "string_too_short": _short_string,
    "string_too_long": _long_string,
    "string_pattern_mismatch": _pattern,
}


def _unknown(path: str) -> InvalidRequest:
    return _fault(path, f"Unknown parameter: '{path}'.", "unknown_parameter")


def _refused(path: str, meaning: str) -> Unsupported:
    return Unsupported(f"Unsupported parameter: '{path}'. {meaning}", param=path)


WORDING = Wording(_fault_of, _unknown, _refused)
