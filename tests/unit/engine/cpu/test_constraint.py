"""Grammars against a plain recogniser of the same GBNF, over a small vocabulary whose tokens cut texts in many ways."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from puna.engine.cpu.constraint import GrammarMatcher, Grammars, TokenTable
from puna.engine.cpu.grammar import depth, parse
from puna.errors import InvalidRequest
from puna.grammar.schema import schema_to_gbnf
from puna.types import JsonObject

WORDS = ["ab", "abc", "bc", '{"', '":', '"}', "true", "tr", "name", '"name"', "  ", "12", ", ", "é", "éa", "xx", "☃"]
PIECES = [b"<s>", b"</s>", b"<|end|>", *(bytes([byte]) for byte in range(256)), *(word.encode() for word in WORDS)]
EOS = (1, 2)


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TokenTable(PIECES, frozenset({0, 1, 2}), EOS))


def allowed(matcher: GrammarMatcher) -> set[bytes]:
    return {b"END" if token in EOS else PIECES[token] for token in np.flatnonzero(matcher.mask().allowed())}


def feed(matcher: GrammarMatcher, *texts: str | bytes) -> bool:
    over = False
    for text in texts:
        over = matcher.accept(PIECES.index(text if isinstance(text, bytes) else text.encode()))
    return over


def test_every_way_to_cut_a_forced_text_is_allowed(grammars: Grammars) -> None:
    matcher = grammars.matcher('root ::= "{\\"name\\":" "true"')
    assert allowed(matcher) == {b"{", b'{"'}
    feed(matcher, "{")
    assert allowed(matcher) == {b'"', b'"name"'}
    feed(matcher, '"name"', ":")
    assert allowed(matcher) == {b"t", b"tr", b"true"}


def test_the_end_is_allowed_only_where_the_grammar_may_end(grammars: Grammars) -> None:
    matcher = grammars.matcher('root ::= "ab" "c"?')
    assert b"END" not in allowed(matcher)
    assert not feed(matcher, "a")
    assert allowed(matcher) == {b"b", b"bc"}
    assert not feed(matcher, "b")
    assert allowed(matcher) == {b"c", b"END"}
    assert feed(matcher, "c")


def test_all_ends_are_allowed(grammars: Grammars) -> None:
    matcher = grammars.matcher('root ::= "a"*')
    assert {1, 2} <= set(np.flatnonzero(matcher.mask().allowed()))
    assert 0 not in np.flatnonzero(matcher.mask().allowed())


def test_characters_are_not_taken_greedily(grammars: Grammars) -> None:
    """What a lexer would take as one word may also end before its last letter."""
    matcher = grammars.matcher('root ::= [a-z]+ "x"')
    feed(matcher, "ab", "x")
    assert b"END" in allowed(matcher)


def test_shorter_alternatives_stay_open(grammars: Grammars) -> None:
    matcher = grammars.matcher('root ::= "a" "bd" | "abc"')
    feed(matcher, "ab")
    assert allowed(matcher) == {b"d", b"c"}


def test_half_characters_are_allowed_where_the_whole_is(grammars: Grammars) -> None:
    matcher = grammars.matcher("root ::= [é☃] [a]")
    assert allowed(matcher) == {b"\xc3", b"\xe2", "é".encode(), "éa".encode(), "☃".encode()}
    feed(matcher, b"\xe2", b"\x98")
    assert allowed(matcher) == {b"\x83"}


def test_each_answer_has_its_own_way(grammars: Grammars) -> None:
    first, second = grammars.matcher('root ::= "abc"'), grammars.matcher('root ::= "abc"')
    feed(first, "a")
    assert b"a" in allowed(second)
    assert b"a" not in allowed(first)


GBNF: dict[str, str] = {
    'root ::= "a" | "b"': "a|b",
    'root ::= x{2,3} y\nx ::= [ab]\ny ::= "c"?': "[ab]{2,3}c?",
    '# words\nroot ::= ("a" "b")* # more\n': "(ab)*",
    'root ::= (\n  "a"\n  | "b"\n)+': "(a|b)+",
    'root ::= "a" |\n  "c"': "a|c",
    "root ::= [^a-z]{1}": "[^a-z]",
    "root ::= [\\x61-\\u0063\\]\\-]": r"[a-c\]\-]",
    "root ::= [a-]+": "[a-]+",
    "root ::= .": r"(?s:.)",
    'root ::= "\\"\\\\\\n\\t"': '"\\\\\\\\\\n\\t',
    'root ::= "" | "a"': "|a",
    'root ::= "a"{3}': "aaa",
    'root ::= "a"{2,}': "aa+",
    'root ::= ("a"?)*  ': "a*",
    'root ::= item-1 item_2\nitem-1 ::= "a"\nitem_2 ::= "b"': "ab",
    'root ::= root "a" | "b"': "ba*",
}


@pytest.mark.parametrize("gbnf", GBNF)
def test_a_grammar_takes_the_texts_of_its_pattern_and_no_others(gbnf: str, grammars: Grammars) -> None:
    pattern, source = re.compile(GBNF[gbnf]), random.Random(gbnf)
    for _ in range(150):
        text = "".join(source.choices('abc"\\\n\t]-z', k=source.randrange(5)))
        matcher, taken = grammars.matcher(gbnf), True
        for byte in text.encode():
            if bytes([byte]) not in allowed(matcher):
                taken = False
                break
            feed(matcher, bytes([byte]))
        assert (taken and b"END" in allowed(matcher)) == (pattern.fullmatch(text) is not None), text


def test_what_is_no_grammar_is_refused_with_its_reason(grammars: Grammars) -> None:
    with pytest.raises(InvalidRequest, match="line 1: the rule 'other' is not defined") as caught:
        grammars.matcher("root ::= other")
    assert (caught.value.param, caught.value.code) == ("grammar", "invalid_grammar")


SCHEMAS: list[tuple[JsonObject | None, str, str]] = [
    ({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"],
      "additionalProperties": False}, '{"name":"ab é \\n"}', '{"name":12}'),
    ({"type": "array", "items": {"type": "integer", "minimum": 3, "maximum": 12}, "minItems": 1}, "[3,12]", "[2]"),
    ({"enum": ["a", 1, None, True]}, '"a"', '"b"'),
    ({"type": "string", "maxLength": 3}, '"abc"', '"abcd"'),
    ({"type": "string", "pattern": "^[a-c]+x$"}, '"abx"', '"ab"'),
    ({"anyOf": [{"type": "boolean"}, {"type": "number"}]}, "-1.5e3", "01"),
    (None, '{"a":[true,{"b":null}],"c":1.25}', "[1]"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), SCHEMAS)
def test_schemas_become_grammars_that_hold(schema: JsonObject | None, good: str, bad: str, grammars: Grammars) -> None:
    gbnf = schema_to_gbnf(schema)

    def takes(text: str) -> bool:
        matcher = grammars.matcher(gbnf)
        for byte in text.encode():
            if not matcher.mask().allowed()[PIECES.index(bytes([byte]))]:
                return False
            matcher.accept(PIECES.index(bytes([byte])))
        return b"END" in allowed(matcher)

    assert takes(good)
    assert not takes(bad)


@pytest.mark.parametrize("most", [200, 201, 255, 399, 400, 401])
def test_texts_of_any_length_are_bounded(most: int, grammars: Grammars) -> None:
    matcher = grammars.matcher(schema_to_gbnf({"type": "string", "maxLength": most}))
    feed(matcher, '"', *("x" * (most - 1)))
    assert b"xx" not in allowed(matcher)
    assert {b"x", b'"'} <= allowed(matcher)
    feed(matcher, "x")
    assert allowed(matcher) == {b'"'}


@pytest.mark.parametrize("nothing", ['"b"{0}', '("b" "c"){0,0}', "[b]{0,0}"])
def test_a_count_of_nothing_is_nothing(nothing: str, grammars: Grammars) -> None:
    matcher = grammars.matcher(f'root ::= "a" {nothing} "x"')
    feed(matcher, "a")
    assert allowed(matcher) == {b"x"}


def test_a_character_may_come_in_parts(grammars: Grammars) -> None:
    """After its first byte only one text can follow: that too may come in tokens of any length."""
    matcher = grammars.matcher('root ::= "☃é"')
    assert allowed(matcher) == {b"\xe2", "☃".encode()}
    feed(matcher, b"\xe2")
    assert allowed(matcher) == {b"\x98"}
    feed(matcher, b"\x98", b"\x83", b"\xc3")
    assert allowed(matcher) == {b"\xa9"}
    assert feed(matcher, b"\xa9")


CHAINS = {
    "at the end": '"a" {}',
    "at the beginning": '{} "a"',
    "alone": "{}",
    "in brackets": '("b" | ("c" {})? "a")',
    "repeated": '({}){{1,2}} "a"',
}


@pytest.mark.parametrize("link", CHAINS.values(), ids=CHAINS.keys())
def test_rules_may_lead_to_each_other_as_deep_as_they_like(link: str, grammars: Grammars) -> None:
    """The library compiles a rule inside the one that leads to it: 3,000 overflowed the stack, and all ended."""
    rules = [f"r{number} ::= {link.format(f'r{number + 1}')}" for number in range(8_000)]
    matcher = grammars.matcher("\n".join(["root ::= r0", *rules, 'r8000 ::= "b"']))
    assert allowed(matcher) & {b"a", b"b", b"ab"}


def test_thousands_of_properties_are_held(grammars: Grammars) -> None:
    names = [f"p{number}" for number in range(6_000)]
    schema: JsonObject = {
        "type": "object",
        "properties": {name: {"type": "null"} for name in names},
        "required": [*names],
    }
    gbnf = schema_to_gbnf(schema)
    matcher = grammars.matcher(gbnf)
    feed(matcher, '{"', "p", "0", '":', "n", "u", "l", "l", ", "[:1])
    assert b"}" not in allowed(matcher)


def test_the_depth_is_that_of_rules_and_brackets() -> None:
    assert depth(parse('root ::= "a"')) == 1
    assert depth(parse('root ::= "a" b\nb ::= c | "x"\nc ::= [a-z] b')) == 5
    assert depth(parse('root ::= b c\nb ::= c\nc ::= (("x" "y")? "z")*')) == 5


def test_a_large_vocabulary_and_a_text_of_several_patterns() -> None:
    """The library counts what it looks at for one mask; ten times its own bound was too few."""
    source = random.Random(7)
    words = {"".join(source.choices("cdefghijklmnopqrstuvwxyz", k=source.randint(9, 14))) for _ in range(45_000)}
    pieces = [*PIECES, *(word.encode() for word in sorted(words))]
    large = Grammars(TokenTable(pieces, frozenset({0, 1, 2}), EOS))
    text: JsonObject = {"type": "string", "allOf": [{"pattern": letter} for letter in "abx"]}
    matcher = large.matcher(schema_to_gbnf({"type": "object", "properties": {"name": text}, "required": ["name"]}))
    feed(matcher, "{", '"name"', ":", '"')
    assert matcher.mask().allowed()[len(PIECES) : len(pieces)].all()
