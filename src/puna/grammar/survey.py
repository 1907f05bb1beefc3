"""Every place of a schema that a value can be judged by, looked at before anything is written. Pure.

The grammar is written from some of these places only (an `enum` needs no look at what stands beside it), but the last
check goes through all of them: so each must be readable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from puna.grammar import pattern
from puna.grammar.shapes import Located, Reader, SchemaError, SchemaShape
from puna.types import JsonValue

_Within: TypeAlias = tuple[str, str] | None
"""The path and keyword of what turns the meaning of a place round."""


def faults(reader: Reader, root: JsonValue, spend: Callable[[int], None]) -> Iterator[SchemaError]:
    """What cannot be read, place by place. What is inside an unreadable place is not looked at."""
    waiting: list[tuple[Located, _Within]] = [(Located(root, "#"), None)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        place, within = waiting.pop()
        if (place.path, place.through) in seen:
            continue
        seen.add((place.path, place.through))
        spend(1)
        try:
            shape = reader.merged((place,))
            _patterns(shape)
        except SchemaError as error:
            # To loosen what stands under a `not` would tighten the whole.
            yield error if within is None else SchemaError(*within, str(error))
        else:
            waiting += ((inner, within) for inner in _inside(shape))
            waiting += ((inner, within or (place.path, keyword)) for keyword, inner in shape.judged)


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
