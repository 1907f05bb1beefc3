"""Every place of a schema that a value can be judged by, looked at before anything is written. Pure.

The grammar is written from some of these places only (an `enum` needs no look at what stands beside it), but the last
check goes through all of them: so each must be readable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeAlias

from puna.grammar import pattern
from puna.grammar.shapes import Located, Reader, SchemaError, SchemaShape
from puna.types import JsonValue

_Within: TypeAlias = tuple[str, str] | None
"""The path and keyword of what turns the meaning of a place round."""

PLAIN = frozenset({"allOf", "anyOf", "oneOf"})
SAME_LEVEL = PLAIN | {"not", "if", "then", "else", "dependentSchemas"}
"""Keywords with schemas of the very value that is judged."""


def faults(reader: Reader, root: JsonValue, spend: Callable[[int], None]) -> Iterator[SchemaError]:
    """What cannot be read, place by place. What is inside an unreadable place is not looked at."""
    waiting: list[tuple[Located, _Within]] = [(Located(root, "#"), None)]
    seen: set[str] = set()
    circles = Circles(reader, spend)
    while waiting:
        place, within = waiting.pop()
        if place.path in seen:
            continue
        seen.add(place.path)
        spend(1)
        yield from circles.found(place, within)
        try:
            shape = reader.merged((place,))
            _patterns(shape)
        except SchemaError as error:
            # To loosen what stands under a `not` would tighten the whole.
            yield error if within is None else SchemaError(*within, str(error))
        else:
            waiting += ((inner, within) for inner in _inside(shape))
            waiting += ((inner, within or (place.path, keyword)) for keyword, inner in shape.judged)


class Circles:
    """References that lead back to where they stand with no level of a value between: no judging by them ends.

    Whatever has been looked through for one place is not for the next.
    """

    def __init__(self, reader: Reader, spend: Callable[[int], None]) -> None:
        self._reader = reader
        self._spend = spend
        self._open: set[int] = set()
        self._done: set[int] = set()

    def found(self, place: Located, within: _Within) -> Iterator[SchemaError]:
        """Those among what `place` says of the same value, by the reference that closes them."""
        ways = [(place, self._onward(place, within))]
        while ways:
            at, onward = ways[-1]
            for reference, then, inside in onward:
                if id(then.schema) in self._open:
                    error = SchemaError(at.path, "$ref", f"{reference!r} refers to itself without any level between")
                    yield error if inside is None else SchemaError(*inside, str(error))
                elif id(then.schema) not in self._done:
                    ways.append((then, self._onward(then, inside)))
                    break
            else:
                ways.pop()
                self._open.discard(id(at.schema))
                self._done.add(id(at.schema))

    def _onward(self, place: Located, within: _Within) -> Iterator[tuple[str, Located, _Within]]:
        """What else the value of a place is judged by, and the reference that led there, if one did."""
        schema = place.schema
        if not isinstance(schema, dict) or id(schema) in self._done:
            return
        self._open.add(id(schema))
        self._spend(1)
        if "$ref" in schema:
            with suppress(SchemaError):  # it is told where the place is read
                yield str(schema["$ref"]), self._reader.resolve(place, schema["$ref"]), within
        for keyword in SAME_LEVEL & schema.keys():
            inside = within if keyword in PLAIN else within or (place.path, keyword)
            match schema[keyword]:
                case list(several):
                    parts = [(place.at(keyword, index), part) for index, part in enumerate(several)]
                case dict(named) if keyword == "dependentSchemas":
                    parts = [(place.at(keyword, name), part) for name, part in named.items()]
                case one:
                    parts = [(place.at(keyword), one)]
            for path, part in parts:
                if isinstance(part, dict):
                    yield "", Located(part, path), inside


def _patterns(shape: SchemaShape) -> None:
    for text, path in shape.patterns:
        _readable(text, path, "pattern")
    for part in shape.properties:
        for text, place in part.patterns.items():
            _readable(text, place.path.rsplit("/", 2)[0], "patternProperties")


def _readable(text: str, path: str, keyword: str) -> None:
    try:
        pattern.searched(pattern.parse(text))
    except pattern.PatternError as error:
        raise SchemaError(path, keyword, str(error)) from error


def _inside(shape: SchemaShape) -> Iterator[Located]:
    """The places next to be judged by: on the same level (alternatives), then of properties and items."""
    for group in shape.groups:
        yield from group.options
    yield from shape.names
    for properties in shape.properties:
        yield from properties.listed.values()
        yield from properties.patterns.values()
        if properties.others is not None:
            yield properties.others
    for items in shape.items:
        yield from items.first
        if items.others is not None:
            yield items.others
