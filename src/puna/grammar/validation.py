"""The last word on an answer: `jsonschema`, by the readings that the grammar has of patterns, formats and numbers.

Pure. It judges by the schema that is held (what was loosened for the grammar is loosened here), whose every keyword
`puna.grammar.survey` has looked at. `jsonschema` is imported on first use: it takes longer than the rest of the server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from puna.grammar import numbers, pattern
from puna.grammar.formats import STRING_FORMATS, WIDE_FORMATS
from puna.grammar.shapes import old_tuples
from puna.types import JsonObject, JsonValue

if TYPE_CHECKING:
    from jsonschema import FormatChecker, ValidationError
    from jsonschema.protocols import Validator


MAX_STEPS = 2_000_000
"""Work that one check of an answer may take, about a microsecond a step: references that each name the next one
twice make 2**n subschemas, and there may be as many patterns as there are properties."""

_SUBSCHEMA, _KEYWORD, _DIVISION = 40, 10, 500
"""What going into a subschema, judging by a keyword and dividing exactly cost, whatever the value."""

_BY_TEXT = frozenset({"enum", "const"})
"""Keywords whose values are found by their texts, however many there are."""

Spend: TypeAlias = Callable[[int], None]
Judge: TypeAlias = Callable[..., "Iterator[ValidationError] | None"]


class _TooManySteps(Exception):
    pass


def first_error(value: JsonValue, schema: JsonValue) -> str | None:
    """The most telling thing that `schema` has against `value`, with its place in the value; None: nothing, or more to
    look at than MAX_STEPS.
    """
    from jsonschema.exceptions import best_match

    left = MAX_STEPS

    def spend(steps: int) -> None:
        nonlocal left
        left -= steps
        if left < 0:
            raise _TooManySteps

    try:
        error = best_match(validator(schema, spend).iter_errors(value))
    except (RecursionError, _TooManySteps):
        # A value of a recursive schema may be nested deeper than can be looked into: its grammar has held it.
        return None
    return None if error is None else f"{error.json_path}: {error.message}"


def validator(schema: JsonValue, spend: Spend = pattern.unmetered) -> Validator:
    """For a schema in which `puna.grammar.survey` finds no fault. References are followed inside it only. `spend` is
    told of all work, of all its values together, before it is done; what it raises ends it.
    """
    from jsonschema import Draft201909Validator, Draft202012Validator, validators
    from referencing import Registry

    base = Draft201909Validator if old_tuples(schema) else Draft202012Validator
    scales = _Scales()
    texts = _Texts(spend, scales)
    own: dict[str, Judge] = {
        "const": texts.const,
        "enum": texts.enum,
        "uniqueItems": texts.unique_items,
        "unevaluatedItems": partial(_unevaluated_items, spend, base.VALIDATORS),
        "multipleOf": partial(_multiple_of, spend),
        "pattern": partial(_pattern, spend),
        "patternProperties": partial(_pattern_properties, spend),
        "additionalProperties": partial(_other_properties, spend),
        "unevaluatedProperties": partial(_unevaluated_properties, spend),
        "exclusiveMinimum": partial(_exclusive, "exclusiveMinimum", base.VALIDATORS),
        "exclusiveMaximum": partial(_exclusive, "exclusiveMaximum", base.VALIDATORS),
        "nullable": _known,
        "type": partial(_type, base),
    }
    judges: dict[str, Judge] = {**base.VALIDATORS, **own}
    metered = {keyword: _metered(judge, spend, scales, alone=keyword in _BY_TEXT) for keyword, judge in judges.items()}
    exact: type[Validator] = validators.extend(base, metered)  # type: ignore[no-untyped-call]
    # A schema that names its version would get that version's own class on the way down, without the above.
    exact.evolve = _evolving(spend)  # type: ignore[method-assign]
    if isinstance(schema, dict):
        schema = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
    return exact(cast("bool | dict[str, object]", schema), format_checker=_formats(), registry=Registry())


def _evolving(spend: Spend) -> Callable[..., Any]:
    """How a validator makes that of a subschema."""

    def evolved(self: Any, **changes: Any) -> Any:
        spend(_SUBSCHEMA)
        kept = {"schema": self.schema, "format_checker": self.format_checker}
        kept |= {"registry": self._registry, "_resolver": self._resolver}
        return type(self)(**{**kept, **changes})

    return evolved


def _metered(judge: Judge, spend: Spend, scales: _Scales, *, alone: bool) -> Judge:
    """The same, of which `spend` is told: what it looks for in a value, or says of it, is as long as that, and it goes
    through all that the schema names. `alone`: it does not.
    """

    def judged(
        one: Validator, said: JsonValue, value: JsonValue, schema: JsonValue
    ) -> Iterator[ValidationError] | None:
        spend(_KEYWORD + scales.weight(value) + (0 if alone else scales.names(said)))
        return judge(one, said, value, schema)

    return judged


class _Scales:
    """Weighs values, each once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[JsonValue, int]] = {}
        """The values too, so that no other takes the place of one."""

    def names(self, said: JsonValue) -> int:
        """What a keyword names, with the lists of names in it."""
        parts = said.values() if isinstance(said, dict) else said if isinstance(said, list) else ()
        return sum(1 + len(each) if isinstance(each, list) else 1 for each in parts)

    def weight(self, value: JsonValue) -> int:
        """Its parts, and its text by the line."""
        if isinstance(value, str):
            return 1 + len(value) // 64
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in self._known:
            parts = [*value.values(), *value] if isinstance(value, dict) else value
            self._known[id(value)] = value, 1 + sum(map(self.weight, parts))
        return self._known[id(value)][1]


class _Texts:
    """Tells whether values are equal by their texts, which are made once of what a schema has."""

    def __init__(self, spend: Spend, scales: _Scales) -> None:
        self._spend = spend
        self._weigh = scales.weight
        self._known: dict[int, tuple[list[JsonValue], frozenset[str]]] = {}

    def _text(self, value: JsonValue) -> str:
        self._spend(4 * self._weigh(value))
        return equal_text(value)

    def _among(self, value: JsonValue, values: list[JsonValue]) -> bool:
        if id(values) not in self._known:
            self._known[id(values)] = values, frozenset(map(self._text, values))
        return self._text(value) in self._known[id(values)][1]

    def const(self, _: Validator, said: JsonValue, value: JsonValue, schema: JsonValue) -> Iterator[ValidationError]:
        from jsonschema import ValidationError

        if self._text(value) != self._text(said):
            yield ValidationError(f"{said!r} was expected")

    def enum(
        self, _: Validator, said: list[JsonValue], value: JsonValue, schema: JsonValue
    ) -> Iterator[ValidationError]:
        from jsonschema import ValidationError

        if not self._among(value, said):
            self._spend(self._weigh(said) // 4)
            yield ValidationError(f"{value!r} is not one of {said!r}")

    def unique_items(
        self, _: Validator, said: JsonValue, value: JsonValue, schema: JsonValue
    ) -> Iterator[ValidationError]:
        from jsonschema import ValidationError

        if said and isinstance(value, list) and len(set(map(self._text, value))) < len(value):
            yield ValidationError(f"{value!r} has non-unique elements")


def equal_text(value: JsonValue) -> str:
    """The same for equal values, as JSON has it: 1 is 1.0, but not true."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        return "[" + ",".join(equal_text(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{equal_text(value[key])}" for key in sorted(value)) + "}"
    return json.dumps(value)


def _unevaluated_items(
    spend: Spend, stock: Mapping[str, Judge], one: Validator, inner: JsonValue, value: JsonValue, schema: JsonValue
) -> Iterator[ValidationError]:
    """Each item is looked for among those that are evaluated."""
    if isinstance(value, list):
        spend(len(value) ** 2 // 16)
    yield from stock["unevaluatedItems"](one, inner, value, schema) or ()


def _multiple_of(
    spend: Spend, _: Validator, step: float, value: JsonValue, schema: JsonValue
) -> Iterator[ValidationError]:
    """In decimals: 0.07 is a multiple of 0.01, though not in binary floating point."""
    from jsonschema import ValidationError

    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    spend(_DIVISION)
    if not numbers.divides(numbers.decimal(step), numbers.decimal(value)):
        yield ValidationError(f"{value!r} is not a multiple of {step}")


def _exclusive(
    keyword: str,
    stock: Mapping[str, Judge],
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


def _pattern(spend: Spend, _: Validator, text: str, value: JsonValue, schema: JsonValue) -> Iterator[ValidationError]:
    """By the reading that the grammar has of it, and in bounded time: some patterns keep `re` busy for ever."""
    from jsonschema import ValidationError

    if isinstance(value, str) and not pattern.found(text, value, spend):
        yield ValidationError(f"{value!r} does not match {text!r}")


def _pattern_properties(
    spend: Spend, one: Validator, patterns: JsonObject, value: JsonValue, schema: JsonValue
) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        for text, inner in patterns.items():
            for name in (name for name in value if pattern.found(text, name, spend)):
                yield from one.descend(value[name], inner, path=name, schema_path=text)  # type: ignore[attr-defined]


def _other_properties(
    spend: Spend, one: Validator, inner: JsonValue, value: JsonValue, schema: JsonObject
) -> Iterator[ValidationError]:
    from jsonschema import ValidationError

    if not isinstance(value, dict):
        return
    listed = cast("JsonObject", schema.get("properties", {}))
    patterns = cast("JsonObject", schema.get("patternProperties", {}))
    for name in value:
        if name in listed or any(pattern.found(text, name, spend) for text in patterns):
            continue
        if inner is False:
            yield ValidationError(f"Additional properties are not allowed ({name!r} was unexpected)")
        else:
            yield from one.descend(value[name], inner, path=name)  # type: ignore[attr-defined]


def _unevaluated_properties(
    spend: Spend, one: Validator, inner: JsonValue, value: JsonValue, schema: JsonObject
) -> Iterator[ValidationError]:
    """Only where nothing else of the schema applies to properties: Puna takes no other."""
    if "additionalProperties" not in schema:
        yield from _other_properties(spend, one, inner, value, schema)


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
