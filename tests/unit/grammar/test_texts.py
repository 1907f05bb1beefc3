"""Several patterns, formats and lengths at once, and what they are put together with."""

from __future__ import annotations

import random
import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.gbnf_reader import Gbnf
from puna.grammar import pattern
from puna.grammar.formats import STRING_FORMATS
from puna.grammar.gbnf import Rules
from puna.grammar.regular import Language, Languages, TooManyStates
from puna.grammar.texts import Condition, characters

SHORT_TEXTS = ["".join(letters) for length in range(5) for letters in product("abc", repeat=length)]

pieces = st.recursive(
    st.sampled_from(["a", "b", "c", "[ab]", "[^a]", ".", ""]),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("({}|{})".format, inner, inner),
        st.builds("({}){}".format, inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0,2}"])),
    ),
    max_leaves=6,
)
ahead = st.builds("^(?{}{}){}$".format, st.sampled_from("=!"), pieces, pieces)
later = st.builds("^{}(?{}{}){}$".format, pieces, st.sampled_from("=!"), pieces, pieces)
whole = st.builds("^{}$".format, pieces)


def language(text: str, languages: Languages, *, sure: bool = True) -> Language:
    return pattern.language(pattern.searched(pattern.parse(text)), languages, sure=sure)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(pieces, whole, ahead, later), min_size=1, max_size=3))
def test_what_is_put_together_is_what_keeps_them_all(patterns: list[str]) -> None:
    languages = Languages()
    together = languages.both(language(text, languages) for text in patterns)
    none_of_them = languages.other(languages.either(language(text, languages) for text in patterns))
    rules = Rules()
    written = languages.machine(together, most=3000).expression(rules, lambda chars: chars)
    grammar = Gbnf(rules.text(written)) if rules.can_end(written) else None
    for text in SHORT_TEXTS:
        kept = [re.search(one, text) is not None for one in patterns]
        assert languages.holds(together, text) == all(kept), text
        assert (grammar is not None and grammar.accepts(text)) == all(kept), text
        assert languages.holds(none_of_them, text) == (not any(kept)), text
        assert all(pattern.found(one, text) == is_kept for one, is_kept in zip(patterns, kept, strict=True)), text


CONDITIONS = {
    "two": (["^a", "b$"], [], 0, None, "ab", "ba"),
    "mail": ([r"^[^@]+@example\.org$"], ["email"], 0, None, "ada@example.org", "ada@example.com"),
    "short-mail": ([], ["email"], 0, 50, f"{'a' * 40}@b.org", f"{'a' * 50}@b.org"),
    "longer-mail": ([], ["email"], 0, 100, "ada.lovelace@mail.org", f"{'a' * 100}@b.org"),
    "date": ([r"^20\d\d-"], ["date"], 0, None, "2024-02-29", "1999-01-01"),
    "host": ([r"^(?=.{1,253}\.?$)[a-z]", r"\.org$"], ["hostname"], 0, None, "a.example.org", "1.example.org"),
    "link": (["^https://"], ["uri"], 10, 60, "https://a.org/b?c=d", "http://a.org/bcdef"),
    "long-link": ([], ["uri"], 1, 2083, "https://example.org/a/b?c=d#e", "https://"),
    "length": (["^a*b*c*$"], [], 3, 200, "aabbcc", "ab"),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_all_hold_at_once(name: str) -> None:
    patterns, formats, low, high, yes, no = CONDITIONS[name]
    conditions = [Condition("pattern", text, "#") for text in patterns]
    conditions += [Condition("format", text, "#") for text in formats]
    rules = Rules()
    grammar = Gbnf(rules.text(characters(rules, tuple(conditions), low, high, lambda chars: chars)))
    assert grammar.accepts(yes)
    assert not grammar.accepts(no)
    chance = random.Random(name)
    for _ in range(50):
        text = grammar.walk(chance, 60)
        assert low <= len(text) <= (high or 10_000)
        assert all(re.search(one, text) for one in patterns), text
        # A text that is short may repeat more than one that is written without a length.
        assert len(text) <= 63 or all(re.fullmatch(STRING_FORMATS[one], text) for one in formats), text


def test_a_machine_is_bounded() -> None:
    languages = Languages(limit=2_000)
    with pytest.raises(TooManyStates):
        languages.machine(language("a.{12}b", languages), most=10_000)
    languages = Languages()
    with pytest.raises(TooManyStates):
        languages.machine(language("a.{12}b", languages), most=500)


def test_looking_ahead_takes_no_longer_than_the_text_is_long() -> None:
    assert pattern.found(r"^(?!.*\.\.)[a-z.]+$", "a." * 50_000)
    assert not pattern.found(r"^(?!.*\.\.)[a-z.]+$", "a." * 50_000 + ".")
    assert pattern.found(r"(?=a)[a-z.]+$", "." * 50_000 + "a")


@pytest.mark.parametrize("name", STRING_FORMATS)
def test_what_a_format_writes_is_what_its_values_are_judged_by(name: str) -> None:
    from puna.grammar.schema import conforms, json_text, schema_to_gbnf

    grammar = Gbnf(schema_to_gbnf({"type": "string", "format": name}))
    chance = random.Random(name)
    for _ in range(30):
        text = grammar.walk(chance, 60)
        assert conforms(text, {"format": name}) is None, text
    assert conforms(json_text("\x00 no such thing \x00").text, {"format": name}) is not None or name == "regex"
