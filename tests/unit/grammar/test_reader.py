"""What is read, against a plain second reader of the same notation; what is refused, with its place."""

from __future__ import annotations

import pytest

from puna.grammar.gbnf import ANY, Alternation, Chars, Ref, Repeat, Sequence, Terminal
from puna.grammar.reader import GrammarError, read


def test_expressions() -> None:
    assert read('root ::= "a\\n" ("b" | c-1{2,}) # words\nc-1 ::=\n  [^a-z] | .') == {
        "root": Sequence((Terminal("a\n"), Alternation((Terminal("b"), Repeat(Ref("c-1"), 2, None))))),
        "c-1": Alternation((Chars(((0, 96), (123, 0x10FFFF))), ANY)),
    }


@pytest.mark.parametrize(
    ("gbnf", "why"),
    [
        ("", "root"),
        ('start ::= "a"', "root"),
        ('root ::= "a', "ends"),
        ("root ::= [a", "ends"),
        ("root ::= other", "other"),
        ('root ::= "a"\nroot ::= "b"', "second rule"),
        ("root = x", "::="),
        ('root ::= ("a"', r"\)"),
        ('root ::= "\\q"', "escape"),
        ('root ::= "\\x6"', "escape"),
        ('root ::= "\\ud800"', "no character"),
        ("root ::= [z-a]", "counts down"),
        ('root ::= "a"{3,1}', "counts down"),
        ('root ::= "a"{x}', "number"),
        ('root ::= "a"{99999999999999}', "repetition"),
        ("root ::= <think>", "token"),
        ("root ::= []", "matches nothing"),
        ("root ::= [^\\x00-\\U0010FFFF]", "matches nothing"),
        ("root ::= [^\\x00-\\uD7FF\\uE000-\\U0010FFFF]", "matches nothing"),
        ('root ::= "\ud800"', "no character"),
        ('root ::= "a"' + "*" * 5000, "parentheses"),
        ("root ::= " + "(" * 500 + '"a"' + ")" * 500, "deep"),
        ('root ::= "a" )', "end of the rule"),
        ('root ::= "a"\n  "c"', "name"),
    ],
)
def test_what_is_no_grammar_is_refused_with_its_reason(gbnf: str, why: str) -> None:
    with pytest.raises(GrammarError, match=why):
        read(gbnf)


def test_an_error_tells_the_line() -> None:
    with pytest.raises(GrammarError, match="line 3"):
        read('root ::= a\na ::= "x"\nb ::= "')
