from __future__ import annotations

import pytest

from fakes.gbnf_reader import Gbnf
from puna.errors import InvalidRequest
from puna.grammar.written import grammar_to_gbnf
from puna.types import Grammar


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
