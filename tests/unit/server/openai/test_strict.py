from __future__ import annotations

import pytest

from puna.errors import InvalidRequest
from puna.server.openai.strict import check_strict


def strict(properties: dict, **more: object) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
        **more,
    }


GOOD = [
    strict({}),
    strict({"a": {"type": "string"}, "b": strict({"c": {"type": "integer"}})}),
    strict({"a": {"anyOf": [{"type": "null"}, strict({})]}}),
    strict({"a": {"$ref": "#/$defs/n"}}, **{"$defs": {"n": strict({"next": {"$ref": "#/$defs/n"}})}}),
    strict({"a": {"type": "array", "items": strict({})}}),
    strict({"properties": {"type": "string"}}),
]
OPEN = {"type": "object", "properties": {}}
BAD = [
    ({"type": "string"}, "()", "of type 'object'"),
    (OPEN, "()", "additionalProperties"),
    ({**strict({"a": {}}), "required": []}, "()", "Missing 'a'"),
    (strict({"a": OPEN}), "('properties', 'a')", "additionalProperties"),
    (strict({"a": {"type": "array", "items": OPEN}}), "('properties', 'a', 'items')", "additionalProperties"),
    (strict({"a": {"anyOf": [{}, OPEN]}}), "('properties', 'a', 'anyOf', '1')", "additionalProperties"),
    (strict({}, **{"$defs": {"n": OPEN}}), "('$defs', 'n')", "additionalProperties"),
    ({"type": "object", "additionalProperties": False, "properties": [], "required": []}, "()", "must be an object"),
]


@pytest.mark.parametrize("schema", GOOD)
def test_schemas_that_keep_the_rules(schema):
    check_strict(schema, what="it", param="p")


@pytest.mark.parametrize(("schema", "place", "words"), BAD)
def test_the_place_of_a_broken_rule_is_named(schema, place, words):
    with pytest.raises(InvalidRequest) as caught:
        check_strict(schema, what="function 'f'", param="tools[0].function.parameters")
    assert (caught.value.code, caught.value.param) == ("invalid_schema", "tools[0].function.parameters")
    assert f"In context={place}, " in caught.value.message
    assert words in caught.value.message
