from __future__ import annotations

import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.gbnf_reader import Gbnf
from puna.chat.grammar import after_thinking, grammar_to_gbnf, not_beginning, renamed, without
from puna.chat.numbers import Bounds, decimals, fractions, integers
from puna.errors import InvalidRequest
from puna.grammar.gbnf import (
    NEVER,
    Expression,
    Rules,
)
from puna.types import Grammar

# ------------------------------------------------------------------------------------------------------------ numbers

numbers = st.decimals(-3500, 3500, places=2, allow_nan=False)
bounds_drawn = st.builds(Bounds, st.none() | numbers, st.none() | numbers, st.booleans(), st.booleans())


def grammar_of(rules: Rules, body: Expression | None) -> Gbnf | None:
    assert body is not None
    return None if body == NEVER or not rules.can_end(body) else Gbnf(rules.text(rules.add(body)))


def accepts(grammar: Gbnf | None, text: str) -> bool:
    return grammar is not None and grammar.accepts(text)


@settings(max_examples=60, deadline=None)
@given(bounds_drawn, st.sampled_from([1, 2, 7, 10, 60]), st.lists(numbers, min_size=5, max_size=10))
def test_numbers_within_bounds_and_no_others(bounds: Bounds, step: int, drawn: list[Decimal]) -> None:
    rules = Rules()
    whole = grammar_of(rules, integers(rules, bounds, step))
    broken = grammar_of(rules, decimals(bounds))
    twentieths = grammar_of(rules, fractions(bounds, Decimal("0.05")))
    near = [
        n for b in (bounds.low, bounds.high) if b is not None for n in (b, b + Decimal("0.01"), b - Decimal("0.01"))
    ]
    for number in [*near, *drawn, Decimal(0)]:
        inside = not bounds.meet(Bounds(number, number)).empty
        text = f"{abs(number):f}" if number == 0 else f"{number:f}"
        assert accepts(broken, text) == inside, text
        assert accepts(twentieths, text) == (inside and number % Decimal("0.05") == 0), text
        if number == int(number):
            assert accepts(whole, str(int(number))) == (inside and int(number) % step == 0), text


@pytest.mark.parametrize("text", ["-0", "00", "01", "1.", ".5", "+1", "1e", "", "-"])
def test_what_is_no_json_number_is_in_no_grammar(text: str) -> None:
    for bounds in (Bounds(), Bounds(low=Decimal(-5)), Bounds(Decimal("-0.5"), Decimal("0.5"))):
        rules = Rules()
        assert not accepts(grammar_of(rules, integers(rules, bounds)), text)
        assert text == "-0" or not accepts(grammar_of(rules, decimals(bounds)), text)


def test_open_numbers_have_a_bounded_length() -> None:
    rules = Rules()
    grammar = grammar_of(rules, integers(rules, Bounds()))
    assert accepts(grammar, "9" * 15)
    assert not accepts(grammar, "9" * 16)


# --------------------------------------------------------------------------------------------------------- text, marks


@pytest.mark.parametrize("mark", ["<tool_call>", "aab", "aabaab", "x", "</think>"])
def test_text_without_a_mark(mark: str) -> None:
    rules = Rules()
    grammar = Gbnf(rules.text(rules.add(without(rules, mark))))
    chance = random.Random(mark)
    for _ in range(200):
        text = "".join(chance.choice([*mark, mark[:2], "é"]) for _ in range(chance.randint(0, 14)))
        assert grammar.accepts(text) == (mark not in text), text
        assert not grammar.accepts(text + mark)


def test_text_that_does_not_begin_so() -> None:
    rules = Rules()
    grammar = Gbnf(rules.text(rules.add(not_beginning(rules, '{"name":"'))))
    for text in ("", "{", "hello", '{"age": 1}', '{ "nam', "[]", ' x{"name":"'):
        assert grammar.accepts(text), text
    for text in ('{"name":"', ' {"name": "add"', '{\n"name" :"x'):
        assert not grammar.accepts(text), text


def test_a_thought_comes_first() -> None:
    answer = 'root ::= "yes" | no\nno ::= [n] "o"\n'
    opened = Gbnf(after_thinking(answer, None, "</think>"))
    assert opened.accepts("hm < yes </think>\n\nyes")
    assert opened.accepts("</think>no")
    assert not opened.accepts("yes")
    either = Gbnf(after_thinking(answer, "<think>", "</think>"))
    assert either.accepts("<think>\nhm</think>no")
    assert either.accepts("no")
    assert not either.accepts("<think>no")


def test_renaming_leaves_texts_and_classes_alone() -> None:
    assert renamed('root ::= "root" a{2,3} [a-z] # a\na ::= "\\"a"', "x-") == (
        'x-root ::= "root" x-a{2,3} [a-z] # a\nx-a ::= "\\"a"'
    )


# ---------------------------------------------------------------------------------------------------- callers' grammars


@pytest.mark.parametrize(
    ("grammar", "yes", "no"),
    [
        (Grammar("gbnf", 'root ::= "a" b*\nb ::= [0-9]'), "a12", "b"),
        (Grammar("gbnf", 'root ::= a_1{2} ("x"{2})? [^b]\na_1 ::= "é\\x41" # why not'), "éAéAxxx", "éAéAb"),
        (Grammar("gbnf", 'root ::= "a"{2500} | [-a-c\\]]'), "]", "a" * 2000),
        (Grammar("gbnf", 'root ::= "a"{2500} | "b"'), "a" * 2500, "a" * 2501),
        (Grammar("gbnf", 'root ::= ("a" | )\n  \nb ::= "never used"'), "", "b"),
        (Grammar("regex", "^(red|green)$"), "red", "reddish"),
        (Grammar("regex", '"[^"]*"'), '"x"', "x"),
        (Grammar("lark", 'start: "a" ["b"] (C | "d")~1..2\nC: /c+/\n'), "abccd", "ab"),
        (
            Grammar("lark", '?start: pair ("," pair)*\npair: KEY "=" INT -> p\nKEY: "a".."f"+\n%import common.INT'),
            "ab=12",
            "g=1",
        ),
        (Grammar("lark", 'start: "x"i\n  | y // or y\ny.2: "(" start ")"'), "(X)", "()"),
        (Grammar("lark", "start: WORD\n%import common (WORD, INT)\n"), "word", "12"),
    ],
)
def test_a_callers_grammar(grammar: Grammar, yes: str, no: str) -> None:
    read = Gbnf(grammar_to_gbnf(grammar, param="grammar"))
    assert read.accepts(yes)
    assert not read.accepts(no)


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        (Grammar("gbnf", 'start ::= "a"'), "'root'"),
        (Grammar("gbnf", "root ::= b"), "line 1: the rule 'b' is not defined"),
        (Grammar("gbnf", 'root ::= "a"\nb ::= "a'), "line 2, at 'the end'"),
        (Grammar("gbnf", ""), "'root'"),
        (Grammar("gbnf", 'root ::= x\nx ::= root "a" | "b"'), "begins with itself"),
        (Grammar("gbnf", 'root ::= x y\nx ::= "a"?\ny ::= x y "b"'), "the rule 'y' begins with itself"),
        (Grammar("gbnf", 'root ::= ("a"?)*'), "the rule 'root' begins with itself, or repeats what may be nothing"),
        (Grammar("gbnf", 'root ::= "a" root'), "no text matches"),
        (Grammar("gbnf", 'root ::= "a"{0,1000000000}'), "line 1, at '}': a repetition over 20000"),
        (Grammar("gbnf", 'root ::= "a"\nroot ::= "b"'), "a second rule named root"),
        (Grammar("gbnf", 'root ::= "' + "a" * 200_000 + '"'), "more than 200000 characters"),
        (Grammar("gbnf", "root ::= <think>"), "token"),
        (Grammar("regex", "(?=a)"), "look-ahead"),
        (Grammar("lark", 'a: "b"'), "'start'"),
        (Grammar("lark", "start: b"), "'b' is not defined"),
        (Grammar("lark", 'start: start "a" | "b"'), "begins with itself"),
        (Grammar("lark", 'start: ("a"?)*'), "repeats what may be nothing"),
        (Grammar("lark", 'start: "a"\n%ignore " "'), "%ignore"),
        (Grammar("lark", "start: /a/i"), "flags"),
        (Grammar("lark", "start: X\n%import common.CPP_COMMENT"), "CPP_COMMENT"),
        (Grammar("lark", 'start: "a" start'), "no text matches"),
        (Grammar("lark", 'start: ("a"'), "line 1"),
    ],
)
def test_a_grammar_that_cannot_be_used_is_refused(grammar: Grammar, said: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        grammar_to_gbnf(grammar, param="grammar")
    assert said in refusal.value.message
    assert refusal.value.code == "invalid_grammar"
