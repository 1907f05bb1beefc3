from __future__ import annotations

from typing import Any

import pytest

from fakes.gbnf_reader import Gbnf
from fakes.schemas import ENFORCED, REFUSED
from puna.errors import InvalidRequest
from puna.grammar.gbnf import Rules
from puna.grammar.schema import MAX_LEFT_OUT, loose_json_value, schema_to_gbnf

SET = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}


def loose(schema: Any) -> tuple[Gbnf, tuple[str, ...]]:
    rules = Rules()
    held = loose_json_value(rules, schema, param="p")
    return Gbnf(rules.text(held.value)), held.left_out


@pytest.mark.parametrize(
    ("schema", "left_out", "yes", "no"),
    [
        (SET, ("p/uniqueItems",), '["a","a"]', "[1]"),
        (
            {"properties": {"a/b": SET, "c": {"type": "integer", "not": {"const": 9}}}, "required": ["a/b", "c"]},
            ("p/properties/a~1b/uniqueItems", "p/properties/c/not"),
            '{"a/b":["x","x"],"c":1}',
            '{"a/b":["x"],"c":"1"}',
        ),
        (
            {"properties": {"a%20b": {"type": "str"}, "100%25": SET, "c": {"enum": ["d"]}}, "required": ["c"]},
            ("p/properties/a%20b/type", "p/properties/100%25/uniqueItems"),
            '{"a%20b":1,"c":"d"}',
            '{"c":"e"}',
        ),
        (
            {"$defs": {"a b": SET}, "items": {"$ref": "#/$defs/a%20b"}},
            ("p/$defs/a%20b/uniqueItems",),
            '[["a","a"]]',
            "[1]",
        ),
        ({"type": "string", "format": "semver"}, ("p/format",), '"x"', "1"),
        ({"type": "string", "pattern": "(?<=x)y", "maxLength": 2}, ("p/pattern",), '"ab"', '"abc"'),
        ({"$defs": {"a": SET}, "items": {"$ref": "#/$defs/a"}}, ("p/$defs/a/uniqueItems",), '[["a","a"]]', "[1]"),
        ({"$ref": "https://example.com/x", "type": "integer"}, ("p/$ref",), "1", '"a"'),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, ("p/oneOf",), "1.5", '"a"'),
        ({"if": {}, "then": {}, "type": "null"}, ("p/if", "p/then"), "null", "1"),
        (
            {"allOf": [{"pattern": "a"}, {"pattern": "\\bb"}], "type": "string"},
            ("p/allOf/1/pattern",),
            '"ax"',
            '"bx"',
        ),
        ({"type": "string", "minLenght": 3}, ("p/minLenght",), '""', "1"),
        ({"items": 5}, ("p/items",), "[1]", "5"),
    ],
)
def test_the_rest_holds(schema: Any, left_out: tuple[str, ...], yes: str, no: str) -> None:
    grammar, found = loose(schema)
    assert found == left_out
    assert grammar.accepts(yes)
    assert not grammar.accepts(no)


@pytest.mark.parametrize("name", ENFORCED)
def test_of_what_can_be_enforced_nothing_is_left_out(name: str) -> None:
    rules = Rules()
    held = loose_json_value(rules, ENFORCED[name], param="p")
    assert held.left_out == ()
    assert held.schema == ENFORCED[name]
    assert rules.text(held.value) == schema_to_gbnf(ENFORCED[name])


IMPOSSIBLE = {"no value can satisfy", "nested more than", "parts", "surrogate", "not finite"}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_left_out_is_named_or_the_schema_is_refused(name: str) -> None:
    left_out: tuple[str, ...] = ()
    said = ""
    try:
        _, left_out = loose(REFUSED[name][0])
    except InvalidRequest as error:
        said = error.message
    assert left_out or any(words in said for words in IMPOSSIBLE), said


def test_it_is_bounded() -> None:
    many = {"properties": {f"a{number}": {"not": {"const": 1}} for number in range(MAX_LEFT_OUT + 1)}}
    with pytest.raises(InvalidRequest, match="more than 64 others"):
        loose(many)


def test_what_is_nested_too_deep_is_left_out_whole() -> None:
    schema: Any = {"type": "integer"}
    for _ in range(70):
        schema = {"type": "object", "properties": {"a": schema}}
    assert loose(schema)[1] == ("p",)
    with pytest.raises(InvalidRequest, match="more than 64 levels"):
        schema_to_gbnf(schema)


def test_large_counts_of_properties_are_held_where_they_can_be() -> None:
    large: Any = {"properties": {"a": {}}, "maxProperties": 1_000_000, "additionalProperties": True}
    assert loose_json_value(Rules(), large, param="p").left_out == ()
    many = {str(number): {"type": "null"} for number in range(300)}
    assert loose({"properties": many, "maxProperties": 250})[1] == ("p/maxProperties",)
    grammar, left_out = loose({"properties": {"a": {}, "b": {}, "c": {}}, "maxProperties": 2})
    assert left_out == ()
    assert grammar.accepts('{"a":1,"c":2}')
    assert not grammar.accepts('{"a":1,"b":1,"c":2}')
