"""OpenAI's rules for schemas marked `strict`: every object requires all its properties and allows no others. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from puna.errors import InvalidRequest
from puna.types import JsonObject, JsonValue

_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_SINGLES = ("items", "not")


def check_strict(schema: JsonObject, *, what: str, param: str) -> None:
    """InvalidRequest naming the place in the schema that breaks a rule. `what`: whose schema it is, in words."""
    if schema.get("type") != "object" and "$ref" not in schema:
        raise _broken(what, (), "the schema must be of type 'object'", param)
    for place, part in _parts(schema, ()):
        if part.get("type") == "object" or "properties" in part:
            _check_object(part, place, what, param)


def _check_object(part: JsonObject, place: tuple[str, ...], what: str, param: str) -> None:
    if part.get("additionalProperties") is not False:
        raise _broken(what, place, "'additionalProperties' is required to be supplied and to be false", param)
    properties, required = part.get("properties", {}), part.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        raise _broken(what, place, "'properties' must be an object and 'required' an array", param)
    missing = [name for name in properties if name not in required]
    if missing:
        cause = f"'required' is required to be an array including every key in properties. Missing '{missing[0]}'"
        raise _broken(what, place, cause, param)


def _parts(schema: JsonObject, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], JsonObject]]:
    yield place, schema
    for key in _MAPS:
        members = schema.get(key)
        if isinstance(members, dict):
            for name, member in members.items():
                yield from _inner(member, (*place, key, name))
    for key in _LISTS:
        items = schema.get(key)
        if isinstance(items, list):
            for index, item in enumerate(items):
                yield from _inner(item, (*place, key, str(index)))
    for key in _SINGLES:
        yield from _inner(schema.get(key), (*place, key))


def _inner(value: JsonValue, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], JsonObject]]:
    if isinstance(value, dict):
        yield from _parts(value, place)


def _broken(what: str, place: tuple[str, ...], cause: str, param: str) -> InvalidRequest:
    context = ", ".join(f"'{item}'" for item in place)
    return InvalidRequest(
        f"Invalid schema for {what}: In context=({context}), {cause}.", param=param, code="invalid_schema"
    )
