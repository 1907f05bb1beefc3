from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.gbnf_reader import Gbnf
from puna.grammar.gbnf import (
    MAX_RULES,
    Chars,
    GrammarTooLarge,
    NoAnswer,
    Rules,
    Terminal,
    but,
    chars,
    choice,
    complement,
    contains,
    intersection,
    optional,
    seq,
    union,
)

A = chars("a")

# -------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0), (0, 1), (2, 2), (3, 5), (0, 300), (250, 900), (401, 401), (0, 45_000)]
)
def test_repetitions_count_exactly(low: int, high: int) -> None:
    rules = Rules()
    grammar = Gbnf(rules.text(seq(rules.repeat(A, low, high), Terminal("."))))
    for count in {0, 1, low - 1, low, low + 1, (low + high) // 2, high - 1, high, high + 1, high + 200}:
        if 0 <= count <= 1200:
            assert grammar.accepts("a" * count + ".") == (low <= count <= high), count


@pytest.mark.parametrize("high", [199, 200, 201, 255, 399, 400, 401, 40_000, 40_001, 79_999, 80_000])
def test_no_count_of_nothing_is_written(high: int) -> None:
    """One of the two engines' libraries refuses `{0,0}`."""
    rules = Rules()
    text = rules.text(rules.repeat(A, 0, high))
    assert re.search(r"\{0(,0)?\}", text) is None


def test_large_counts_stay_small_and_under_llama_cpps_limit() -> None:
    rules = Rules()
    text = rules.text(rules.repeat(A, 7, 10**9))
    assert len(text) < 3_000
    assert max(int(number) for number in re.findall(r"\d+", re.sub(r"[a-z]+-\d+", "", text))) < 2000


def test_what_can_never_end_is_left_out() -> None:
    rules = Rules()
    loop = rules.reserve("loop")
    rules.define(loop, seq(Terminal("a"), loop))
    assert rules.text(choice(loop, Terminal("b"))) == 'root ::= "b"\n'
    assert rules.text(seq(Terminal("b"), optional(loop))) == 'root ::= "b"\n'
    with pytest.raises(NoAnswer):
        rules.text(seq(Terminal("b"), loop))
    assert not rules.can_end(loop)


def test_whether_a_rule_can_end_is_found_from_what_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tool of many asks it; looking at the rules of all of them each time took a minute for a thousand tools."""
    rules = Rules()
    for count in range(1000):
        rules.add(Terminal(f"tool {count}"))
    looked: list[str] = []
    body = Rules._body
    monkeypatch.setattr(Rules, "_body", lambda self, name: looked.append(name) or body(self, name))
    assert rules.can_end(rules.add(seq(Terminal("last"), rules.add(A))))
    assert 0 < len(looked) < 20


def test_characters_are_written_as_both_readers_know_them() -> None:
    rules = Rules()
    hard = '"\\]^-[/&~|{}()\n\t\r é中😀\u2028\x7f'
    grammar = Gbnf(rules.text(seq(chars(hard), but((ord(c), ord(c)) for c in hard), Terminal(hard))))
    for char in hard:
        assert grammar.accepts(f"{char}x{hard}")
        assert not grammar.accepts(f"x{char}{hard}")


def test_a_grammar_has_an_upper_size() -> None:
    rules = Rules()
    for number in range(MAX_RULES):
        rules.add(Terminal(str(number)))
    with pytest.raises(GrammarTooLarge):
        rules.add(Terminal("more"))
    with pytest.raises(GrammarTooLarge):
        Rules().text(Terminal("x" * 3_000_000))


def test_endless_reading_is_found() -> None:
    rules = Rules()
    first, second = rules.reserve("first"), rules.reserve("second")
    rules.define(first, seq(optional(A), second))
    rules.define(second, choice(Terminal("b"), seq(first, Terminal("c"))))
    assert rules.endless() in (first.name, second.name)
    fine = Rules()
    again = fine.reserve("again")
    fine.define(again, choice(Terminal("b"), seq(Terminal("c"), again)))
    assert fine.endless() is None


ranges = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair))), max_size=5
)


@given(ranges, ranges)
def test_sets_of_characters(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    def members(found: tuple[tuple[int, int], ...]) -> set[int]:
        return {code for low, high in found for code in range(low, min(high, 100) + 1)}

    one, other = union(left), union(right)
    assert members(one) == {code for low, high in left for code in range(low, high + 1)}
    assert members(intersection(one, other)) == members(one) & members(other)
    assert intersection(one, other) == union(intersection(one, other))
    assert members(complement(one)) == set(range(101)) - members(one)
    assert {code for code in range(101) if contains(one, code)} == members(one)


def test_a_class_of_every_character() -> None:
    rules = Rules()
    assert Gbnf(rules.text(Chars(complement(())))).accepts("中")
