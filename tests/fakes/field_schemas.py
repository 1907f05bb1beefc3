"""Generated JSON Schemas of the words that the field writes, right and wrong."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

PATTERNS = (
    "^[a-z]+$", "^(?!\\.)[a-z]+$", "\\bfoo", "[", "^(?=.*a)[a-c]{2,5}$", "(a)\\1", "(?<year>a)", "\\p{L}+", "a*+",
    "^a|b$", "^\\S+$", "x", "^.{2,4}$", "(?i)a", "^[^@]+@[^@]+$", "(?<=x)y", "^(ab|cd)*$", "$", "^\\d{3}-\\d{2}$",
)  # fmt: skip
FORMATS = ("date", "email", "uuid", "ipv4", "uri", "date-time", "int32", "semver", "password", "regex", "color")
TYPES = ("string", "integer", "number", "boolean", "null", "object", "array")
WRONG = st.sampled_from([None, "str", 3, -1, 1.5, True, [], {}, ["x"], {"x": 1}, [[]], 10**40, 1e308, "#/none"])
SCALARS = st.sampled_from(
    ["a", "b", "", "foo", "xy", 0, 1, 3, 1.0, 2.5, -7, True, False, None, [], {}, ["a"], {"a": 1}]
)
NUMBERS = st.sampled_from(
    [0, 1, 3, 10, -5, 0.5, 0.1, 0.3, 1e300, -1e300, 1e-300, 3.4028234663852886e38, 10**40, 7, 100]
)
NAMES = st.sampled_from(["a", "b", "c", "a/b", "x-1", "größe"])
REFS = st.sampled_from(
    ["#", "#/$defs/d", "#/$defs/e", "#/properties/a", "#/none", "https://example.com/x", "#/%24defs/d", 5]
)


def _keywords(inner: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    counts = st.integers(0, 4)
    mapping = st.dictionaries(NAMES, inner, max_size=3)
    some = st.lists(inner, min_size=1, max_size=3)
    names = st.lists(NAMES, max_size=2, unique=True)
    return {
        "type": st.one_of(st.sampled_from(TYPES), st.lists(st.sampled_from(TYPES), min_size=1, max_size=3)),
        "enum": st.lists(SCALARS, max_size=4),
        "const": SCALARS,
        "pattern": st.sampled_from(PATTERNS),
        "format": st.sampled_from(FORMATS),
        "minLength": counts,
        "maxLength": st.integers(0, 30),
        "minimum": NUMBERS,
        "maximum": NUMBERS,
        "exclusiveMinimum": st.one_of(NUMBERS, st.booleans()),
        "exclusiveMaximum": st.one_of(NUMBERS, st.booleans()),
        "multipleOf": NUMBERS,
        "properties": mapping,
        "required": names,
        "additionalProperties": st.one_of(st.booleans(), inner),
        "unevaluatedProperties": st.booleans(),
        "patternProperties": st.dictionaries(st.sampled_from(PATTERNS), inner, max_size=2),
        "propertyNames": inner,
        "minProperties": counts,
        "maxProperties": counts,
        "items": st.one_of(inner, st.lists(inner, max_size=2)),
        "prefixItems": some,
        "additionalItems": st.booleans(),
        "minItems": counts,
        "maxItems": counts,
        "uniqueItems": st.booleans(),
        "anyOf": some,
        "oneOf": some,
        "allOf": some,
        "not": inner,
        "if": inner,
        "then": inner,
        "contains": inner,
        "minContains": counts,
        "dependentRequired": st.dictionaries(NAMES, names, max_size=2),
        "nullable": st.booleans(),
        "$ref": REFS,
        "title": st.just("T"),
        "$schema": st.sampled_from(["https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"]),
        "x-more": st.just(1),
        "minLenght": st.just(3),
        "$id": st.sampled_from(["urn:x", "http://[", "a b"]),
    }  # fmt: skip


@st.composite
def _object(draw: st.DrawFn, inner: st.SearchStrategy[Any], wrong: bool) -> Any:
    known = _keywords(inner)
    chosen = draw(st.lists(st.sampled_from(sorted(known)), max_size=4, unique=True))
    return {
        name: draw(WRONG) if wrong and draw(st.integers(0, 9)) == 0 else draw(known[name])
        for name in chosen
    }  # fmt: skip


@st.composite
def schemas(draw: st.DrawFn, *, wrong: bool = True) -> Any:
    """A schema with definitions that its references may or may not find; `wrong`: values where they do not belong."""
    leaf = st.one_of(st.booleans(), st.sampled_from([{"type": name} for name in TYPES]), st.just({}))
    if wrong:
        leaf = st.one_of(leaf, WRONG)
    inner = st.recursive(leaf, lambda deeper: _object(deeper, wrong), max_leaves=6)
    root = draw(_object(inner, wrong))
    if draw(st.booleans()):
        root["$defs"] = {"d": draw(inner), "e": draw(inner)}
    return root
