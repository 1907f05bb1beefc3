"""Assorted JSON Schemas: those that are enforced, and those that are refused with a path."""

from __future__ import annotations

from typing import Any

TREE: dict[str, Any] = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 3},
            },
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
}
LIST: dict[str, Any] = {
    "type": "object",
    "properties": {"head": {"type": "string", "maxLength": 3}, "tail": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["head", "tail"],
    "additionalProperties": False,
}
SHAPES: dict[str, Any] = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"kind": {"const": "circle"}, "radius": {"type": "number", "exclusiveMinimum": 0}},
            "required": ["kind", "radius"],
        },
        {
            "type": "object",
            "properties": {"kind": {"const": "box"}, "sides": {"type": "array", "items": {"type": "integer"}}},
            "required": ["kind", "sides"],
        },
    ],
    "discriminator": {"propertyName": "kind"},
}


def _string(**more: Any) -> dict[str, Any]:
    return {"type": "string", **more}


def _object(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), **more}


ENFORCED: dict[str, Any] = {
    "anything": {},
    "true": True,
    "annotations-only": {"title": "T", "description": "D", "examples": [1]},
    "any-object": {"type": "object"},
    "any-array": {"type": "array"},
    "string": _string(),
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "types": {"type": ["string", "integer", "null"]},
    "nullable-list": {"type": ["array", "null"], "items": {"type": "boolean"}},
    "optional": _object({"a": {"type": "integer"}, "b": _string(), "c": {"type": "boolean"}}, "b"),
    "all-optional": _object({"a": {"type": "integer"}, "b": _string()}),
    "closed": _object({"a": {"type": "integer"}}, "a", additionalProperties=False),
    "open": _object({"a": {"type": "integer"}, "ab": {"type": "null"}}, "a", additionalProperties=True),
    "typed-rest": _object({"name": _string()}, "name", additionalProperties={"type": "integer"}),
    "map": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "number"}}},
    "map-one": {"type": "object", "additionalProperties": _string(), "minProperties": 1, "maxProperties": 3},
    "map-named": {"type": "object", "additionalProperties": True, "propertyNames": {"pattern": "^[a-z]{1,8}$"}},
    "pattern-properties": {
        "type": "object",
        "patternProperties": {"^x-[a-z]+$": {"type": "integer"}},
        "additionalProperties": False,
    },
    "map-few": {"type": "object", "additionalProperties": {"type": "integer"}, "propertyNames": {"enum": ["a", "b"]}},
    "map-all": {
        **{"type": "object", "additionalProperties": {"type": "integer"}, "required": ["a", "b"]},
        **{"propertyNames": {"type": "string", "enum": ["a", "b"]}},
    },
    "map-few-listed": _object(
        {"a": {"type": "null"}, "z": {"type": "null"}}, propertyNames={"$ref": "#/$defs/n"}, additionalProperties=True,
        **{"$defs": {"n": {"enum": ["a", "b"]}}},
    ),
    "map-beside": _object(
        {"a": {"type": "null"}}, propertyNames={"pattern": "^[a-c]+$"}, additionalProperties={"type": "integer"}
    ),
    "pattern-properties-two": {
        "type": "object",
        "properties": {"ab": {"type": "null"}},
        "patternProperties": {"^a": {"type": "integer"}, "b$": {"minimum": 3}},
        "additionalProperties": {"type": "boolean"},
    },
    "some-of": _object({"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}, minProperties=2),
    "at-most": _object({"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}, maxProperties=1),
    "required-only": {"type": "object", "required": ["id"]},
    "quoted-name": _object({'a "q" \\ name\n': {"type": "integer"}, "größe 😀": _string()}, 'a "q" \\ name\n'),
    "nested": _object({"a": _object({"b": _object({"c": {"type": "array", "items": _string()}}, "c")}, "b")}, "a"),
    "tree": TREE,
    "list": LIST,
    "mutual": {
        "$ref": "#/definitions/a",
        "definitions": {
            "a": _object({"b": {"$ref": "#/definitions/b"}}),
            "b": _object({"a": {"$ref": "#/definitions/a"}, "n": {"type": "integer"}}, "n"),
        },
    },
    "json-of-json": {
        "$ref": "#/$defs/v",
        "$defs": {
            "v": {
                "anyOf": [
                    {"type": ["string", "number", "boolean", "null"]},
                    {"type": "array", "items": {"$ref": "#/$defs/v"}},
                    {"type": "object", "additionalProperties": {"$ref": "#/$defs/v"}},
                ]
            }
        },
    },
    "ref-with-more": {"$defs": {"n": {"type": "integer", "minimum": 0}}, "$ref": "#/$defs/n", "maximum": 5},
    "ref-escaped": {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "integer"}}},
    "enum": {"enum": ["red", "green", 3, 2.5, None, True, {"a": [1]}, ["x"]]},
    "enum-typed": {"type": "string", "enum": ["a", 'b"c', "é", "\u0007", "long text with spaces"]},
    "enum-filtered": {"type": "integer", "enum": [1, 5, "x", 9], "minimum": 4},
    "const": {"const": {"k": "v"}},
    "const-null": {"const": None},
    "any-of": {"anyOf": [{"type": "integer"}, _string(maxLength=3), {"type": "null"}]},
    "any-of-beside": _object({"a": {"type": "integer"}}, "a", anyOf=[{"required": ["a"]}, {"required": ["b"]}]),
    "any-of-partly-impossible": {"type": "integer", "anyOf": [{"type": "string"}, {"minimum": 3, "maximum": 4}]},
    "one-of-types": {"oneOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]},
    "one-of-kinds": SHAPES,
    "one-of-required": {
        "oneOf": [_object({"a": {"type": "integer"}}, "a"), _object({"b": {"type": "integer"}}, "b")],
    },
    "one-of-ranges": {"type": "integer", "oneOf": [{"maximum": 3}, {"minimum": 10, "maximum": 20}]},
    "all-of": {"allOf": [_object({"a": {"type": "integer"}}, "a"), _object({"b": _string()}, "b")]},
    "all-of-tightened": {
        "allOf": [_object({"a": {"type": "number", "minimum": 0}}, "a"), {"properties": {"a": {"maximum": 1}}}]
    },
    "all-of-ref": {
        "$defs": {"base": _object({"id": _string(format="uuid")}, "id")},
        "allOf": [{"$ref": "#/$defs/base"}, _object({"size": {"enum": ["s", "m"]}}, "size")],
    },
    "array-bounds": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    "array-exact": {"type": "array", "items": {"type": "boolean"}, "minItems": 3, "maxItems": 3},
    "array-empty": {"type": "array", "maxItems": 0},
    "array-long": {"type": "array", "items": {"const": 1}, "minItems": 250, "maxItems": 1000},
    "tuple": {"type": "array", "prefixItems": [{"type": "integer"}, _string()], "items": False, "minItems": 1},
    "tuple-and-rest": {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "integer"}, "minItems": 3},
    "tuple-old": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "array",
        "items": [{"type": "integer"}, {"type": "null"}],
        "additionalItems": False,
        "minItems": 2,
    },
    "set": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True},
    "set-bounded": {
        **{"type": "array", "items": {"enum": [*"abcdefghi"]}, "uniqueItems": True},
        **{"minItems": 2, "maxItems": 3},
    },
    "set-large": {"type": "array", "items": {"enum": [*range(100), 1.0]}, "uniqueItems": True},
    "set-of-flags": {"type": "array", "items": {"type": ["boolean", "null"]}, "uniqueItems": True, "minItems": 2},
    "set-of-one": {"type": "array", "items": _string(), "uniqueItems": True, "maxItems": 1},
    "length": _string(minLength=2, maxLength=5),
    "length-exact": _string(minLength=4, maxLength=4),
    "length-long": _string(minLength=300, maxLength=12_345),
    "pattern": _string(pattern="^[A-Z]{3}-\\d{4}$"),
    "pattern-inside": _string(pattern="foo"),
    "pattern-either": _string(pattern="^(cat|dog)s?$|bird$"),
    "pattern-escapes": _string(pattern='^"\\\\\\/\\t\\n[\\]\\-x]+$'),
    "pattern-classes": _string(pattern="^\\w+\\s\\W\\D\\S[^a-z\\d]$"),
    "pattern-unicode": _string(pattern="^[à-ü]{2}\\u4e2d.$"),
    "pattern-groups": _string(pattern="^(?:a(b(c)?)*){1,3}$"),
    "pattern-length": _string(pattern="^[a-z]+$", minLength=3, maxLength=6),
    "pattern-name": _string(pattern="^[a-z][a-z0-9_]*$", maxLength=5),
    "pattern-ids": _string(pattern="^(ab)*$|^x{1,9}$", minLength=4, maxLength=7),
    "pattern-ahead": _string(pattern="^(?!\\.)[a-z.]+$"),
    "pattern-ahead-twice": _string(pattern="^(?=.*[0-9])(?!.*[.][.])[a-z0-9.]{3,8}$"),
    "pattern-named": _string(pattern="^(?P<year>\\d{4})-(?P<month>\\d{2})$"),
    "pattern-two": {"allOf": [_string(pattern="^a"), _string(pattern="b$"), _string(minLength=3, maxLength=9)]},
    "pattern-three": _string(pattern="[a-z]", allOf=[{"pattern": "[0-9]"}, {"pattern": "^\\S*$"}], maxLength=20),
    "pattern-parts-length": _string(pattern="^a*b*$", maxLength=3),
    "pattern-far-length": _string(pattern="^[a-z]+([.-][a-z]+)*@[a-z]+$", minLength=5, maxLength=900),
    "pattern-format": _string(pattern="^[a-z.]+@example\\.(com|org)$", format="email"),
    "pattern-format-length": _string(pattern="^https://", format="uri", maxLength=40),
    "format-length": _string(format="email", maxLength=20),
    "format-far-length": _string(format="uri", minLength=1, maxLength=2083),
    "format-enum": {"enum": ["Ada@Example.com", "no mail", "x"], "format": "email"},
    "enum-judged": {
        **{"enum": [1, 2, "a", "b", [1]], "not": {"const": 1}},
        **{"if": {"type": "string"}, "then": {"pattern": "a"}},
    },
    "enum-pattern": _string(enum=["a", "b", "c"], pattern="^(?!c)"),
    "pattern-empty": _string(pattern="^$"),
    "pattern-start": _string(pattern="^ab"),
    "phone": _string(pattern="^(\\([0-9]{3}\\))?[0-9]{3}-[0-9]{4}$"),
    **{
        f"format-{name}": _string(format=name)
        for name in (
            *("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"),
            *("uri-reference", "uri-template", "json-pointer", "relative-json-pointer", "regex", "byte", "password"),
        )
    },
    "integer": {"type": "integer"},
    "integer-range": {"type": "integer", "minimum": -17, "maximum": 2043},
    "number-float32": {"type": "number", "minimum": -3.4028234663852886e38, "maximum": 3.4028234663852886e38},
    "number-fine": {"type": "number", "exclusiveMinimum": 1e-300, "maximum": 1},
    "integer-exclusive": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
    "integer-from": {"type": "integer", "minimum": 42},
    "integer-below": {"type": "integer", "maximum": -1},
    "integer-float-bounds": {"type": "integer", "minimum": 0.5, "maximum": 3.5},
    "integer-step": {"type": "integer", "multipleOf": 7},
    "integer-step-range": {"type": "integer", "multipleOf": 250, "minimum": 1, "maximum": 1_000_000},
    "integer-format": {"type": "integer", "format": "int32"},
    "number": {"type": "number"},
    "number-unit": {"type": "number", "minimum": 0, "maximum": 1},
    "number-open": {"type": "number", "exclusiveMinimum": -0.25, "exclusiveMaximum": 12.5},
    "number-from": {"type": "number", "minimum": 1.5},
    "number-small": {"type": "number", "minimum": -0.003, "maximum": -0.0011},
    "number-halves": {"type": "number", "multipleOf": 0.5, "minimum": -2, "maximum": 2},
    "number-tens": {"type": "number", "multipleOf": 10},
    "deep": _object({"rows": {"type": "array", "items": _object({"cells": {"type": "array", "items": {"anyOf": [
        {"type": "number"}, {"type": "null"},
        _object({"f": _string(pattern="^=[A-Z]+\\(")}, "f")]}}}, "cells")}}, "rows"),
}  # fmt: skip

REFUSED: dict[str, tuple[Any, str]] = {
    "false": (False, "#"),
    "empty-enum": ({"enum": []}, "#: enum"),
    "look-behind": (_string(pattern="(?<=a)b"), "#: pattern: look-behind"),
    "look-ahead-again": (_string(pattern="^((?=a)b)*$"), "#: pattern: a look-ahead that is repeated"),
    "look-ahead-in-vain": (_string(pattern="(?=a)b"), "no text matches"),
    "unknown-class": (_string(pattern="\\p{Runic}"), "#: pattern"),
    "two-patterns-in-vain": ({"allOf": [_string(pattern="^a"), _string(pattern="^b")]}, "no text matches"),
    "format-against-pattern": (_string(pattern="^[^@]*$", format="email"), "no text matches"),
    "hint-alone": (_string(format="starts_with"), "#: format"),
    "too-many-states": (_string(pattern="a.{60}b.{60}c", maxLength=4000, minLength=3000), "#: pattern: its grammar"),
    "names": ({"type": "object", "propertyNames": {"enum": ["a"]}, "required": ["b"]}, "propertyNames"),
    "not-never": ({"not": {}}, "#: nothing"),
    "exclusive-alone": ({"exclusiveMinimum": True}, "#: exclusiveMinimum"),
    "content": (_string(contentSchema={"type": "integer"}), "#: contentSchema"),
    "no-enum-fits": ({"type": "string", "enum": [1, 2]}, "enum"),
    "bounds": (
        {"properties": {"a": {"type": "integer", "minimum": 3, "maximum": 2}}, "required": ["a"]},
        "#/properties/a",
    ),
    "lengths": (_string(minLength=3, maxLength=2), "minLength"),
    "items-count": ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems"),
    "endless": (_object({"next": {"$ref": "#"}}, "next"), "without end"),
    "types-exclude": ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "type"),
    "not": (_object({"a/b": {"not": {"type": "null"}}}), "#/properties/a~1b: not"),
    "if": ({"if": {}, "then": {}}, "#: if"),
    "contains": ({"type": "array", "contains": {}}, "#: contains"),
    "dependent": ({"dependentRequired": {"a": ["b"]}}, "#: dependentRequired"),
    "unknown": ({"type": "string", "minLenght": 3}, "#: minLenght"),
    "unique": ({"type": "array", "items": _string(), "uniqueItems": True}, "#: uniqueItems"),
    "remote": ({"$ref": "https://example.com/x.json"}, "#: $ref"),
    "missing-ref": ({"$ref": "#/$defs/none"}, "#: $ref"),
    "self-ref": ({"$ref": "#"}, "#: $ref"),
    "self-all-of": ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}, "$ref"),
    "anchor": ({"$anchor": "x"}, "#: $anchor"),
    "inner-id": (_object({"a": {"$id": "x"}}), "#/properties/a: $id"),
    "back-reference": (_string(pattern="(a)\\1"), "#: pattern: a back-reference"),
    "word-boundary": (_string(pattern="\\bfoo"), "#: pattern: a word boundary"),
    "inner-anchor": (_string(pattern="a^b"), "#: pattern: an anchor"),
    "pattern-too-long": (_string(pattern="^abc$", maxLength=2), "no text matches"),
    "broken-pattern": (_string(pattern="(a"), "#: pattern"),
    "format": (_string(format="shoe-size"), "#: format"),
    "one-of-overlap": ({"oneOf": [_string(), _string(maxLength=3)]}, "#: oneOf"),
    "one-of-objects": (
        {"oneOf": [_object({"a": {"type": "integer"}}), _object({"b": {"type": "integer"}})]},
        "#: oneOf",
    ),
    "odd-step": ({"type": "number", "multipleOf": 0.3}, "#: multipleOf"),
    "large-step": ({"type": "integer", "multipleOf": 12_347}, "#: multipleOf"),
    "bad-type": ({"type": "text"}, "#: type"),
    "bad-minimum": ({"type": "integer", "minimum": "3"}, "#: minimum"),
    "bad-schema": (_object({"a": 3}), "#/properties/a"),
    "bad-required": ({"required": "a"}, "#: required"),
    "bad-count": ({"type": "array", "minItems": -1}, "#: minItems"),
    "list-items": ({"items": [{}]}, "#: items"),
    "many-unnamed": ({"type": "object", "additionalProperties": True, "minProperties": 2}, "minProperties"),
    "too-deep": ({"items": {"items": {}}}, "deep"),
}
_INNER: Any = {}
for _ in range(100):
    _INNER = {"items": _INNER}
REFUSED["too-deep"] = (_INNER, "levels deep")
