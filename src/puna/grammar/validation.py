"""The last word on an answer: `jsonschema`, by the readings that the grammar has of patterns, formats and numbers.

Pure. It judges by the schema that is held (what was loosened for the grammar is loosened here), whose every keyword
`puna.grammar.survey` has looked at. `jsonschema` is imported on first use: it takes longer than the rest of the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

from puna.grammar import numbers, pattern
from puna.grammar.formats import STRING_FORMATS, WIDE_FORMATS
from puna.grammar.shapes import old_tuples
from puna.types import JsonObject, JsonValue

if TYPE_CHECKING:
    from jsonschema import FormatChecker, ValidationError
    from jsonschema.protocols import Validator


MAX_STEPS = 50_000
"""Subschemas that one check of an answer looks at: references that each name the next one twice make 2**n of them."""


class _TooManySteps(Exception):
    pass


def first_error(value: JsonValue, schema: JsonValue) -> str | None:
    """The most telling thing that `schema` has against `value`, with its place in the value; None: nothing, or more to
    look at than MAX_STEPS.
    """
    from jsonschema.exceptions import best_match

    try:
        error = best_match(validator(schema, most=MAX_STEPS).iter_errors(value))
    except (RecursionError, _TooManySteps):
        # A value of a recursive schema may be nested deeper than can be looked into: its grammar has held it.
        return None
    return None if error is None else f"{error.json_path}: {error.message}"


def validator(schema: JsonValue, *, most: int | None = None) -> Validator:
    """For a schema in which `puna.grammar.survey` finds no fault. References are followed inside it only. `most`: the
    subschemas that it may look at, of all its values together.
    """
    from jsonschema import Draft201909Validator, Draft202012Validator, validators
    from referencing import Registry

    base = Draft201909Validator if old_tuples(schema) else Draft202012Validator
    own = {
        "multipleOf": _multiple_of,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _other_properties,
        "unevaluatedProperties": _unevaluated_properties,
        "exclusiveMinimum": partial(_exclusive, "exclusiveMinimum", base.VALIDATORS),
        "exclusiveMaximum": partial(_exclusive, "exclusiveMaximum", base.VALIDATORS),
        "nullable": _known,
        "type": partial(_type, base),
    }
    exact: type[Validator] = validators.extend(base, own)  # type: ignore[no-untyped-call]
    # A schema that names its version would get that version's own class on the way down, without the above.
    exact.evolve = _evolving(most)  # type: ignore[method-assign]
    if isinstance(schema, dict):
        schema = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
    return exact(cast("bool | dict[str, object]", schema), format_checker=_formats(), registry=Registry())


def _evolving(most: int | None) -> Callable[..., Any]:
    """How a validator makes that of a subschema, `most` times."""
    steps = 0

    def evolved(self: Any, **changes: Any) -> Any:
        nonlocal steps
        steps += 1
        if most is not None and steps > most:
            raise _TooManySteps
        kept = {"schema": self.schema, "format_checker": self.format_checker}
        kept |= {"registry": self._registry, "_resolver": self._resolver}
        return type(self)(**{**kept, **changes})

    return evolved


def _multiple_of(_: Validator, step: float, value: JsonValue, schema: JsonValue) -> Iterator[ValidationError]:
    """In decimals: 0.07 is a multiple of 0.01, though not in binary floating point."""
    from jsonschema import ValidationError

    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not numbers.divides(numbers.decimal(step), numbers.decimal(value)):
        yield ValidationError(f"{value!r} is not a multiple of {step}")


def _exclusive(
    keyword: str,
    stock: dict[str, Callable[..., Iterator[ValidationError] | None]],
    one: Validator,
    bound: JsonValue,
    value: JsonValue,
    schema: JsonObject,
) -> Iterator[ValidationError]:
    """As a number, or as draft 4 and OpenAPI 3.0 have it: true, beside the bound that it makes exclusive."""
    if bound is True:
        bound = schema["minimum" if keyword == "exclusiveMinimum" else "maximum"]
    if bound is not False:
        yield from stock[keyword](one, bound, value, schema) or ()


def _pattern(_: Validator, text: str, value: JsonValue, schema: JsonValue) -> Iterator[ValidationError]:
    """By the reading that the grammar has of it, and in bounded time: some patterns keep `re` busy for ever."""
    from jsonschema import ValidationError

    if isinstance(value, str) and not pattern.found(text, value):
        yield ValidationError(f"{value!r} does not match {text!r}")


def _pattern_properties(
    one: Validator, patterns: JsonObject, value: JsonValue, schema: JsonValue
) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        for text, inner in patterns.items():
            for name in (name for name in value if pattern.found(text, name)):
                yield from one.descend(value[name], inner, path=name, schema_path=text)  # type: ignore[attr-defined]


def _other_properties(
    one: Validator, inner: JsonValue, value: JsonValue, schema: JsonObject
) -> Iterator[ValidationError]:
    from jsonschema import ValidationError

    if not isinstance(value, dict):
        return
    listed = cast("JsonObject", schema.get("properties", {}))
    patterns = cast("JsonObject", schema.get("patternProperties", {}))
    for name in value:
        if name in listed or any(pattern.found(text, name) for text in patterns):
            continue
        if inner is False:
            yield ValidationError(f"Additional properties are not allowed ({name!r} was unexpected)")
        else:
            yield from one.descend(value[name], inner, path=name)  # type: ignore[attr-defined]


def _unevaluated_properties(
    one: Validator, inner: JsonValue, value: JsonValue, schema: JsonObject
) -> Iterator[ValidationError]:
    """Only where nothing else of the schema applies to properties: Puna takes no other."""
    if "additionalProperties" not in schema:
        yield from _other_properties(one, inner, value, schema)


def _known(*_: object) -> Iterator[ValidationError]:
    """OpenAPI's `nullable`, which `_type` reads."""
    yield from ()


def _type(
    base: type[Validator], one: Validator, types: JsonValue, value: JsonValue, schema: JsonValue
) -> Iterator[ValidationError]:
    if value is None and isinstance(schema, dict) and schema.get("nullable") is True:
        return
    yield from base.VALIDATORS["type"](one, types, value, schema)


@cache
def _formats() -> FormatChecker:
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())
    for name, text in STRING_FORMATS.items():
        checker.checks(name)(partial(_has_format, re.compile(WIDE_FORMATS.get(name, text))))
    return checker


def _has_format(form: re.Pattern[str], value: object) -> bool:
    return not isinstance(value, str) or form.fullmatch(value) is not None
