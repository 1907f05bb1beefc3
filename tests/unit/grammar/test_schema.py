from __future__ import annotations

import json
import random
import re
from contextlib import suppress
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from fakes.gbnf_reader import Gbnf
from fakes.schemas import ENFORCED, REFUSED, SHAPES, TREE
from puna.errors import InvalidRequest, UnsatisfiableSchema
from puna.grammar import gbnf, validation
from puna.grammar.gbnf import GrammarTooLarge, Rules
from puna.grammar.schema import FREE_DEPTH, conforms, loose_json_value, schema_to_gbnf
from puna.types import JsonObject

PAIR = {"propertyNames": {"anyOf": [{"const": "a"}, {"enum": ["b", 7]}]}}
"""Names of a or b, as alternatives."""


@pytest.mark.parametrize("name", ENFORCED)
def test_every_text_of_the_grammar_is_valid(name: str) -> None:
    schema = ENFORCED[name]
    grammar = Gbnf(schema_to_gbnf(schema))
    kind = validator_for(schema, default=Draft202012Validator)
    validator = kind(schema, format_checker=kind.FORMAT_CHECKER)
    chance = random.Random(name)
    for _ in range(25):
        text = grammar.walk(chance)
        value = json.loads(text)
        assert [error.message for error in validator.iter_errors(value)] == [], text
        assert conforms(text, schema) is None, text


@pytest.mark.parametrize("most", [2**31 - 1, 2**53 - 1, 10**30])
def test_an_upper_bound_that_no_answer_reaches_is_held(most: int) -> None:
    string: dict[str, Any] = {"type": "string", "maxLength": most}
    schema: dict[str, Any] = {"type": "array", "items": string, "maxItems": most}
    assert Gbnf(schema_to_gbnf(schema)).accepts('["a", "b"]')
    with pytest.raises(InvalidRequest, match="minItems"):
        schema_to_gbnf({**schema, "minItems": most})


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_enforced_is_refused_by_path(name: str) -> None:
    schema, said = REFUSED[name]
    with pytest.raises(InvalidRequest) as refusal:
        schema_to_gbnf(schema, param="response_format")
    assert said in refusal.value.message
    assert refusal.value.param == "response_format"
    assert refusal.value.code == "invalid_json_schema"


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (TREE, '{"value": 1, "children": [{"value": -2, "children": []}, {"value":3,"children":[]}]}'),
        (TREE, '{\n  "value": 1,\n  "children": []\n}'),
        (SHAPES, '{"kind": "box", "sides": [1, 2]}'),
        ({"type": "string"}, '"quote \\" slash \\\\ tab \\t \\u00e9 \\ud83d\\ude00 é 😀"'),
        ({"type": "string", "maxLength": 1}, '"\\ud83d\\ude00"'),
        ({"type": "number", "minimum": 0, "maximum": 1}, "0.25"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "1.0"),
        ({"type": "number", "multipleOf": 0.01}, "19.99"),
        ({"type": "integer", "multipleOf": 5, "minimum": 0}, "123455"),
        ({"type": "string", "format": "date"}, '"2024-02-29"'),
        ({"type": "string", "format": "email"}, '"ada.lovelace@example.org"'),
        ({"type": "string", "format": "uri"}, '"https://example.org/a/b?c=d&e#f"'),
        ({"type": "string", "format": "ipv6"}, '"2001:db8::1"'),
        ({"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True}, '["b", "a"]'),
        ({"type": "object", "properties": {"a": True}, "additionalProperties": {"type": "null"}}, '{"b": null}'),
        ({"type": "array", "items": {"anyOf": [{"const": 1}, {"const": "b"}]}, "uniqueItems": True}, '["b", 1]'),
        ({**PAIR, "additionalProperties": {"type": "integer"}, "required": ["a"]}, '{"a": 1, "b": 2}'),
        (None, '{"a": [1, {"b": null}], "c": -1.5e-3}'),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 9, "exclusiveMaximum": False}, "9"),
        ({"type": "string", "pattern": "^\\p{Lu}\\p{L}*\\P{L}$"}, '"Größe!"'),
        ({"type": "string", "pattern": "^(?<year>\\d{4})-\\d{2}$"}, '"2024-02"'),
        ({"enum": ["Ada@Example.com", "no mail"], "format": "email"}, '"Ada@Example.com"'),
    ],
)
def test_what_a_model_would_write_is_in_the_grammar(schema: Any, text: str) -> None:
    assert conforms(text, schema) is None
    assert Gbnf(schema_to_gbnf(schema)).accepts(text)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string", "maxLength": 3}, '"abcd"'),
        ({"type": "string"}, '"\\ud83d"'),
        ({"type": "string"}, '"a\nb"'),
        ({"type": "string", "format": "date"}, '"2023-02-29"'),
        ({"type": "integer", "maximum": 9}, "10"),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, "0"),
        ({"type": "string", "enum": ["a", "b"], "pattern": "^(?!b)"}, '"b"'),
        ({"type": "integer"}, "01"),
        ({"type": "number", "exclusiveMaximum": 1}, "1.0"),
        ({"type": "number", "minimum": 0.5}, "0.49"),
        ({"type": "number"}, "NaN"),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": True}, '{"a": 1}'),
        ({"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True}, '["a","a"]'),
        ({"type": "array", "items": {"anyOf": [{"const": 1}, {"enum": ["b", 1]}]}, "uniqueItems": True}, "[1,1]"),
        ({**PAIR, "type": "object", "additionalProperties": True}, '{"c": 1}'),
        ({**PAIR, "type": "object", "properties": {"a": True}}, '{"a": 1, "c": 2}'),
        ({"type": "object", "propertyNames": {"oneOf": [{"enum": ["a", "b"]}, {"const": "a"}]}}, '{"a": 1}'),
        ({"type": "array", "items": {}, "maxItems": 1}, "[1,2]"),
        (None, "[1]"),
        (None, "{" * 2),
    ],
)
def test_what_is_not_valid_is_not_in_the_grammar(schema: Any, text: str) -> None:
    assert not Gbnf(schema_to_gbnf(schema)).accepts(text)


@pytest.mark.parametrize("depth", [1, FREE_DEPTH])
def test_json_of_free_form_is_nested_so_deep_and_no_deeper(depth: int) -> None:
    grammar = Gbnf(schema_to_gbnf(None))
    inner = "[" * (depth - 1) + "]" * (depth - 1) or "1"
    assert grammar.accepts(f'{{"a":{inner}}}')
    too_deep = "[" * FREE_DEPTH + "]" * FREE_DEPTH
    assert not grammar.accepts(f'{{"a":{too_deep}}}')


@pytest.mark.parametrize(
    ("text", "schema", "said"),
    [
        ("{", None, "not JSON"),
        ("[]", None, "not an object"),
        ("NaN", {"type": "number"}, "not JSON"),
        ('{"a": {"b": "x"}}', {"properties": {"a": {"properties": {"b": {"type": "integer"}}}}}, "$.a.b"),
        ('"2023-02-29"', {"type": "string", "format": "date"}, "date"),
        ('"x"', {"type": "string", "format": "hostname", "maxLength": 0}, "empty"),
        ("0.07", {"multipleOf": 0.02}, "multiple"),
        ("[" * 100_000, {}, "not JSON"),
    ],
)
def test_the_last_check_says_what_is_wrong(text: str, schema: Any, said: str) -> None:
    assert said in (conforms(text, schema) or "")


def test_decimals_are_counted_as_decimals() -> None:
    assert conforms("0.07", {"type": "number", "multipleOf": 0.01}) is None


def test_nullable_is_read_as_it_is_meant() -> None:
    schema = {"type": "integer", "nullable": True}
    assert Gbnf(schema_to_gbnf(schema)).accepts("null")
    assert conforms("null", schema) is None
    assert conforms('"x"', schema) is not None


def test_equal_schemas_share_a_rule() -> None:
    one = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-f]{8}$"}}, "required": ["a"]}
    gbnf = schema_to_gbnf({"type": "array", "prefixItems": [one] * 50, "items": False})
    assert gbnf.count("[a-f]{8}") == 1


def test_a_schema_of_many_properties_stays_small() -> None:
    properties = {f"name{i}": {"type": ["string", "null"], "maxLength": 80} for i in range(300)}
    assert len(schema_to_gbnf({"type": "object", "properties": properties})) < 100_000


def object_of(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


POWERS = {
    f"d{i}": object_of({f"k{j}": {"allOf": [{"$ref": f"#/$defs/d{j}"}, {"$ref": f"#/$defs/d{i}"}]} for j in range(12)})
    for i in range(12)
}


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [object_of({"k": {"const": i}}) | {"required": ["k"]} for i in range(500)]},
        {"enum": [f"v{i}" for i in range(20_000)], "pattern": "^v"},
        {"enum": [f"v{i}" for i in range(5_000)], "anyOf": [{"pattern": f"^v{i}"} for i in range(400)]},
        {"$defs": POWERS, "$ref": "#/$defs/d0"},
    ],
    ids=["pairs", "values", "values-of-alternatives", "powers"],
)
def test_what_would_take_too_long_to_read_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidRequest, match="too large"):
        schema_to_gbnf(schema, param="response_format")


HOST = {  # as zod writes `z.hostname()`
    "type": "string",
    "format": "hostname",
    "pattern": r"^(?=.{1,253}\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[-0-9a-zA-Z]{0,61}[0-9a-zA-Z])?)*\.?$",
}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": HOST["pattern"]},
        {"allOf": [HOST, {"pattern": "^a"}], "type": "string"},
        {"type": "object", "propertyNames": HOST, "additionalProperties": HOST},
        {"type": "object", "properties": dict.fromkeys("abcdefgh", HOST)},
    ],
)
def test_what_many_patterns_cost_is_paid_once(schema: Any) -> None:
    assert schema_to_gbnf(schema)


def test_of_many_dear_patterns_the_one_that_is_too_many_is_named() -> None:
    hosts = {
        f"p{number}": {**HOST, "pattern": HOST["pattern"].replace("253", str(number))} for number in range(240, 254)
    }
    with pytest.raises(InvalidRequest, match=r"#/properties/p2[45][0-9]: format: its grammar would be too large"):
        schema_to_gbnf({"type": "object", "properties": hosts})


@pytest.mark.parametrize(
    ("format_", "lengths"),
    [
        ("emoji", {"minLength": 9}),
        ("hostname", {"minLength": 200}),
        ("date-time", {"minLength": 40, "maxLength": 40}),
        ("duration", {"minLength": 40}),
        ("uri", {"maxLength": 2}),
    ],
)
def test_what_is_only_not_written_is_not_said_to_be_impossible(format_: str, lengths: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match="#: format: none of its texts that are written here") as refusal:
        schema_to_gbnf({"type": "string", "format": format_, **lengths})
    assert not isinstance(refusal.value, UnsatisfiableSchema)


@pytest.mark.parametrize(("format_", "lengths"), [("date", {"minLength": 40}), ("email", {"maxLength": 2})])
def test_what_no_text_of_a_format_keeps_is_impossible(format_: str, lengths: dict[str, int]) -> None:
    with pytest.raises(UnsatisfiableSchema, match="no value can satisfy it"):
        schema_to_gbnf({"type": "string", "format": format_, **lengths})


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array", "prefixItems": [{"type": "string", "minLength": 13, "maxLength": 8}], "items": False,
          "minItems": 1}, "#/prefixItems/0: "),
        (object_of({"a": {"type": "integer"}}) | {"minProperties": 2}, "#: minProperties: there are no more than 1"),
        ({"type": "object", "minProperties": 2, "maxProperties": 1}, "#: minProperties: more than maxProperties"),
    ],
)  # fmt: skip
def test_the_cause_of_what_is_impossible_is_named(schema: JsonObject, said: str) -> None:
    with pytest.raises(UnsatisfiableSchema, match=f"no value can satisfy it: {re.escape(said)}"):
        schema_to_gbnf(schema)


@pytest.mark.parametrize("digits", [1, 6, 7, 9])
def test_a_time_as_exact_as_a_pattern_wants_it(digits: int) -> None:
    """What zod writes for `z.iso.datetime({ precision })`."""
    pattern = rf"^\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{{digits}}}Z$"
    grammar = Gbnf(schema_to_gbnf({"type": "string", "format": "date-time", "pattern": pattern}))
    assert grammar.accepts(f'"2026-12-01T10:00:00.{"1" * digits}Z"')
    assert not grammar.accepts('"2026-12-01T10:00:00Z"')


def test_a_long_chain_of_references_is_followed() -> None:
    chain = {f"d{i}": object_of({"next": {"$ref": f"#/$defs/d{i + 1}"}}) for i in range(1_000)}
    grammar = Gbnf(schema_to_gbnf({"$defs": {**chain, "d1000": {"type": "null"}}, "$ref": "#/$defs/d0"}))
    assert grammar.accepts('{"next":' * 15 + "{}" + "}" * 15)
    assert not grammar.accepts('{"next":null}')


def test_a_large_enum_with_its_type_is_read_at_once() -> None:
    values = [f"value {i}" for i in range(20_000)]
    assert len(schema_to_gbnf({"type": "string", "enum": [*values, 1]})) < 600_000


def test_equal_in_python_is_not_equal_in_json() -> None:
    with pytest.raises(InvalidRequest, match="no value"):
        schema_to_gbnf({"allOf": [{"const": True}, {"const": 1}]}, param="response_format")


def twice(keyword: Any, times: int = 25) -> dict[str, Any]:
    """References that each name the next one twice, so that the last is said 2**times times."""
    named = {f"d{i}": keyword({"$ref": f"#/$defs/d{i + 1}"}) for i in range(times)}
    return {"$defs": {**named, f"d{times}": object_of({"a": {"type": "string"}})}, "$ref": "#/$defs/d0"}


def test_what_is_said_twice_is_read_once() -> None:
    grammar = Gbnf(schema_to_gbnf(twice(lambda one: {"allOf": [one, one]})))
    assert grammar.accepts('{"a":"x"}')
    assert not grammar.accepts('{"a":1}')


@pytest.mark.parametrize(
    "keyword",
    [
        lambda one: {"allOf": [one, one]},
        lambda one: {"anyOf": [one, one]},
        lambda one: {"oneOf": [one, one]},
        lambda one: {"if": one, "then": one, "else": one},
        lambda one: {"dependentSchemas": {"a": one, "b": one}},
    ],
    ids=["allOf", "anyOf", "oneOf", "if", "dependentSchemas"],
)
def test_a_check_of_an_answer_ends(keyword: Any) -> None:
    # What it says is of no matter here: without a bound it would look 2**40 times.
    conforms('{"a":"x","b":"y"}', twice(keyword, 40))
    conforms("5", twice(keyword, 40))


def here(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


CIRCLES: list[tuple[dict[str, Any], str]] = [
    ({"$ref": "#"}, "#: "),
    ({"allOf": [{"$ref": "#"}]}, "#/allOf/0"),
    ({"const": "a", "if": {"$ref": "#"}}, "#: if: #/if"),
    ({"const": "a", "if": {"oneOf": [{"$ref": "#"}]}}, "#: if: #/if/oneOf/0"),
    ({"const": "a", "not": {"$ref": "#"}}, "#: not: #/not"),
    ({"const": "a", "if": True, "then": {"$ref": "#"}}, "#: then: #/then"),
    ({"enum": [{"x": 1}], "dependentSchemas": {"x": {"$ref": "#"}}}, "#: dependentSchemas: #/dependentSchemas/x"),
    ({"const": 1, **here("a"), "$defs": {"a": {"allOf": [here("b")]}, "b": {"anyOf": [here("a"), {}]}}}, "#/$defs/b"),
    ({"oneOf": [{"const": "a"}, {"const": "b", "not": {"$ref": "#/oneOf/1"}}]}, "#/oneOf/1: not"),
    ({"const": "a", "not": here("x"), "$defs": {"x": {"not": here("x")}}}, "#: not: #/$defs/x/not"),
    ({"$ref": "#/%24defs/a", "$defs": {"a": here("a")}}, "#/%24defs/a"),
    ({"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}, {"type": "null"}]}}}, "#/properties/a/anyOf/0"),
    ({"const": [1], "contains": {"allOf": [{"$ref": "#/contains"}]}}, "#: contains: #/contains/allOf/0"),
]


@pytest.mark.parametrize(("schema", "place"), CIRCLES, ids=[place for _, place in CIRCLES])
def test_a_reference_that_leads_back_on_one_level_is_named(schema: dict[str, Any], place: str) -> None:
    """Nothing that judges a value by such a schema ends."""
    with pytest.raises(InvalidRequest, match=re.escape(place)) as refused:
        schema_to_gbnf(schema)
    assert "refers to itself without any level between" in str(refused.value)
    held = loose_json_value(Rules(), schema, param="parameters")
    assert held.left_out
    conforms('"a"', held.schema)
    kept = {"const", "enum"} & schema.keys()
    assert kept <= held.schema.keys(), "what else is said is held"  # type: ignore[union-attr]


def test_what_is_met_twice_or_on_another_level_is_no_circle() -> None:
    twice_the_same = {
        "allOf": [here("a"), here("a")],
        "not": here("a"),
        "const": 5,
        "$defs": {"a": {"type": "integer"}},
    }
    with pytest.raises(InvalidRequest, match="none of its values"):
        schema_to_gbnf(twice_the_same)
    tree = object_of({"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}})
    assert Gbnf(schema_to_gbnf(tree)).accepts('{"value":1,"next":{"value":2,"next":null}}')


def referring(keyword: str, leaf: Any, count: int = 40) -> dict[str, Any]:
    return {f"a{i}": {keyword: [here(f"a{i + 1}")] * 2} for i in range(count)} | {f"a{count}": leaf}


def chained(count: int = 5000) -> dict[str, Any]:
    return {f"a{i}": here(f"a{i + 1}") for i in range(count)} | {f"a{count}": {"type": "string"}}


SLOW_PATTERN = "^(a|b|ab)*(a|b|ab)*[0-9]+$"
COSTLY: dict[str, dict[str, Any]] = {
    "references": {"const": "a", "if": here("a0"), "$defs": referring("oneOf", {"type": "number"})},
    "of items": {"const": [*range(50)], "items": {"not": here("a0")}, "$defs": referring("anyOf", {"const": "x"})},
    "under not": {"const": "a", "not": here("a0"), "$defs": referring("allOf", {"type": "string"})},
    "a chain": {"const": "a", "not": here("a0"), "$defs": chained()},
    "patterns of properties": {
        "const": {"a" * 20 + str(i): 1 for i in range(3000)},
        "patternProperties": {f"{SLOW_PATTERN[:-1]}{i}$": True for i in range(1000)},
    },
    "patterns of names": {
        "type": "object",
        "properties": {"ab" * 50 + str(i): {"type": "null"} for i in range(2000)},
        "patternProperties": {f"{SLOW_PATTERN[:-1]}{i}$": True for i in range(4)},
    },
    "patterns of values": {"enum": [f"{'ab' * 500}{i}" for i in range(3000)], "pattern": SLOW_PATTERN},
    "counts in counts": {"const": "a" * 30, "pattern": "^((((((a?){99}){99}){99}){99}){99}){99}$"},
    "what is required": {
        "enum": [{str(i): 1} for i in range(500)],
        "allOf": [{"not": here("r")}, {"anyOf": [{"not": here("r")}] * 200}],
        "$defs": {"r": {"required": [str(i) for i in range(9000)]}},
    },
    "alternatives beside many properties": {
        "properties": {f"p{i}": {"type": "null"} for i in range(6000)},
        "anyOf": [{"required": [f"p{i}"]} for i in range(400)],
    },
    "alternatives beside much that is required": {
        "required": [f"p{i}" for i in range(15_000)],
        "anyOf": [{"properties": {"a": {"const": i}}} for i in range(400)],
    },
    "one object in many places": {
        "properties": {f"q{i}": {**here("b"), "description": str(i)} for i in range(1000)},
        "$defs": {"b": {"properties": {f"p{i}": {"type": "null"} for i in range(6000)}}},
    },
    "long values": {
        "const": [*range(15_000)],
        "not": {"anyOf": [here("s")] * 9000},
        "$defs": {"s": {"type": "string"}},
    },
}  # fmt: skip


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the bounds, since what is tried would take hours without any: no test has to wait for all of them."""
    monkeypatch.setattr(gbnf, "MAX_SMALL_STEPS", gbnf.MAX_SMALL_STEPS // 10)
    monkeypatch.setattr(gbnf, "MAX_WORK", gbnf.MAX_WORK // 10)
    monkeypatch.setattr(validation, "MAX_STEPS", validation.MAX_STEPS // 10)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("name", COSTLY)
def test_what_a_schema_takes_to_read_is_bounded(name: str) -> None:
    with pytest.raises(InvalidRequest, match="too large|lead on too often"):
        schema_to_gbnf(COSTLY[name])
    with suppress(GrammarTooLarge):
        assert loose_json_value(Rules(), COSTLY[name], param="p").left_out == ("p",)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        (COSTLY["patterns of properties"], COSTLY["patterns of properties"]["const"]),
        (COSTLY["references"], "a"),
        (COSTLY["a chain"], "a"),
        ({"uniqueItems": True}, [{"a": i} if i % 2 else i for i in range(20_000)]),
        ({"items": {"enum": [{"a": i} for i in range(9000)]}}, [{"a": i} for i in range(9000)]),
    ],
    ids=["patterns", "references", "a chain", "different items", "a long enum"],
)
def test_judging_an_answer_is_bounded(schema: dict[str, Any], answer: Any) -> None:
    assert conforms(json.dumps(answer), schema) is None


def test_equal_values_are_found_however_they_are_written() -> None:
    assert conforms("1.0", {"enum": [1, "a"]}) is None
    assert conforms('{"b": 2, "a": [1.0]}', {"const": {"a": [1], "b": 2}}) is None
    assert conforms("true", {"enum": [1]}) == "$: True is not one of [1]"
    assert conforms("0", {"const": False}) == "$: False was expected"
    assert conforms("[1, 1.0]", {"uniqueItems": True}) == "$: [1, 1.0] has non-unique elements"
    assert conforms("[1, true]", {"uniqueItems": True}) is None


def test_long_lists_of_values_are_judged() -> None:
    values = [{"name": f"value {i}", "place": i} for i in range(1500)]
    grammar = Gbnf(schema_to_gbnf({"enum": values, "properties": {"place": {"minimum": 1}}, "required": ["name"]}))
    assert grammar.accepts('{"name": "value 1499", "place": 1499}')
    assert not grammar.accepts('{"name": "value 0", "place": 0}')
