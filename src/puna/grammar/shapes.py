"""What a JSON Schema says of a value, read keyword by keyword and merged over `$ref` and `allOf`.

Pure. Every keyword is understood, known to say nothing about validity, or refused by name and path; none is skipped. A
place in a schema is `Located`; several places that must hold at once are a tuple of them. Their merged meaning is a
`SchemaShape`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from urllib.parse import unquote

from puna.grammar.formats import FREE_FORMATS, INTEGER_FORMATS, PATTERN_HINTS, STRING_FORMATS
from puna.grammar.numbers import Bounds, decimal, divides
from puna.types import JsonObject, JsonValue

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
MAX_DEPTH = 64
MAX_NODES = 50_000
MAX_COUNT = 10**9
MAX_BITS = 2048
_PLACE, _NAMED, _VALUES = 20, 20, 8
"""Steps that reading a place takes, and each property that is named there; how many values are read in one."""

_ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "example", "$schema", "$comment", "readOnly", "writeOnly"}
    | {"deprecated", "$defs", "definitions", "discriminator", "externalDocs", "contentMediaType", "contentEncoding"}
)
_OBJECT = frozenset(
    {"properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties"}
    | {"maxProperties", "unevaluatedProperties"}
)
_ARRAY = frozenset(
    {"items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "unevaluatedItems"}
)
_STRING = frozenset({"minLength", "maxLength", "pattern"})
_NUMBER = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_APPLIED = frozenset({"$ref", "allOf", "anyOf", "oneOf"})
_JUDGED = frozenset(
    {"not", "if", "then", "else", "contains", "minContains", "maxContains", "dependentRequired", "dependentSchemas"}
)
"""No grammar can hold these; a value that is given can be judged by them."""
_KNOWN = _ANNOTATIONS | _OBJECT | _ARRAY | _STRING | _NUMBER | _APPLIED
_KNOWN = _KNOWN | _JUDGED | {"type", "enum", "const", "format", "nullable", "$id"}


class SchemaError(Exception):
    """The schema cannot be enforced: `keyword` at `path` (a JSON pointer), and why."""

    def __init__(self, path: str, keyword: str | None, why: str) -> None:
        super().__init__(f"{path}: {keyword + ': ' if keyword else ''}{why}")
        self.path = path
        self.keyword = keyword


class TooDeep(SchemaError):
    """It is nested too deep to be read."""


@dataclass(frozen=True, slots=True)
class Located:
    """A schema and the JSON pointer of its place."""

    schema: JsonValue
    path: str

    def at(self, *steps: str | int) -> str:
        return self.path + "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


@dataclass(frozen=True, slots=True)
class Properties:
    """One schema's word on properties: of those it lists, those its patterns match, and all others (None: no word)."""

    listed: dict[str, Located]
    patterns: dict[str, Located]
    others: Located | None


@dataclass(frozen=True, slots=True)
class Items:
    """One schema's word on items: of the first ones, and of all after (None: no word)."""

    first: tuple[Located, ...]
    others: Located | None


@dataclass(frozen=True, slots=True)
class AlternativeGroup:
    """Alternatives of an `anyOf` or `oneOf`."""

    keyword: str
    path: str
    options: tuple[Located, ...]


@dataclass(slots=True)
class SchemaShape:
    """The merged meaning of one or more schemas. None: not limited. `where`: the paths it was read from.

    `unheld`: keywords that only a given value can be judged by, `judged`: the schemas in them. `nothing`: a `false`
    rules out every value.
    """

    where: str
    types: frozenset[str] | None = None
    implied: frozenset[str] = frozenset()
    values: list[JsonValue] | None = None
    bounds: Bounds = field(default_factory=Bounds)
    step: Decimal | None = None
    min_length: int = 0
    max_length: int | None = None
    patterns: tuple[tuple[str, str], ...] = ()
    formats: tuple[tuple[str, str], ...] = ()
    properties: tuple[Properties, ...] = ()
    names: tuple[Located, ...] = ()
    required: dict[str, str] = field(default_factory=dict)
    min_properties: int = 0
    max_properties: int | None = None
    items: tuple[Items, ...] = ()
    min_items: int = 0
    max_items: int | None = None
    unique: str | None = None
    groups: tuple[AlternativeGroup, ...] = ()
    plain: tuple[Located, ...] = ()
    judged: tuple[tuple[str, Located], ...] = ()
    unheld: tuple[SchemaError, ...] = ()
    nothing: bool = False

    @property
    def accepted(self) -> frozenset[str]:
        """Types of the values that it accepts, `integer` only where `number` is not."""
        return frozenset(TYPES) - {"integer"} if self.types is None else self.types

    @property
    def written(self) -> frozenset[str]:
        """Types of the values to write: where none is named, those its keywords speak of, if they do of any."""
        return self.accepted & self.implied or self.accepted if self.types is None else self.accepted


# --------------------------------------------------------------------------------------------------------- limits


def measure(schema: JsonValue) -> None:
    """Refuse what is too deep or too large to read, or is no JSON. Iterative, so that depth itself does no harm."""
    waiting: list[tuple[JsonValue, int]] = [(schema, 0)]
    nodes = 0
    while waiting:
        value, depth = waiting.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            raise TooDeep("#", None, f"it is nested more than {MAX_DEPTH} levels deep")
        if nodes > MAX_NODES:
            raise SchemaError("#", None, f"it has more than {MAX_NODES} parts")
        if isinstance(value, dict):
            waiting.extend((item, depth + 1) for item in value.values())
            waiting.extend((key, depth + 1) for key in value)
        elif isinstance(value, list):
            waiting.extend((item, depth + 1) for item in value)
        elif isinstance(value, str):
            if not value.isascii() and any(0xD800 <= ord(c) <= 0xDFFF for c in value):
                raise SchemaError("#", None, "a text in it holds half a surrogate pair")
        elif isinstance(value, float) and not math.isfinite(value):
            raise SchemaError("#", None, "a number in it is not finite")
        elif isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise SchemaError("#", None, f"a number in it has more than {MAX_BITS} bits")


# ---------------------------------------------------------------------------------------------------------- reader


def old_tuples(root: JsonValue) -> bool:
    """Whether `items` may be a list: in all versions before 2020-12."""
    draft = root.get("$schema") if isinstance(root, dict) else None
    return isinstance(draft, str) and any(old in draft for old in ("draft-0", "2019-09"))


class Reader:
    """Reads places of one root schema. `take` is told of the work, in steps of about a microsecond."""

    def __init__(self, root: JsonValue, take: Callable[[int], None]) -> None:
        self.root = root
        self._take = take
        self.tuple_items = old_tuples(root)

    def read(self, places: tuple[Located, ...]) -> SchemaShape | None:
        """The merged SchemaShape; None: a `false` rules out every value. Raises SchemaError."""
        shape = self.merged(places)
        return None if shape.nothing else shape

    def merged(self, places: tuple[Located, ...]) -> SchemaShape:
        """All of it, even where a `false` rules out every value. Raises SchemaError."""
        shape = SchemaShape(" and ".join(dict.fromkeys(place.path for place in places)))
        waiting = list(reversed(places))
        seen: set[tuple[str, int]] = set()
        while waiting:
            place = waiting.pop()
            schema = place.schema
            # Said twice is said once; references that each name the next one twice would say it 2**n times.
            if (key := (place.path, id(schema))) in seen:
                continue
            seen.add(key)
            if schema is True:
                continue
            if schema is False:
                shape.nothing = True
                continue
            if not isinstance(schema, dict):
                raise SchemaError(place.path, None, "a schema must be an object or a boolean")
            self._take(_PLACE + sum(_steps(keyword, said) for keyword, said in schema.items()))
            if "$ref" in schema:
                waiting.append(self.resolve(place, schema["$ref"]))
            waiting += reversed([*_schemas(place, "allOf", schema)])
            for keyword in ("anyOf", "oneOf"):
                if keyword in schema:
                    options = tuple(_schemas(place, keyword, schema))
                    shape.groups += (AlternativeGroup(keyword, place.at(keyword), options),)
            own: JsonObject = {key: value for key, value in schema.items() if key not in _APPLIED}
            self._absorb(shape, Located(own, place.path), whole=len(own) == len(schema))
        return shape

    def resolve(self, place: Located, target: JsonValue) -> Located:
        """What the `$ref` of a place names. Raises SchemaError."""
        if not isinstance(target, str):
            raise SchemaError(place.path, "$ref", "it must be a text")
        if target != "#" and not target.startswith("#/"):
            raise SchemaError(
                place.path, "$ref", f"only references inside this schema (#/…) can be followed, not {target!r}"
            )
        found = self.root
        for step in unquote(target[1:]).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            else:
                raise SchemaError(place.path, "$ref", f"nothing is at {target!r}")
        return Located(found, target)

    def _absorb(self, shape: SchemaShape, place: Located, *, whole: bool) -> None:
        """Merge one schema's own keywords into `shape`. `whole`: there is nothing beside them (no $ref, anyOf, …)."""
        schema = place.schema
        assert isinstance(schema, dict)
        for keyword in schema:
            if keyword not in _KNOWN and not keyword.startswith("x-"):
                raise SchemaError(place.path, keyword, "this keyword cannot be enforced")
        if "$id" in schema and place.path != "#":
            raise SchemaError(place.path, "$id", "only the whole schema can have one")
        shape.plain += (place,)
        self._types(shape, place, schema)
        self._values(shape, place, schema)
        self._numbers(shape, place, schema)
        self._strings(shape, place, schema)
        self._objects(shape, place, schema, whole)
        self._arrays(shape, place, schema, whole)
        for keyword in sorted(_JUDGED & schema.keys()):
            self._judge(shape, place, keyword, schema)

    def _judge(self, shape: SchemaShape, place: Located, keyword: str, schema: JsonObject) -> None:
        inner = schema[keyword]
        if keyword == "not" and inner in (True, {}):
            shape.nothing = True
            return
        if keyword in ("minContains", "maxContains"):
            _count(place, keyword, schema)
        elif keyword == "dependentSchemas":
            found = _mapping(place, keyword, schema) or {}
            shape.judged += tuple((keyword, one) for one in found.values())
        elif keyword == "dependentRequired":
            for one in (_mapping(place, keyword, schema) or {}).values():
                _names(one, "dependentRequired", one.schema)
        else:
            shape.judged += ((keyword, Located(inner, place.at(keyword))),)
        shape.unheld += (SchemaError(place.path, keyword, "this keyword cannot be enforced"),)

    def _types(self, shape: SchemaShape, place: Located, schema: JsonObject) -> None:
        named = schema.get("type")
        if "type" in schema:
            names = named if isinstance(named, list) else [named]
            if not names or any(name not in TYPES for name in names):
                raise SchemaError(place.path, "type", f"it must be one of {', '.join(TYPES)}, or a list of them")
            types = {str(name) for name in names}
            if schema.get("nullable") is True:
                types.add("null")
            shape.types = _common_types(shape.types, frozenset(types))
        if "nullable" in schema and not isinstance(schema["nullable"], bool):
            raise SchemaError(place.path, "nullable", "it must be true or false")
        for keywords, types_meant in (
            (_OBJECT, {"object"}),
            (_ARRAY, {"array"}),
            (_STRING, {"string"}),
            (_NUMBER, {"number"}),
        ):
            if keywords & schema.keys():
                shape.implied |= types_meant

    def _values(self, shape: SchemaShape, place: Located, schema: JsonObject) -> None:
        if "enum" in schema:
            values = schema["enum"]
            if not isinstance(values, list):
                raise SchemaError(place.path, "enum", "it must be a list")
            shape.values = list(values) if shape.values is None else shape.values
        if "const" in schema:
            shape.values = [schema["const"]] if shape.values is None else shape.values

    def _numbers(self, shape: SchemaShape, place: Located, schema: JsonObject) -> None:
        for keyword, beside, low in (("Minimum", "minimum", True), ("Maximum", "maximum", False)):
            exclusive = schema.get(f"exclusive{keyword}", False)
            for name, inside in ((beside, exclusive is not True), (f"exclusive{keyword}", False)):
                # Draft 4 and OpenAPI 3.0 write true beside the bound that it makes exclusive.
                if name not in schema or (isinstance(schema[name], bool) and beside in schema and name != beside):
                    continue
                bound = _number(place, name, schema[name])
                one = Bounds(low=bound, low_in=inside) if low else Bounds(high=bound, high_in=inside)
                shape.bounds = shape.bounds.meet(one)
        if "multipleOf" in schema:
            step = _number(place, "multipleOf", schema["multipleOf"])
            if step <= 0:
                raise SchemaError(place.path, "multipleOf", "it must be more than 0")
            if shape.step is not None and not divides(shape.step, step) and not divides(step, shape.step):
                if not divides(Decimal(1), step) or not divides(Decimal(1), shape.step):
                    raise SchemaError(place.path, "multipleOf", f"together with a multipleOf {shape.step}")
                step = Decimal(math.lcm(int(step), int(shape.step)))
            shape.step = step if shape.step is None else max(step, shape.step)

    def _strings(self, shape: SchemaShape, place: Located, schema: JsonObject) -> None:
        shape.min_length = max(shape.min_length, _count(place, "minLength", schema) or 0)
        shape.max_length = _least(shape.max_length, _count(place, "maxLength", schema))
        pattern = schema.get("pattern")
        if "pattern" in schema:
            if not isinstance(pattern, str):
                raise SchemaError(place.path, "pattern", "it must be a text")
            shape.patterns = tuple(dict.fromkeys((*shape.patterns, (pattern, place.path))))
        name = schema.get("format")
        if "format" not in schema:
            return
        if not isinstance(name, str):
            raise SchemaError(place.path, "format", "it must be a text")
        if name in INTEGER_FORMATS:
            low, high = INTEGER_FORMATS[name]
            shape.bounds = shape.bounds.meet(Bounds(Decimal(low), Decimal(high)))
            shape.implied |= {"number"}
        elif name in STRING_FORMATS or name in PATTERN_HINTS:
            shape.formats = (*shape.formats, (name, place.path))
            shape.implied |= {"string"}
        elif name not in FREE_FORMATS:
            known = ", ".join(sorted({*STRING_FORMATS, *INTEGER_FORMATS, *FREE_FORMATS}))
            raise SchemaError(place.path, "format", f"{name!r} is not known. Known are {known}")

    def _objects(self, shape: SchemaShape, place: Located, schema: JsonObject, whole: bool) -> None:
        required = _names(place, "required", schema.get("required", []))
        shape.required.update({name: place.path for name in required if name not in shape.required})
        shape.min_properties = max(shape.min_properties, _count(place, "minProperties", schema) or 0)
        shape.max_properties = _least(shape.max_properties, _count(place, "maxProperties", schema))
        others = _other(place, schema, "additionalProperties", "unevaluatedProperties", whole)
        listed = _mapping(place, "properties", schema)
        patterns = _mapping(place, "patternProperties", schema)
        if listed is not None or patterns is not None or others is not None:
            shape.properties += (Properties(listed or {}, patterns or {}, others),)
        if "propertyNames" in schema:
            shape.names += (Located(schema["propertyNames"], place.at("propertyNames")),)

    def _arrays(self, shape: SchemaShape, place: Located, schema: JsonObject, whole: bool) -> None:
        shape.min_items = max(shape.min_items, _count(place, "minItems", schema) or 0)
        shape.max_items = _least(shape.max_items, _count(place, "maxItems", schema))
        unique = schema.get("uniqueItems", False)
        if not isinstance(unique, bool):
            raise SchemaError(place.path, "uniqueItems", "it must be true or false")
        if unique:
            shape.unique = place.path
        items = schema.get("items")
        first: tuple[Located, ...] = ()
        if "prefixItems" in schema:
            first = tuple(_schemas(place, "prefixItems", schema))
        if isinstance(items, list):
            if not self.tuple_items:
                raise SchemaError(place.path, "items", "a list of schemas is called prefixItems in this version")
            first = tuple(_schemas(place, "items", schema))
            others = _other(place, schema, "additionalItems", "unevaluatedItems", whole)
        elif "additionalItems" in schema and not self.tuple_items:
            raise SchemaError(place.path, "additionalItems", "in this version it is called items, beside prefixItems")
        else:
            others = _other(place, schema, "items", "unevaluatedItems", whole)
        if first or others is not None:
            shape.items += (Items(first, others),)


def _other(place: Located, schema: JsonObject, keyword: str, unevaluated: str, whole: bool) -> Located | None:
    """What is said of the properties or items that are not listed."""
    if keyword in schema:
        if unevaluated in schema and schema[unevaluated] not in (True, False):
            raise SchemaError(place.path, unevaluated, f"together with {keyword}")
        return Located(schema[keyword], place.at(keyword))
    if unevaluated not in schema or schema[unevaluated] is True:
        return None
    if not whole:
        raise SchemaError(place.path, unevaluated, "beside $ref, allOf, anyOf or oneOf")
    return Located(schema[unevaluated], place.at(unevaluated))


def _common_types(left: frozenset[str] | None, right: frozenset[str]) -> frozenset[str]:
    right = right - {"integer"} if "number" in right else right
    if left is None:
        return right
    both = left & right
    if ("number" in left and "integer" in right) or ("integer" in left and "number" in right):
        both |= {"integer"}
    return both


def _steps(keyword: str, said: JsonValue) -> int:
    """What reading a keyword takes: a property is looked at, a value passed on."""
    if not isinstance(said, list | dict):
        return 0
    return len(said) * _NAMED if keyword in {"properties", "required"} else len(said) // _VALUES


def _schemas(place: Located, keyword: str, schema: JsonObject) -> Iterator[Located]:
    if keyword not in schema:
        return
    options = schema[keyword]
    if not isinstance(options, list) or not options:
        raise SchemaError(place.path, keyword, "it must be a list of schemas, at least one")
    for index, option in enumerate(options):
        yield Located(option, place.at(keyword, index))


def _mapping(place: Located, keyword: str, schema: JsonObject) -> dict[str, Located] | None:
    if keyword not in schema:
        return None
    found = schema[keyword]
    if not isinstance(found, dict):
        raise SchemaError(place.path, keyword, "it must be an object")
    return {name: Located(value, place.at(keyword, name)) for name, value in found.items()}


def _names(place: Located, keyword: str, value: JsonValue) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SchemaError(place.path, keyword, "it must be a list of texts")
    return [str(name) for name in value]


def _number(place: Located, keyword: str, value: JsonValue) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SchemaError(place.path, keyword, "it must be a number")
    return decimal(value)


def _count(place: Located, keyword: str, schema: JsonObject) -> int | None:
    """A bound, None if there is none. An upper one past MAX_COUNT is that: no answer gets there."""
    if keyword not in schema:
        return None
    value = schema[keyword]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
        raise SchemaError(place.path, keyword, "it must be a whole number, not negative")
    if value > MAX_COUNT:
        if keyword.startswith("max"):
            return None  # to count so far, in each of several such bounds, would leave very many readings open
        raise SchemaError(place.path, keyword, f"it must be at most {MAX_COUNT}")
    return int(value)


def _least(left: int | None, right: int | None) -> int | None:
    return right if left is None else left if right is None else min(left, right)
