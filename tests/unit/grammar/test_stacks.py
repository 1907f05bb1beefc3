"""Grammars whose rules lead back to themselves: few readings are open at once, or they are refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.gbnf_reader import Gbnf
from fakes.schemas import ENFORCED
from puna.errors import InvalidRequest
from puna.grammar.gbnf import written
from puna.grammar.reader import GrammarError, read
from puna.grammar.schema import schema_to_gbnf
from puna.grammar.stacks import MOST_OPEN, _embeds, _factored, _rings, many
from puna.grammar.written import grammar_to_gbnf
from puna.types import Grammar, JsonObject

HELD = {
    "doubling": 'root ::= s\ns ::= "a" s "b" | "a" s "c" | "a"',
    "tree": 'root ::= n\nn ::= "{L:" n ",a:1}" | "{L:" n ",b:1}" | "0"',
    "named": 'root ::= n\nn ::= a | b | "0"\na ::= "{L:" n ",a:1}"\nb ::= "{L:" n ",b:1}"',
    "many": "root ::= " + " | ".join(f'"user-{number}"' for number in range(2 * MOST_OPEN)),
}
PLAIN = {
    "sums": 'root ::= e\ne ::= t (("+"|"-") t)*\nt ::= f (("*"|"/") f)*\nf ::= [0-9]+ | "(" e ")"',
    "json": 'root ::= v ws\nv ::= "[" ws (v ws ("," ws v ws)*)? "]" | "{" ws (s ":" ws v ws)* "}" | s | [0-9]+\n'
    's ::= "\\"" [^"]* "\\""\nws ::= [ \\n]*',
    "calls": 'root ::= c\nc ::= n "(" (c ("," c)*)? ")" | n "=" c | n\nn ::= [a-z]+',
    "if": 'root ::= s\ns ::= "if(" [a-z]+ "){" s* "}" ("else{" s* "}")? | [a-z]+ ";"',
    "right": 'root ::= "a" root | "a" b\nb ::= "b" b | "c"',
}
REFUSED = {
    "rows": 'root ::= s\ns ::= "a" s s | "a"',
    "palindromes": 'root ::= p\np ::= "a" p "a" | "b" p "b" | "a" | "b"',
    "optional": 'root ::= n\nn ::= "(" n? n? ")"',
    "inside": 'root ::= n\nn ::= "<" (n ">" | m ")") | "0"\nm ::= "<" (n "]" | m "}") | "0"',
    "repeated": 'root ::= n\nn ::= "(" (n | "x")* n* ")"',
}


@pytest.mark.parametrize("name", [*HELD, *PLAIN])
def test_what_can_be_told_apart_is_held(name: str) -> None:
    text = {**HELD, **PLAIN}[name]
    gbnf = grammar_to_gbnf(Grammar("gbnf", text), param="grammar")
    assert not many(read(gbnf))
    if name in HELD:
        assert many(read(text))


@pytest.mark.parametrize("length", [40, 300])
@pytest.mark.parametrize(
    "body",
    ["s | s s", "s | s s s", "s? s?", 's | s s "c"', 's | s "b" s', "s* s", 's s | "a"', 's | "a" s', 's | s "a"'],
)
def test_rules_that_hold_each_other_and_never_lead_back(body: str, length: int) -> None:
    """Each holds the next in two ways, so there are as many readings as both ways have together, or one more."""
    rules = [f"r{number} ::= {re.sub(r'[s]', f'r{number + 1}', body)}" for number in range(length)]
    text = "\n".join(["root ::= r0", *rules, f'r{length} ::= "a"'])
    if length < 60 and body in {'s | "a" s', 's | s "a"'}:
        grammar_to_gbnf(Grammar("gbnf", text), param="grammar")
    else:
        with pytest.raises(InvalidRequest) as caught:
            grammar_to_gbnf(Grammar("gbnf", text), param="grammar")
        assert caught.value.code == "invalid_grammar"


def test_bounds_that_no_answer_reaches_leave_few_readings_open() -> None:
    """Many programs write the largest number of some type where they mean that there is no bound."""
    most = 2**31 - 1
    schema: JsonObject = {"type": "string", "maxLength": most}
    for _ in range(6):
        schema = {"type": "array", "items": schema, "maxItems": most}
    assert Gbnf(schema_to_gbnf(schema)).accepts('[[[[[["a"]]]]]]')


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_read_in_ever_more_ways_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="ever more ways") as caught:
        grammar_to_gbnf(Grammar("gbnf", REFUSED[name]), param="grammar")
    assert caught.value.code == "invalid_grammar"


@pytest.mark.parametrize("name", [*REFUSED, *PLAIN])
def test_it_is_the_same_wherever_it_stands(name: str) -> None:
    """Behind other texts, of which there are more to follow."""
    inside = re.sub(r"\broot\b", "inside", {**REFUSED, **PLAIN}[name])
    words = " | ".join(f'"{word}" [a-z ]{{0,80}}' for word in ("about", "and", "other", "things", "too"))
    text = f'root ::= ({words}) | "<" [a-z]* ">" [0-9]{{3}} "-" inside "."\n{inside}'
    if name in PLAIN:
        grammar_to_gbnf(Grammar("gbnf", text), param="grammar")
        return
    with pytest.raises(InvalidRequest, match="ever more ways"):
        grammar_to_gbnf(Grammar("gbnf", text), param="grammar")


def test_a_lark_grammar_too() -> None:
    with pytest.raises(InvalidRequest, match="ever more ways"):
        grammar_to_gbnf(Grammar("lark", 'start: "a" start start | "a"'), param="grammar")


def test_alternatives_that_begin_alike_begin_once() -> None:
    gbnf = grammar_to_gbnf(Grammar("gbnf", HELD["named"]), param="grammar")
    grammar = Gbnf(gbnf)
    assert grammar.readings("{L:" * 30) <= 3
    assert grammar.accepts("{L:{L:0,a:1},b:1}")
    assert not grammar.accepts("{L:{L:0,a:1},c:1}")


def node(**kinds: JsonObject) -> JsonObject:
    """A tree of nodes of several kinds, told apart by what comes after their branches."""
    return {
        "$defs": {"node": {"anyOf": [{"type": "integer"}, *kinds.values()]}},
        "$ref": "#/$defs/node",
    }


def kind(**more: JsonObject) -> JsonObject:
    properties: JsonObject = {"left": {"$ref": "#/$defs/node"}, "right": {"$ref": "#/$defs/node"}, **more}
    return {
        "type": "object", "properties": properties, "required": [*properties], "additionalProperties": False
    }  # fmt: skip


def test_a_schema_of_trees_is_held_with_few_readings() -> None:
    schema = node(add=kind(plus={"const": True}), mul=kind(times={"const": True}), pow=kind(power={"type": "integer"}))
    grammar = Gbnf(schema_to_gbnf(schema))
    assert grammar.readings('{"left":' * 30) <= 16
    assert grammar.accepts('{"left":1,"right":{"left":2,"right":3,"power":2},"plus":true}')
    assert not grammar.accepts('{"left":1,"right":2,"minus":true}')


def test_no_schema_that_is_held_keeps_many_readings() -> None:
    for name, schema in ENFORCED.items():
        assert not many(read(schema_to_gbnf(schema))), name


# ------------------------------------------------------------------------------------------------------ the same texts

items = st.sampled_from(['"a"', '"b"', '"ab"', "[ab]", "s", "t"])
rows = st.lists(items, min_size=1, max_size=3).map(" ".join)
bodies = st.lists(rows, min_size=1, max_size=4).map(" | ".join)
TEXTS = ["".join("ab"[number >> bit & 1] for bit in range(size)) for size in range(7) for number in range(1 << size)]


@settings(max_examples=50, deadline=None)
@given(bodies, bodies)
def test_what_begins_once_has_the_same_texts(one: str, other: str) -> None:
    text = f'root ::= s "a" | t\ns ::= "a" | "b" {one}\nt ::= "b" | "a" {other}'
    try:
        found = read(grammar_to_gbnf(Grammar("gbnf", text), param="g"))
    except (InvalidRequest, GrammarError):
        found = read(text)
        try:
            Gbnf(written(found))
        except AssertionError:
            return
    plain, once = Gbnf(written(found)), Gbnf(written(_factored(found)))
    assert [plain.accepts(one) for one in TEXTS] == [once.accepts(one) for one in TEXTS]


@pytest.mark.parametrize("name", [*REFUSED, "doubling", "tree"])
def test_the_search_finds_what_another_reading_confirms(name: str) -> None:
    text = {**REFUSED, **HELD}[name]
    assert _embeds(read(text))
    grammar = Gbnf(written(read(text)))
    ever = {"rows": "a", "palindromes": "a", "optional": "(", "inside": "<", "repeated": "("}
    begin = ever.get(name, "a" if name == "doubling" else "{L:")
    assert grammar.readings(begin * 9) > grammar.readings(begin * 4) > grammar.readings(begin)


@given(st.lists(st.sets(st.sampled_from("abcdefgh"), max_size=3), min_size=8, max_size=8))
def test_rings_are_rules_that_lead_to_each_other(after: list[set[str]]) -> None:
    steps = dict(zip("abcdefgh", after, strict=True))
    reached = {name: {*following} for name, following in steps.items()}
    for _ in steps:
        reached = {name: ways.union(*(reached[way] for way in ways)) for name, ways in reached.items()}
    rings = _rings(steps)
    assert rings.keys() == {name for name in steps if name in reached[name]}
    together = {(one, two) for one in rings for two in rings if rings[one] == rings[two]}
    assert together == {(one, two) for one in rings for two in rings if two in reached[one] and one in reached[two]}
