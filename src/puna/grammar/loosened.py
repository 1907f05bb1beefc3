"""A schema without what cannot be enforced of it, for those who would rather have the rest than nothing. Pure.

A keyword is taken out where it stands, and with it those that mean another thing without it (`additionalProperties`
speaks of what `properties` does not list); `oneOf` becomes the `anyOf` that it implies. A schema so loosened allows all
that the whole one does, and more.
"""

from __future__ import annotations

from urllib.parse import unquote

from puna.grammar.shapes import SchemaError
from puna.types import JsonObject, JsonValue

_SPEAKS_OF_THE_REST = {
    "properties": ("additionalProperties", "unevaluatedProperties"),
    "patternProperties": ("additionalProperties", "unevaluatedProperties"),
    "additionalProperties": ("unevaluatedProperties",),
    "prefixItems": ("items", "unevaluatedItems"),
    "items": ("additionalItems", "unevaluatedItems"),
    "additionalItems": ("unevaluatedItems",),
    "minContains": ("contains",),
    "maxContains": ("contains",),
}


def loosened(schema: JsonValue, error: SchemaError) -> tuple[JsonValue, tuple[str, ...]]:
    """`schema` without the cause of `error`, and the JSON pointers of what was taken out; "": all of it."""
    # What several places say together is named with all of them.
    for paths in ([error.path], error.path.split(" and ")):
        found = [path for path in paths if error.keyword and _has(_at(schema, _steps(schema, path)), error.keyword)]
        if found:
            taken: list[str] = []
            for path in found:
                schema, keywords = _without(schema, _steps(schema, path), str(error.keyword))
                taken += [f"{path}/{keyword}".removeprefix("#") for keyword in keywords]
            return schema, tuple(taken)
    if error.path.startswith("#/") and _at(schema, _steps(schema, error.path)) is not None:
        return _replaced(schema, _steps(schema, error.path), True), (error.path.removeprefix("#"),)
    return {}, ("",)


def is_there(schema: JsonValue, error: SchemaError) -> bool:
    """Whether the cause of `error` still is: others may have gone with what was taken out before."""
    return _has(_at(schema, _steps(schema, error.path)), error.keyword or "")


def _steps(schema: JsonValue, path: str) -> list[str]:
    """A path's names. Below a `$ref` they are as it writes them, with escapes of a URL; others are as they are."""
    written = path.split("/")[1:]
    steps = [_unescaped(step) for step in written]
    return steps if _at(schema, steps) is not None else [_unescaped(unquote(step)) for step in written]


def _unescaped(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")


def _at(schema: JsonValue, steps: list[str]) -> JsonValue:
    """The place at these steps; None if there is none."""
    for step in steps:
        match schema:
            case dict():
                schema = schema.get(step)
            case list() if step.isdigit() and int(step) < len(schema):
                schema = schema[int(step)]
            case _:
                return None
    return schema


def _has(place: JsonValue, keyword: str) -> bool:
    return isinstance(place, dict) and keyword in place


def _without(schema: JsonValue, steps: list[str], keyword: str) -> tuple[JsonValue, tuple[str, ...]]:
    """Without a keyword that is there, and the keywords taken out: it, and those that lean on it."""
    place = _at(schema, steps)
    assert isinstance(place, dict)
    gone = [keyword]
    for one in gone:
        gone += [other for other in _SPEAKS_OF_THE_REST.get(one, ()) if _limits(place, other) and other not in gone]
    left: JsonObject = {key: value for key, value in place.items() if key not in gone}
    if keyword == "oneOf" and "anyOf" not in place:
        left["anyOf"] = place["oneOf"]
    return _replaced(schema, steps, left), tuple(gone)


def _limits(place: JsonObject, keyword: str) -> bool:
    return keyword in place and place[keyword] not in (True, {})


def _replaced(schema: JsonValue, steps: list[str], new: JsonValue) -> JsonValue:
    """A copy with `new` at these steps, which are there."""
    if not steps:
        return new
    first, *rest = steps
    match schema:
        case dict():
            return {**schema, first: _replaced(schema[first], rest, new)}
        case list():
            index = int(first)
            return [*schema[:index], _replaced(schema[index], rest, new), *schema[index + 1 :]]
        case _:
            raise ValueError(first)
