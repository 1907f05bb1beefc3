"""The last word on an answer: `jsonschema`, with every format that Puna writes checked and multiples counted exactly.

Pure. `jsonschema` is imported on first use: it takes longer than the rest of the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, cast

from puna.chat import pattern
from puna.chat.formats import STRING_FORMATS
from puna.types import JsonValue

if TYPE_CHECKING:
    from jsonschema import FormatChecker, ValidationError
    from jsonschema.protocols import Validator


def first_error(value: JsonValue, schema: JsonValue) -> str | None:
    """The most telling thing that `schema` has against `value`, with its place in the value; None: nothing."""
    from jsonschema.exceptions import best_match

    error = best_match(validator(schema).iter_errors(value))
    return None if error is None else f"{error.json_path}: {error.message}"


def validator(schema: JsonValue) -> Validator:
    """For a schema that `puna.chat.schema` accepts. References are followed inside it only."""
    from jsonschema import Draft202012Validator, validators
    from referencing import Registry

    known = cast("bool | dict[str, object]", schema)
    base = validators.validator_for(known, default=Draft202012Validator)
    own = {"multipleOf": _multiple_of, "pattern": _pattern, "nullable": _known, "type": partial(_type, base)}
    exact: type[Validator] = validators.extend(base, own)  # type: ignore[no-untyped-call]
    return exact(known, format_checker=_formats(), registry=Registry())


def _multiple_of(_: Validator, step: float, value: JsonValue, schema: JsonValue) -> Iterator[ValidationError]:
    """In decimals: 0.07 is a multiple of 0.01, though not in binary floating point."""
    from jsonschema import ValidationError

    if isinstance(value, int | float) and not isinstance(value, bool) and Decimal(str(value)) % Decimal(str(step)):
        yield ValidationError(f"{value!r} is not a multiple of {step}")


def _pattern(_: Validator, text: str, value: JsonValue, schema: JsonValue) -> Iterator[ValidationError]:
    """By the reading that the grammar has of it, and in bounded time: some patterns keep `re` busy for ever."""
    from jsonschema import ValidationError

    if isinstance(value, str) and not pattern.matches(pattern.searched(pattern.parse(text)), value):
        yield ValidationError(f"{value!r} does not match {text!r}")


def _known(*_: object) -> Iterator[ValidationError]:
    """OpenAPI's `nullable`, which `_type` reads."""
    yield from ()


def _type(
    base: type[Validator], one: Validator, types: JsonValue, value: JsonValue, schema: JsonValue
) -> Iterator[ValidationError]:
    if value is None and isinstance(schema, dict) and schema.get("nullable") is True:
        return
    yield from base.VALIDATORS["type"](one, types, value, schema)


def _formats() -> FormatChecker:
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())
    for name, text in STRING_FORMATS.items():
        checker.checks(name)(partial(_has_format, re.compile(text)))
    return checker


def _has_format(form: re.Pattern[str], value: object) -> bool:
    return not isinstance(value, str) or form.fullmatch(value) is not None
