from __future__ import annotations

import random

import pytest

from fakes.gbnf_reader import Gbnf
from puna.grammar.around import after_thinking, not_beginning, renamed, without
from puna.grammar.gbnf import Rules


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
