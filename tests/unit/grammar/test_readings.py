"""Patterns and grammars that can be read in ever more ways: the same texts, with few readings open at once."""

from __future__ import annotations

import json
import random
import re
from itertools import product

import llguidance
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakes.gbnf_reader import Gbnf
from puna.engine.cpu import constraint
from puna.engine.cpu.constraint import Grammars, TokenTable
from puna.errors import InvalidRequest
from puna.grammar import pattern, readings
from puna.grammar.around import after_thinking
from puna.grammar.formats import STRING_FORMATS
from puna.grammar.gbnf import Rules
from puna.grammar.schema import schema_to_gbnf
from puna.grammar.written import grammar_to_gbnf
from puna.types import Grammar

PIECES = [b"<s>", b"</s>", *(bytes([byte]) for byte in range(256)), b"ab", b"bc", b", ", b" a"]
VOCABULARY = TokenTable(PIECES, frozenset({0, 1}), (1,))
FEW_ROWS = 300
"""Parts that the constraint library may have open at a character: less than the texts here are long."""

MANY = {
    "(.*,.*){2}": "ab, cd,",
    r"^.*\d+.*\w+.*$": "a1 b2 c",
    r"^(\w+\s?)*$": "ab c ",
    "(.*a.*b.*c.*){5}": "abc x cba",
    "^(a*)*$": "aa",
    "^(a?b?)*$": "abba",
    "^(a|aa|aaa)*$": "aaaa",
    ".*foo.*": "fo foo",
    r"^(\s*\w+\s*)*$": " a b",
    r"^(https?://)?([\da-z.-]+)\.([a-z.]{2,6})([/\w .-]*)*/?$": "a.bc/d",
    "^(.{0,400},){0,300}$": "a, b,",
    "^[a-c]*a[a-c]{6}[a-c]*$": "abcabca",
    "^.{0,100000}a.{100000}$": "a",
}
FEW = [
    "^a*b*$",
    "^[^,]*,[^,]*$",
    r"^(\w{1,63}\.){1,8}\w{2,63}$",
    '^("[^"]*",)*$',
    "^(ab|ac|b)*$",
    "^[a-z]*[0-9]{4}[a-z]*$",
    "^.{0,40},.{0,20}$",
    "^[0-9]{1,9}$",
    "^[a-z]{5000}$",
]


def many(text: str) -> bool:
    return readings.many(pattern.searched(pattern.parse(text)), Rules())


@pytest.mark.parametrize("text", MANY)
def test_what_can_be_read_in_ever_more_ways(text: str) -> None:
    assert many(text)


@pytest.mark.parametrize("text", FEW)
def test_what_can_not(text: str) -> None:
    assert not many(text)


@pytest.mark.parametrize("name", STRING_FORMATS)
def test_no_format_can(name: str) -> None:
    assert not readings.many(pattern.whole(pattern.parse(STRING_FORMATS[name])), Rules())


@pytest.mark.parametrize("text", ["^" + "a?" * 30 + "b$", "^" + "a?b?" * 16 + "c$", "^" + "([ab]|[bc]|b)" * 40 + "$"])
def test_what_can_be_read_in_very_many_ways_within_a_token(text: str) -> None:
    assert many(text)
    assert readings.spread(pattern.whole(pattern.parse(text.strip("^$"))))


@pytest.mark.parametrize(
    "text", ["a?" * 8 + "b", "a?b?c?d?" * 2, "(" + "|".join(f"aaaa-{n}" for n in range(400)) + ")"]
)
def test_what_is_read_in_few_ways_within_a_token(text: str) -> None:
    assert not readings.spread(pattern.whole(pattern.parse(text)))


def test_a_long_row_of_what_may_be_nothing_is_refused_in_words() -> None:
    with pytest.raises(InvalidRequest, match="too large"):
        schema_to_gbnf({"type": "string", "pattern": "^" + "a?" * 600 + "a*a*$"})


def follow(gbnf: str, text: str, monkeypatch: pytest.MonkeyPatch, *, rows: int = FEW_ROWS) -> None:
    """The library takes all of `text` with at most `rows` parts open at each character; InvalidRequest if not."""
    limits = llguidance.LLParserLimits(max_items_in_row=rows, step_max_items=2_000_000, verbose_errors=False)
    monkeypatch.setattr(constraint, "LIMITS", limits)
    matcher = Grammars(VOCABULARY).matcher(gbnf)
    for byte in text.encode():
        token = PIECES.index(bytes([byte]))
        assert matcher.mask().allowed()[token], chr(byte)
        matcher.accept(token)


def grammars_of(text: str) -> dict[str, tuple[str, str]]:
    """Its GBNF as a schema's pattern, inside a list too, and as a caller's expression; what stands before its text."""
    return {
        "schema": (schema_to_gbnf({"type": "string", "pattern": text}), '"'),
        "list": (schema_to_gbnf({"type": "array", "items": {"type": "string", "pattern": text}}), '["'),
        "caller": (grammar_to_gbnf(Grammar("regex", text), param="grammar"), ""),
    }


@pytest.mark.parametrize("kind", ["schema", "list", "caller"])
@pytest.mark.parametrize("text", [text for text in MANY if "00" not in text])
def test_a_token_is_no_dearer_than_the_last(kind: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gbnf, before = grammars_of(text)[kind]
    follow(gbnf, before + MANY[text] * (600 // len(MANY[text])), monkeypatch)
    assert Gbnf(gbnf).readings(before + MANY[text] * 20) <= 12


def test_as_it_stands_a_token_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules()
    plain = rules.text(pattern.expression(pattern.parse("(.*,.*){2}"), rules, lambda allowed: allowed))
    with pytest.raises(InvalidRequest, match="Current row has"):
        follow(plain, "ab, cd," * 80, monkeypatch)
    rules = Rules()
    plain = rules.text(pattern.expression(pattern.parse("(.*a.*b.*c.*){5}"), rules, lambda allowed: allowed))
    assert Gbnf(plain).readings("abc x cba" * 20) > 12


def test_a_thought_of_any_length_costs_a_token_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    gbnf = after_thinking(schema_to_gbnf({"type": "integer"}), "<think>", "</think>")
    follow(gbnf, "<think>" + "is a < b? </thin " * 40 + "</think>\n12", monkeypatch)


CALLERS = {
    "gbnf": Grammar("gbnf", 'root ::= line line\nline ::= [a-c,]* "," [a-c,]*'),
    "inside": Grammar("gbnf", 'root ::= "(" [a-c,]* "," [a-c,]* ")" | "[" root "]"'),
    "named": Grammar("gbnf", 'root ::= "(" any any any ")" | "[" root "]"\nany ::= [a-c,]*'),
    "lark": Grammar("lark", 'start: WORDS "," WORDS "," WORDS\nWORDS: /[a-c,]*/'),
}


@pytest.mark.parametrize("name", CALLERS)
def test_callers_grammars_are_told_apart_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gbnf = grammar_to_gbnf(CALLERS[name], param="grammar")
    text = "ab,c" * 150
    text = text if name in ("gbnf", "lark") else f"[({text})]"
    follow(gbnf, text, monkeypatch)
    assert Gbnf(gbnf).accepts("a,b,c" if name in ("gbnf", "lark") else "[(a,,b)]")
    assert not Gbnf(gbnf).accepts("a" if name in ("gbnf", "lark") else "[(ad)]")


TOO_LARGE = r"^(.*[ab].{20}.*c){2}$"


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("regex", TOO_LARGE),
        Grammar("gbnf", 'root ::= part part\npart ::= [a-z]* [ab] [a-z]{20} [a-z]* "c"'),
        Grammar("lark", f"start: /{TOO_LARGE[1:-1]}/"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_by_name(grammar: Grammar) -> None:
    with pytest.raises(InvalidRequest, match="too many to tell apart") as caught:
        grammar_to_gbnf(grammar, param="grammar")
    assert (caught.value.code, caught.value.param) == ("invalid_grammar", "grammar")


def test_of_a_schema_repetitions_are_cut_shorter_instead() -> None:
    gbnf = schema_to_gbnf({"type": "string", "pattern": TOO_LARGE})
    for seed in range(20):
        assert re.fullmatch(TOO_LARGE, json.loads(Gbnf(gbnf).walk(random.Random(seed), 200)))


# ------------------------------------------------------------------------------------------------ the same texts

TEXTS = ["".join(letters) for length in range(4) for letters in product("abc", repeat=length)]
pieces = st.recursive(
    st.sampled_from(["a", "b", "c", "[ab]", "[^a]", ".", "", "a*", "[ab]*", ".*"]),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("({}|{})".format, inner, inner),
        st.builds("({}){}".format, inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}", "{0,90}"])),
    ),
    max_leaves=8,
)


def written(grammar: Grammar) -> str | None:
    """None: it cannot be told apart how its texts are read."""
    try:
        return grammar_to_gbnf(grammar, param="grammar")
    except InvalidRequest as refusal:
        if "too many to tell apart" in refusal.message:
            return None
        raise


def held(pattern: str) -> str | None:
    """None: it costs too much to hold where it may stand anywhere in a text."""
    try:
        return schema_to_gbnf({"type": "string", "pattern": pattern})
    except InvalidRequest as refusal:
        if "its grammar would be too large" in refusal.message:
            return None
        raise


@settings(max_examples=30, deadline=None)
@example("(((.*){0,90}|(.*){0,90}))*")
@given(pieces)
def test_a_pattern_has_the_same_texts_however_it_is_written(text: str) -> None:
    anywhere = held(text)
    found = Gbnf(anywhere) if anywhere is not None else None
    gbnf = written(Grammar("regex", text))
    whole = Gbnf(gbnf) if gbnf is not None else None
    for one in TEXTS:
        assert found is None or found.accepts(f'"{one}"') == (re.search(text, one) is not None), one
        assert whole is None or whole.accepts(one) == (re.fullmatch(text, one) is not None), one


@settings(max_examples=100, deadline=None)
@given(pieces)
def test_a_callers_rules_have_the_same_texts_however_they_are_written(text: str) -> None:
    rules = Rules()
    body = pattern.expression(pattern.whole(pattern.parse(text)), rules, lambda allowed: allowed)
    plain = rules.text(body)
    adopted = written(Grammar("gbnf", plain))
    if adopted is None:
        return
    left, right = Gbnf(plain), Gbnf(adopted)
    assert [left.accepts(one) for one in TEXTS] == [right.accepts(one) for one in TEXTS]


@settings(max_examples=40, deadline=None)
@example("(((cc){0,90}){1,3}|((c){0,90}){1,3})", 2**32)
@given(pieces, st.integers(0, 2**32))
def test_of_what_is_not_refused_no_token_is_dearer_than_the_last(text: str, seed: int) -> None:
    """What grows with each token has more items than LONG_RUN, up to which counts may add some, before so many end."""
    gbnf = written(Grammar("regex", text))
    if gbnf is None:
        return
    chance = random.Random(seed)
    limits = llguidance.LLParserLimits(
        max_items_in_row=readings.LONG_RUN, step_max_items=2_000_000, verbose_errors=False
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constraint, "LIMITS", limits)
        matcher = Grammars(VOCABULARY).matcher(gbnf)
        for _ in range(readings.LONG_RUN + 100):
            ways = [
                PIECES.index(letter) for letter in (b"a", b"b", b"c") if matcher.mask().allowed()[PIECES.index(letter)]
            ]
            if not ways:
                break
            matcher.accept(chance.choice(ways))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), max_size=3), min_size=4, max_size=4),
       st.sets(st.integers(0, 3), min_size=1))  # fmt: skip
def test_rules_that_end_in_rules_have_the_same_texts_turned_round(
    steps: list[list[tuple[str, int]]], ends: set[int]
) -> None:
    """Rules that only go on with each other in their last part, against the states that they are."""
    options = [
        [f'"{letter}" r{to}' for letter, to in ways] + ['""'] * (number in ends) for number, ways in enumerate(steps)
    ]
    lines = [f"r{number} ::= " + " | ".join([*ways, '"z"']) for number, ways in enumerate(options)]
    gbnf = "\n".join(['root ::= "c"? r0', *lines])
    grammars = Grammars(VOCABULARY)
    for text in ("", "a", "b", "ab", "ba", "aab", "abab", "bbba", "caabb"):
        states = {0}
        matcher, taken = grammars.matcher(gbnf), True
        for letter in text:
            allowed = matcher.mask().allowed()
            if not allowed[PIECES.index(letter.encode())]:
                taken = False
                break
            matcher.accept(PIECES.index(letter.encode()))
        for letter in text.removeprefix("c"):
            states = {to for state in states for way, to in steps[state] if way == letter}
        assert (taken and bool(matcher.mask().allowed()[1])) == bool(states & ends), text


def test_masks_are_those_of_the_same_grammar_the_other_way_round() -> None:
    right, left = 'root ::= r\nr ::= "a" r | "b" s | ""\ns ::= "c" r', 'root ::= "" | root "a" | root "bc"'
    for text in ("", "a", "aab", "abca", "bcb"):
        masks = []
        for gbnf in (right, left):
            matcher = Grammars(VOCABULARY).matcher(gbnf)
            for letter in text:
                matcher.accept(PIECES.index(letter.encode()))
            masks.append(matcher.mask().allowed())
        assert np.array_equal(*masks), text
