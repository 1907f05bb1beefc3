"""JSON Schema to a grammar, and the check of what came out.

Pure. `schema_to_gbnf` writes a grammar whose every text is valid under the schema; what it cannot hold exactly it
refuses by keyword and path (`puna.grammar.shapes` reads the keywords). It may allow less than the schema does, never
more:

- an object with `properties` and without a word on others gets only those listed, in their order;
- where no `type` is named, the keywords that are there tell it;
- white space is bounded, numbers have bounded length, JSON of free form is nested at most FREE_DEPTH levels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from itertools import combinations, product
from typing import TYPE_CHECKING

from puna.errors import Code, InvalidRequest, UnsatisfiableSchema
from puna.grammar import numbers, pattern, texts
from puna.grammar.formats import STRING_FORMATS, WIDE_FORMATS
from puna.grammar.gbnf import (
    EMPTY,
    NEVER,
    Chars,
    Expression,
    GrammarTooLarge,
    NoAnswer,
    Ref,
    Rules,
    Terminal,
    but,
    chars,
    choice,
    intersection,
    optional,
    seq,
    span,
)
from puna.grammar.loosened import is_there, loosened
from puna.grammar.shapes import AlternativeGroup, Located, Reader, SchemaError, SchemaShape, TooDeep, measure
from puna.grammar.stacks import TooManyReadings, readable
from puna.grammar.survey import faults
from puna.grammar.validation import equal_text, first_error, validator
from puna.types import JsonObject, JsonValue

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

FREE_DEPTH = 8
CODE: Code = "invalid_json_schema"
MAX_LEFT_OUT = 64
_READ, _LOOK, _CHECK = 5, 1, 20
"""What reading a place, comparing two and checking a value cost of MAX_WORK."""
_MAX_INSIDE = 40
"""Values written inside each other, through references too: the rest waits its turn."""
_ANY_ORDER = 6
_MAX_OPTIONS = 500
_MAX_LOOK = 4
_MOST_PATTERNS = 4
_MOST_MEMBERS = 20_000
"""Rules for the properties of an object that are counted: one for each property and each number before it."""


# ------------------------------------------------------------------------------------------------------ public parts


def schema_to_gbnf(schema: JsonValue, *, param: str = "output") -> str:
    """A GBNF grammar of JSON texts valid under `schema`; None: of any JSON object. InvalidRequest if there is none."""
    rules = Rules()
    try:
        return readable(rules, json_value(rules, schema, param=param))
    except NoAnswer as error:
        raise _refusal("#: no value can satisfy it", param) from error
    except TooManyReadings as error:
        raise _refusal(f"#: {error}", param) from error
    except GrammarTooLarge as error:
        raise _refusal("#: its grammar would be too large", param) from error


def json_value(rules: Rules, schema: JsonValue, *, param: str, types: frozenset[str] | None = None) -> Expression:
    """The same as an expression over `rules`, to be part of a larger grammar; with `types`, only of values of these.

    Raises InvalidRequest and GrammarTooLarge.
    """
    _check_size(schema, param)
    try:
        return _value(rules, schema, param, types)
    except SchemaError as error:
        raise _refusal(str(error), param) from error


@dataclass(frozen=True, slots=True)
class HeldSchema:
    """What is held of a schema: `value`, its texts; `schema`, what they and the last check go by; `left_out`, the paths
    of what is not held.
    """

    value: Expression
    schema: JsonValue
    left_out: tuple[str, ...] = ()


def loose_json_value(rules: Rules, schema: JsonValue, *, param: str, types: frozenset[str] | None = None) -> HeldSchema:
    """The same for what can be held of `schema`; `param` stands before the paths of what cannot.

    Raises InvalidRequest for a schema that is too large, UnsatisfiableSchema for one that nothing satisfies, and
    GrammarTooLarge.
    """
    left_out: list[str] = []
    try:
        _check_size(schema, param)
    except InvalidRequest as refusal:
        if not isinstance(refusal.__cause__, TooDeep):
            raise
        schema, left_out = {}, [param]
    value = _attempt(rules, schema, param, types)
    while isinstance(value, list):
        if len(left_out) + len(value) > MAX_LEFT_OUT:
            raise _refusal(f"{value[0]}, and more than {MAX_LEFT_OUT} others", param) from value[0]
        for number, error in enumerate(value):
            if number == 0 or is_there(schema, error):
                schema, paths = loosened(schema, error)
                left_out += [f"{param}{path}" for path in paths]
        # A failed attempt leaves rules behind, so those after the first go elsewhere.
        value = _attempt(rules.scratch(), schema, param, types)
    return HeldSchema(_value(rules, schema, param, types) if left_out else value, schema, tuple(left_out))


def _attempt(
    rules: Rules, schema: JsonValue, param: str, types: frozenset[str] | None
) -> Expression | list[SchemaError]:
    """The value, or what stands in its way."""
    if found := list(faults(Reader(schema, rules.take), schema, rules.spend) if schema is not None else ()):
        return found
    try:
        return _value(rules, schema, param, types)
    except SchemaError as error:
        return [error]


def _check_size(schema: JsonValue, param: str) -> None:
    try:
        measure(schema)
    except SchemaError as error:
        raise _refusal(str(error), param) from error


def _value(rules: Rules, schema: JsonValue, param: str, types: frozenset[str] | None) -> Expression:
    """`schema` is measured. Raises SchemaError, and InvalidRequest if no value can satisfy it."""
    writer = Writer(rules, {} if schema is None else schema)
    if schema is None:
        return writer.free_object()
    for fault in faults(writer.reader, schema, rules.spend):
        raise fault
    places: tuple[Located, ...] = (Located(schema, "#"),)
    if types is not None:
        places += (Located({"type": [*sorted(types)]}, "#"),)
    value = writer.value(places)
    if not rules.can_end(value):
        # What `false` forbids is seldom the cause: it stands where nothing more is to come.
        causes = [reason for reason in writer.impossible if not reason.endswith(_NOTHING)] or writer.impossible
        reason = causes[0] if causes else "#: it contains itself without end"
        raise UnsatisfiableSchema(f"{_CANNOT} no value can satisfy it: {reason}", param=param)
    return value


def conforms(text: str, schema: JsonValue) -> str | None:
    """What is wrong with `text` as JSON valid under `schema` (None: any object); None if nothing is."""
    try:
        value: JsonValue = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if schema is None:
        return None if isinstance(value, dict) else "not an object"
    return first_error(value, schema)


_NOTHING = "nothing is allowed here"
_CANNOT = "This JSON schema cannot be enforced."


def _no_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is larger than a reader of it can hold")
    return number


def _refusal(reason: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"{_CANNOT} {reason}", param=param, code=CODE)


# --------------------------------------------------------------------------------------------------- characters of JSON

_HEX = chars("0123456789abcdefABCDEF")
_PLAIN = but([(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C)])
_SHORT_ESCAPES = {0x22: '\\"', 0x5C: "\\\\", 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}


def json_characters(allowed: Chars) -> Expression:
    """One of these characters, as it is written inside a JSON string."""
    raw = intersection(allowed.ranges, _PLAIN.ranges)
    others = intersection(allowed.ranges, ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C)))
    escapes = [_SHORT_ESCAPES.get(code) or f"\\u{code:04x}" for low, high in others for code in range(low, high + 1)]
    return choice(*([Chars(raw)] if raw else []), *([_one_of(escapes)] if escapes else []))


def _one_of(texts: list[str]) -> Expression:
    """One of these texts, what they begin with only once, so that few are open at a character."""
    if len(texts) == 1:
        return Terminal(texts[0])
    if all(len(text) == 1 for text in texts):
        return chars("".join(texts))
    after: dict[str, list[str]] = {}
    for text in texts:
        after.setdefault(text[0], []).append(text[1:])
    ends = chars("".join(first for first, rests in after.items() if rests == [""]))
    longer = [seq(Terminal(first), _one_of(rests)) for first, rests in after.items() if rests != [""]]
    return choice(*([ends] if ends.ranges else []), *longer)


def json_text(value: JsonValue) -> Terminal:
    return Terminal(json.dumps(value, ensure_ascii=False, allow_nan=False))


# -------------------------------------------------------------------------------------------------------------- writer


class Writer:
    """Writes the rules for places of one root schema. Equal places share a rule, so recursion ends."""

    def __init__(self, rules: Rules, root: JsonValue) -> None:
        self.rules = rules
        self.root = root
        self.reader = Reader(root, rules.take)
        self.impossible: list[str] = []
        self._validator: Validator | None = None
        self._depth = 0
        self._waiting: list[tuple[Ref, tuple[Located, ...]]] = []
        self._known: dict[str, Ref] = {}
        self._named: dict[str, Ref] = {}

    # -- values of any kind

    def value(self, places: tuple[Located, ...]) -> Expression:
        """A value valid in all `places`; NEVER if there is none (`impossible` then says why)."""
        key = json.dumps(sorted({json.dumps(place.schema) for place in places} - {"true", "{}"}))
        self.rules.take(len(key) // 32)
        if key in self._known:
            return self._known[key]
        self.rules.spend(_READ * len(places))
        ref = self._known[key] = self.rules.reserve("value")
        if self._depth >= _MAX_INSIDE:
            self._waiting.append((ref, places))
            return ref
        self._depth += 1
        self.rules.define(ref, self._of(places))
        self._depth -= 1
        while self._waiting and not self._depth:
            self._write_next()
        return ref

    def _write_next(self) -> None:
        """A value that was found too deep inside others to be written there."""
        ref, places = self._waiting.pop()
        self._depth += 1
        self.rules.define(ref, self._of(places))
        self._depth -= 1

    def _of(self, places: tuple[Located, ...]) -> Expression:
        shape = self.reader.read(places)
        if shape is None:
            return self._never(f"{places[0].path}: {_NOTHING}")
        # References and allOf multiply.
        self.rules.spend(_READ * len(shape.plain))
        if shape.values is not None:
            return self._listed(shape)
        if shape.unheld:
            raise shape.unheld[0]
        if shape.groups:
            return self._alternatives(shape)
        if shape.types == frozenset():
            return self._never(f"{shape.where}: type: no type is left")
        if shape.types is None and not shape.implied:
            return self.free_value(FREE_DEPTH)
        return choice(*(self._typed(shape, name) for name in sorted(shape.written)))

    def _typed(self, shape: SchemaShape, name: str) -> Expression:
        match name:
            case "object":
                return self._object(shape)
            case "array":
                return self._array(shape)
            case "string":
                return self._string(shape)
            case "number":
                return self._number(shape)
            case "integer":
                return self._integer(shape)
            case "boolean":
                return self.named("boolean", choice(Terminal("true"), Terminal("false")))
            case _:
                return self.named("null", Terminal("null"))

    def _never(self, reason: str) -> Expression:
        self.impossible.append(reason)
        return NEVER

    def named(self, name: str, body: Expression) -> Ref:
        if name not in self._named:
            self._named[name] = self.rules.add(body, name)
        return self._named[name]

    def _listed(self, shape: SchemaShape) -> Expression:
        """Those of the values of an `enum` or `const` that satisfy everything else said of them."""
        values = self.allowed_values(shape)
        if not values:
            return self._never(f"{shape.where}: enum: none of its values satisfies the rest")
        return choice(*(json_text(value) for value in values))

    def allowed_values(self, shape: SchemaShape) -> list[JsonValue]:
        """Of a SchemaShape with `values`: those valid under all it was read from."""
        checks = [self._check(place) for place in shape.plain if _says_more_than_values(place, shape)]
        checks += [partial(self._in_group, group) for group in shape.groups]
        known = (value for value in shape.values or [] if _is_of(value, shape.types))
        return [value for value in known if all(check(value) for check in checks)]

    def _check(self, place: Located) -> Callable[[JsonValue], bool]:
        if self._validator is None:
            self._validator = validator(self.root, self.rules.take)
        found: Validator = self._validator.evolve(schema=place.schema)

        def check(value: JsonValue) -> bool:
            self.rules.spend(_CHECK)
            try:
                return bool(found.is_valid(value))
            except RecursionError as error:
                raise SchemaError(place.path, None, "its references lead on too often to judge a value by") from error

        return check

    def _in_group(self, group: AlternativeGroup, value: JsonValue) -> bool:
        valid = [self._check(option)(value) for option in group.options]
        return sum(valid) == 1 if group.keyword == "oneOf" else any(valid)

    # -- anyOf, oneOf

    def _alternatives(self, shape: SchemaShape) -> Expression:
        group, *others = shape.groups
        if math.prod(len(group.options) for group in shape.groups) > _MAX_OPTIONS:
            raise SchemaError(
                _parent(group.path), group.keyword, f"more than {_MAX_OPTIONS} combinations of alternatives"
            )
        options = [(*shape.plain, *(_again(other) for other in others), option) for option in group.options]
        if group.keyword == "oneOf":
            self._must_be_disjoint(group, [self.reader.read(option) for option in options])
        return choice(*(self.value(option) for option in options))

    def _must_be_disjoint(self, group: AlternativeGroup, shapes: list[SchemaShape | None]) -> None:
        for (one, left), (other, right) in combinations(zip(group.options, shapes, strict=True), 2):
            if self._may_meet(left, right, 0) or self._may_meet(right, left, 0):
                raise SchemaError(
                    _parent(group.path),
                    group.keyword,
                    f"{one.path} and {other.path} are not certain to exclude each other; say anyOf, "
                    "or tell them apart by a required property with a const",
                )

    def _may_meet(self, left: SchemaShape | None, right: SchemaShape | None, depth: int) -> bool:
        """Whether a value written for `left` could be valid under `right`. False only where that is certain."""
        self.rules.spend(_LOOK)
        if left is None or right is None:
            return False
        if depth > _MAX_LOOK:
            return True
        if left.values is not None and right.values is not None and not _common_values(left.values, right.values):
            return False
        if left.values is not None:
            return any(self._valid(value, right) for value in self.allowed_values(left))
        if right.values is not None:
            return any(self._valid(value, left) for value in self.allowed_values(right))
        if left.groups:
            return any(self._may_meet(option, right, depth + 1) for option in self._unfolded(left))
        if right.groups:
            return any(self._may_meet(left, option, depth + 1) for option in self._unfolded(right))
        shared = _shared_types(left.written, right.accepted)
        return any(self._may_share(name, left, right, depth) for name in shared)

    def _unfolded(self, shape: SchemaShape) -> Iterator[SchemaShape | None]:
        """The Shapes of the alternatives of its first group."""
        group, *others = shape.groups
        base = (*shape.plain, *(_again(other) for other in others))
        return (self.reader.read((*base, option)) for option in group.options)

    def _valid(self, value: JsonValue, shape: SchemaShape) -> bool:
        return all(self._check(place)(value) for place in shape.plain) and all(
            self._in_group(group, value) for group in shape.groups
        )

    def _may_share(self, name: str, left: SchemaShape, right: SchemaShape, depth: int) -> bool:
        if name == "number":
            return not left.bounds.meet(right.bounds).empty
        if name == "string":
            return _lengths_meet(left, right)
        if name != "object":
            return True
        for required in right.required:
            if not self._may_have(left, required):
                return False
        for required in left.required:
            wanted, allowed = (self.reader.read(self._property(shape, required)) for shape in (left, right))
            if not self._may_meet(wanted, allowed, depth + 1):
                return False
        return True

    def _may_have(self, shape: SchemaShape, name: str) -> bool:
        """Whether an object written for `shape` can have the property."""
        names, closed = self._names(shape)
        return name in names or (not closed and self._extra(shape, names) is not None)

    # -- objects

    def _object(self, shape: SchemaShape) -> Expression:
        low, high = shape.min_properties, shape.max_properties
        if high is not None and low > high:
            return self._never(f"{shape.where}: minProperties: more than maxProperties")
        names, closed = self._names(shape)
        extra = None if closed else self._extra(shape, names)
        members = [
            (
                seq(json_text(name), Terminal(":"), optional(Terminal(" ")), self.value(self._property(shape, name))),
                name in shape.required,
            )
            for name in names
        ]
        if closed and not shape.required.keys() <= set(names):
            return self._never(f"{shape.where}: propertyNames: it does not allow what is required")
        if extra is not None and low - len(names) > 1:
            raise SchemaError(
                shape.where, "minProperties", "more than one property without a given name; they could be the same"
            )
        if extra is None and low > len(members):
            return self._never(f"{shape.where}: minProperties: there are no more than {len(members)}")
        return self._members(shape, members, extra)

    def _names(self, shape: SchemaShape) -> tuple[list[str], bool]:
        """Names of properties that an object may be given by name, in order; whether there are no others."""
        names = dict.fromkeys(name for part in shape.properties for name in part.listed)
        names.update(dict.fromkeys(shape.required))
        few = self._few_names(shape)
        if few is None:
            return list(names), False
        return [*(name for name in names if name in few), *(name for name in few if name not in names)], True

    def _few_names(self, shape: SchemaShape) -> list[str] | None:
        """All that `propertyNames` allows, where it lists them."""
        if not shape.names:
            return None
        kind = self.reader.read(self._name_places(shape))
        values = [] if kind is None else self._few(kind)
        return None if values is None else [value for value in values if isinstance(value, str)]

    def _name_places(self, shape: SchemaShape) -> tuple[Located, ...]:
        return (*shape.names, Located({"type": "string"}, shape.where))

    def _members(
        self, shape: SchemaShape, members: list[tuple[Expression, bool]], extra: Expression | None
    ) -> Expression:
        """From `{` to `}`, right to left: after property `index`, with `count` written (kept only as far as it
        matters).
        """
        low, high = shape.min_properties, shape.max_properties
        if low <= sum(required for _, required in members):
            low = 0
        if high is not None and high >= len(members) and extra is None:
            high = None
        # Of those with a given name no more can have been written than there are.
        most = min(high + 1 if high is not None else max(low, 1), max(len(members), 1))
        if most * len(members) > _MOST_MEMBERS:
            keyword = "maxProperties" if high is not None else "minProperties"
            raise SchemaError(shape.where, keyword, f"counted over {len(members)} properties")
        comma = seq(Terminal(","), self.gap())
        after: dict[int, Expression] = {
            count: self._last_members(
                extra, comma, low=max(low - count, 0), high=None if high is None else high - count, count=count
            )
            for count in range(most + 1)
        }
        for member, required in reversed(members):
            before: dict[int, Expression] = {}
            for count in range(most + 1):
                given = seq(comma if count else EMPTY, member, after[min(count + 1, most)])
                before[count] = given if required else choice(given, after[count])
            after = {count: self.rules.add(body, "members") for count, body in before.items()}
        return seq(Terminal("{"), self.gap(), after[0])

    def _last_members(
        self, extra: Expression | None, comma: Expression, *, low: int, high: int | None, count: int
    ) -> Expression:
        """Members without a declared name, after `count` others, and the end."""
        if high is not None and high < 0:
            return NEVER
        close = seq(self.gap(), Terminal("}"))
        end = close if count else Terminal("}")
        if extra is None or high == 0:
            return end if low == 0 else NEVER
        more = self.rules.add(seq(comma, extra), "more")
        if count:
            return seq(self.rules.repeat(more, low, high), close)
        first = seq(extra, self.rules.repeat(more, max(low - 1, 0), None if high is None else high - 1), close)
        return first if low else choice(first, end)

    def _property(self, shape: SchemaShape, name: str) -> tuple[Located, ...]:
        """All that is said of the property of this name."""
        places: list[Located] = []
        for part in shape.properties:
            said = [part.listed[name]] if name in part.listed else []
            said += [place for pat, place in part.patterns.items() if self._matches(pat, name, place)]
            places += said or ([part.others] if part.others is not None else [])
        if shape.names:
            check = all(self._check(place)(name) for place in shape.names)
            places += [] if check else [Located(False, shape.where)]
        return tuple(places)

    def _matches(self, text: str, name: str, place: Located) -> bool:
        try:
            return pattern.found(text, name, self.rules.take)
        except pattern.PatternError as error:
            raise SchemaError(_parent(_parent(place.path)), "patternProperties", str(error)) from error

    def _extra(self, shape: SchemaShape, names: list[str]) -> Expression | None:
        """A member whose name is none of `names`, where such are to be written: by which patterns match it."""
        patterns = {pat: place for part in shape.properties for pat, place in part.patterns.items()}
        if len(patterns) > _MOST_PATTERNS:
            where = _parent(_parent(next(iter(patterns.values())).path))
            raise SchemaError(where, "patternProperties", f"more than {_MOST_PATTERNS} patterns")
        options: list[Expression] = []
        for matched in product((True, False), repeat=len(patterns)):
            given = [pat for pat, is_matched in zip(patterns, matched, strict=True) if is_matched]
            places = self._others(shape, given)
            if places is None or any(place.schema is False for place in places):
                continue
            conditions = tuple(
                texts.Condition("pattern", pat, _parent(_parent(place.path)), without=pat not in given)
                for pat, place in patterns.items()
            )
            key = self._key(shape, frozenset(names), conditions)
            if key != NEVER:
                options.append(seq(key, Terminal(":"), optional(Terminal(" ")), self.value(places)))
        return choice(*options) if options else None

    def _others(self, shape: SchemaShape, given: list[str]) -> tuple[Located, ...] | None:
        """What is said of a property that is not listed and matches these patterns; None: it is not to be written."""
        places: list[Located] = []
        told = False
        for part in shape.properties:
            said = [part.patterns[pat] for pat in given if pat in part.patterns]
            said = said or ([part.others] if part.others is not None else [])
            told = told or bool(said)
            places += said
        return tuple(places) if told or not shape.properties else None

    def _key(self, shape: SchemaShape, names: frozenset[str], conditions: tuple[texts.Condition, ...]) -> Expression:
        """The name of a property that is none of `names`, and keeps `conditions`."""
        if not shape.names and not conditions:
            return self.string() if not names else seq(Terminal('"'), self._other_than(names), Terminal('"'))
        places = self._name_places(shape)
        if not names and not conditions:
            return self.value(places)
        kind = self.reader.read(places)
        if kind is None:
            return NEVER
        if kind.groups or kind.unheld:
            raise SchemaError(
                shape.where, "propertyNames", "alternatives, together with properties or patternProperties"
            )
        return self._string(kind, conditions, but=names)

    def _other_than(self, names: frozenset[str]) -> Expression:
        """The characters of a name, without escapes, that is none of `names`: a tree of their beginnings."""
        firsts = {name[0] for name in names if name}
        away = seq(Chars(intersection(_PLAIN.ranges, but((ord(c), ord(c)) for c in firsts).ranges)), self._plain_rest())
        options: list[Expression] = [away] if "" in names else [EMPTY, away]
        for first in sorted(firsts):
            if any(low <= ord(first) <= high for low, high in _PLAIN.ranges):
                rest = self._other_than(frozenset(name[1:] for name in names if name.startswith(first)))
                options.append(seq(Terminal(first), rest))
        return self.rules.add(choice(*options), "name")

    def _plain_rest(self) -> Expression:
        return self.named("rest", self.rules.repeat(_PLAIN, 0, None))

    # -- arrays

    def _array(self, shape: SchemaShape) -> Expression:
        low, high = shape.min_items, shape.max_items
        if high is not None and low > high:
            return self._never(f"{shape.where}: minItems is more than maxItems")
        if shape.unique and (high is None or high > 1):
            return self._unique(shape, low, high)
        first = max((len(part.first) for part in shape.items), default=0)
        comma = seq(Terminal(","), self.gap())
        rest = self._item(shape, first)
        # Listed items alone say nothing of more; only those that must be there are written.
        closed = first > 0 and all(part.others is None for part in shape.items)
        more_low, more_high = max(low - first, 0), None if high is None else max(high - first, 0)
        if closed:
            more_high = more_low
        tail = self.rules.repeat(self.rules.add(seq(comma, rest), "more"), more_low, more_high)
        if first == 0:
            alone = self.rules.repeat(
                self.rules.add(seq(comma, rest), "more"), max(low - 1, 0), None if high is None else high - 1
            )
            some = seq(rest, alone) if high != 0 else NEVER
            return self._bracketed(some, empty=low == 0)
        for index in reversed(range(1, first)):
            if high is not None and index >= high:
                tail = EMPTY
                continue
            item = seq(comma, self._item(shape, index), tail)
            tail = item if index < low else choice(EMPTY, item)
        return self._bracketed(seq(self._item(shape, 0), tail) if high != 0 else NEVER, empty=low == 0)

    def _item(self, shape: SchemaShape, index: int) -> Expression:
        places: list[Located] = []
        for part in shape.items:
            if index < len(part.first):
                places.append(part.first[index])
            elif part.others is not None:
                places.append(part.others)
        return self.value(tuple(places))

    def _bracketed(self, some: Expression, *, empty: bool) -> Expression:
        full = seq(Terminal("["), self.gap(), some, self.gap(), Terminal("]"))
        return choice(full, Terminal("[]")) if empty else full

    def _unique(self, shape: SchemaShape, low: int, high: int | None) -> Expression:
        """Items all different: possible where they are few and known."""
        places = tuple(part.others for part in shape.items if part.others is not None)
        kind = self.reader.read(places)
        few = None if kind is None else self._few(kind)
        if any(part.first for part in shape.items) or few is None:
            raise SchemaError(
                shape.unique or shape.where,
                "uniqueItems",
                "only items from an enum, or booleans, can be kept different",
            )
        different = {equal_text(value): value for value in few}
        values = [json_text(value) for value in different.values()]
        if len(values) < low:
            return self._never(f"{shape.where}: minItems is more than there are different items")
        most = len(values) if high is None else min(high, len(values))
        lists = self._any_order if len(values) <= _ANY_ORDER else self._in_order
        return self._bracketed(lists(values, max(low, 1), most), empty=low == 0)

    def _few(self, shape: SchemaShape) -> list[JsonValue] | None:
        """All values of a SchemaShape that has but a few."""
        if shape.values is not None:
            return self.allowed_values(shape)
        if shape.groups:
            return self._few_of_alternatives(shape)
        if shape.types is None or not shape.types <= {"boolean", "null"}:
            return None
        named: dict[str, list[JsonValue]] = {"boolean": [True, False], "null": [None]}
        return [value for name in sorted(shape.types) for value in named[name]]

    def _few_of_alternatives(self, shape: SchemaShape) -> list[JsonValue] | None:
        few: dict[str, JsonValue] = {}
        for option in self._unfolded(shape):
            self.rules.spend(_LOOK)
            values = [] if option is None else self._few(option)
            if values is None:
                return None
            few.update((equal_text(value), value) for value in values)
        return [value for value in few.values() if self._valid(value, shape)]

    def _any_order(self, values: list[Terminal], low: int, high: int) -> Expression:
        """Every list of different values: a rule for each set of those still left."""
        known: dict[frozenset[int], Expression] = {}

        def after(left: frozenset[int]) -> Expression:
            if left not in known:
                used = len(values) - len(left)
                options: list[Expression] = [EMPTY] if used >= low else []
                if used < high:
                    comma = seq(Terminal(","), self.gap()) if used else EMPTY
                    options += [seq(comma, values[index], after(left - {index})) for index in sorted(left)]
                known[left] = self.rules.add(choice(*options), "different")
            return known[left]

        return after(frozenset(range(len(values))))

    def _in_order(self, values: list[Terminal], low: int, high: int) -> Expression:
        """Lists of different values in the order of the enum: with many, a rule for each set would be too much."""
        # With no upper bound that matters, it is enough to count up to the lower one.
        most = high + 1 if high < len(values) else low
        after: dict[int, Expression] = {count: EMPTY if low <= count <= high else NEVER for count in range(most + 1)}
        for value in reversed(values):
            comma = seq(Terminal(","), self.gap())
            after = {
                count: self.rules.add(
                    choice(seq(comma if count else EMPTY, value, after[min(count + 1, most)]), after[count]),
                    "different",
                )
                for count in range(most + 1)
            }
        return after[0]

    # -- texts

    def _string(
        self, shape: SchemaShape, conditions: tuple[texts.Condition, ...] = (), *, but: frozenset[str] = frozenset()
    ) -> Expression:
        """A text of this SchemaShape that keeps `conditions` too, and is none of `but`."""
        low, high = shape.min_length, shape.max_length
        if high is not None and low > high:
            return self._never(f"{shape.where}: minLength is more than maxLength")
        wanted = [*conditions, *(texts.Condition("pattern", *one) for one in dict(shape.patterns).items())]
        if but and not wanted:
            wanted.append(texts.Condition("pattern", "", shape.where))
        for name, path in dict(shape.formats).items():
            if name in STRING_FORMATS:
                wanted.append(texts.Condition("format", name, path))
            elif not shape.patterns:
                raise SchemaError(path, "format", f"{name!r} without the pattern that says it")
        if not wanted:
            if (low, high) == (0, None):
                return self.string()
            return self.rules.add(
                seq(Terminal('"'), self.rules.repeat(self.character(), low, high), Terminal('"')), "string"
            )
        body = texts.characters(self.rules, tuple(wanted), low, high, json_characters, but=but)
        path, keyword = wanted[-1].path, wanted[-1].keyword
        if body == NEVER:
            self._check_width(tuple(wanted), low, high)
            return self._never(f"{path}: {keyword}: no text matches it")
        return self.rules.add(seq(Terminal('"'), body, Terminal('"')), "string")

    def _check_width(self, wanted: tuple[texts.Condition, ...], low: int, high: int | None) -> None:
        """SchemaError where it is only what Puna writes of a format that has no such text, not the format."""
        formats = [one for one in wanted if one.keyword == "format" and one.text in WIDE_FORMATS]
        wide = tuple(
            replace(one, keyword="pattern", text=_whole(one.text)) if one in formats else one for one in wanted
        )
        if not formats:
            return
        try:
            found = texts.characters(self.rules.scratch(), wide, low, high, json_characters)
        except SchemaError:
            found = EMPTY  # nobody knows
        if found != NEVER:
            raise SchemaError(formats[0].path, "format", "none of its texts that are written here keeps all the rest")

    def string(self) -> Ref:
        """Any text."""
        if "string" not in self._named:
            body = seq(Terminal('"'), self.rules.repeat(self.character(), 0, None), Terminal('"'))
            self._named["string"] = self.rules.add(body, "string")
        return self._named["string"]

    def character(self) -> Ref:
        """One character of a string: as it is, or escaped; a character beyond 16 bits by its pair of surrogates."""
        if "char" not in self._named:
            low_half = seq(Terminal("\\u"), chars("dD"), chars("cdefCDEF"), _HEX, _HEX)
            high_half = seq(chars("dD"), chars("89abAB"), _HEX, _HEX, low_half)
            one_unit = choice(
                seq(chars("0123456789abcefABCEF"), _HEX, _HEX, _HEX), seq(chars("dD"), span("0", "7"), _HEX, _HEX)
            )
            escaped = seq(Terminal("\\"), choice(chars('"\\/bfnrt'), seq(Terminal("u"), choice(one_unit, high_half))))
            self._named["char"] = self.rules.add(choice(_PLAIN, escaped), "char")
        return self._named["char"]

    # -- numbers

    def _number(self, shape: SchemaShape) -> Expression:
        if shape.bounds.empty:
            return self._never(f"{shape.where}: no number is within its bounds")
        if shape.step is None:
            return self._bounded(shape, "number", numbers.decimals(shape.bounds))
        if numbers.divides(Decimal(1), shape.step):
            return self._integer(shape)
        return self._bounded(shape, "number", numbers.fractions(shape.bounds, shape.step))

    def _integer(self, shape: SchemaShape) -> Expression:
        step = shape.step
        if step is not None and not numbers.divides(Decimal(1), step):
            if not numbers.divides(step, Decimal(1)):
                raise SchemaError(shape.where, "multipleOf", f"{step} for an integer")
            step = None
        return self._bounded(shape, "integer", numbers.integers(self.rules, shape.bounds, int(step or Decimal(1))))

    def _bounded(self, shape: SchemaShape, hint: str, body: Expression | None) -> Expression:
        if body is None:
            raise SchemaError(
                shape.where, "multipleOf" if shape.step else "minimum", "this number is too large or too fine"
            )
        if body == NEVER:
            return self._never(f"{shape.where}: no {hint} is within its bounds")
        return self.rules.add(body, hint)

    # -- JSON of free form

    def gap(self) -> Expression:
        """White space between parts: none, one blank, or a new line with its indentation."""
        return optional(
            self.named("gap", choice(Terminal(" "), seq(Terminal("\n"), self.rules.repeat(chars(" "), 0, 20))))
        )

    def free_value(self, depth: int) -> Ref:
        """Any JSON value of at most `depth` levels."""
        name = f"json-{depth}"
        if name not in self._named:
            number = numbers.decimals(numbers.Bounds()) or NEVER
            simple = (
                self.string(),
                self.rules.add(number, "number"),
                Terminal("true"),
                Terminal("false"),
                Terminal("null"),
            )
            if depth:
                item = self.free_value(depth - 1)
                more = self.rules.add(seq(Terminal(","), self.gap(), item), "more")
                items = seq(item, self.rules.repeat(more, 0, None))
                self._named[name] = self.rules.add(
                    choice(*simple, self.free_object(depth), self._bracketed(items, empty=True)), name
                )
            else:
                self._named[name] = self.rules.add(choice(*simple), name)
        return self._named[name]

    def free_object(self, depth: int = FREE_DEPTH) -> Expression:
        """Any JSON object of at most `depth` levels."""
        member = self.rules.add(
            seq(self.string(), Terminal(":"), optional(Terminal(" ")), self.free_value(depth - 1)), "member"
        )
        more = self.rules.add(seq(Terminal(","), self.gap(), member), "more")
        full = seq(Terminal("{"), self.gap(), member, self.rules.repeat(more, 0, None), self.gap(), Terminal("}"))
        return self.rules.add(choice(full, Terminal("{}")), "object")


def _whole(name: str) -> str:
    """The pattern of all texts of a format."""
    return f"^(?:{WIDE_FORMATS[name]})$"


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _common_values(left: list[JsonValue], right: list[JsonValue]) -> bool:
    """Whether a value is in both, by JSON's equality (1 is 1.0, but not true)."""
    return bool({equal_text(value) for value in left} & {equal_text(value) for value in right})


def _again(group: AlternativeGroup) -> Located:
    """A group as a schema of its own, still to be satisfied."""
    options: list[JsonValue] = [option.schema for option in group.options]
    schema: JsonObject = {group.keyword: options}
    return Located(schema, _parent(group.path))


def _says_more_than_values(place: Located, shape: SchemaShape) -> bool:
    """Whether the values need checking against this place: not where it only lists them, or names their types."""
    schema = place.schema
    if not isinstance(schema, dict) or not schema.keys() <= {"type", "enum", "const", "title", "description"}:
        return True
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(listed, list):
        return False
    return [*map(equal_text, listed)] != [*map(equal_text, shape.values or [])]


def _is_of(value: JsonValue, types: frozenset[str] | None) -> bool:
    match value:
        case _ if types is None:
            return True
        case bool():
            return "boolean" in types
        case int():
            return "integer" in types or "number" in types
        case float():
            return "number" in types or ("integer" in types and value.is_integer())
        case None:
            return "null" in types
        case str():
            return "string" in types
        case list():
            return "array" in types
        case dict():
            return "object" in types


def _shared_types(left: frozenset[str], right: frozenset[str]) -> set[str]:
    numeric = {"number", "integer"}
    shared = set(left & right) - numeric
    return shared | {"number"} if left & numeric and right & numeric else shared


def _lengths_meet(left: SchemaShape, right: SchemaShape) -> bool:
    def below(one: SchemaShape, other: SchemaShape) -> bool:
        return one.max_length is not None and one.max_length < other.min_length

    return not below(left, right) and not below(right, left)
