from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.gbnf_reader import Gbnf
from puna.grammar.gbnf import NEVER, Expression, Rules
from puna.grammar.numbers import Bounds, decimals, fractions, integers

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
