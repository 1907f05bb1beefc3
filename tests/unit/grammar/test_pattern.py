from __future__ import annotations

import random
import re
import unicodedata

import pytest

from fakes.gbnf_reader import Gbnf
from puna.grammar.gbnf import Rules
from puna.grammar.pattern import PatternError, expression, found, lengths, matches, parse, searched, whole, within
from puna.grammar.properties import property_ranges

PATTERNS = [
    *(
        "a",
        "ab|cd",
        "a*b+c?",
        "(ab)*",
        "(a|b)*c",
        "[a-c]{2,3}",
        "[^a-z]",
        ".",
        "x{3}",
        "x{2,}",
        "a{0}b",
        "(a?b?)*",
        "(|a)+",
    ),
    *(
        r"\d{1,3}(,\d{3})*",
        r"\w+@\w+\.com",
        r"[\w.-]+",
        r"\s\S",
        r"\D\W",
        r"[\d-]",
        r"[a\-z]",
        r"[^\s\d]",
        r"\x41\u0042",
    ),
    *(
        "(?:a|(?:b|c)d)e",
        "a+?b*?",
        "[]x]?"[2:],
        "{",
        "a{x}",
        r"\.\*\[\]\{\}\(\)\\\/\^\$",
        "[.*^$(]",
        "(a{2}){2}",
        "é中😀",
    ),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_text_of_the_grammar_matches_in_python_too(pattern: str) -> None:
    node = whole(parse(pattern))
    rules = Rules()
    grammar = Gbnf(rules.text(expression(node, rules, lambda chars: chars)))
    chance = random.Random(pattern)
    shortest, longest = lengths(node)
    for _ in range(40):
        text = grammar.walk(chance, 20)
        assert re.fullmatch(pattern, text), text
        assert matches(node, text)
        assert shortest <= len(text)
        assert longest is None or len(text) <= longest


@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern.isascii()])
def test_matching_agrees_with_pythons(pattern: str) -> None:
    alphabet = "abcdexX19 ,.@-_[]{}\\/*^$("
    chance = random.Random(pattern)
    node = searched(parse(pattern))
    for _ in range(300):
        text = "".join(chance.choice(alphabet) for _ in range(chance.randint(0, 5)))
        assert matches(node, text) == bool(re.search(pattern, text)), text


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("^a", "abc", "ba"),
        ("a$", "cba", "ab"),
        ("^(a|b)$", "a", "ab"),
        ("^a|b$", "xb", "xa"),
        ("(^|,)x", "a,x", "ax"),
        ("x(,|$)", "x", "xa"),
        ("^$", "", "a"),
        ("^", "anything", None),
    ],
)
def test_anchors_at_the_ends(pattern: str, yes: str, no: str | None) -> None:
    node = searched(parse(pattern))
    rules = Rules()
    grammar = Gbnf(rules.text(expression(node, rules, lambda chars: chars)))
    assert matches(node, yes)
    assert grammar.accepts(yes)
    if no is not None:
        assert not matches(node, no)
        assert not grammar.accepts(no)


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(a",
            "a)",
            "[a",
            "*a",
            "a**",
            "a{3,2}",
            "(?=a)*",
            "(?:(?=a)a)*",
            "(?<!a)",
            "(?i)a",
            "(?P=n)",
            "(?<1>a)",
            "(?<n>a)(?<n>b)",
            r"\1",
            r"\bx",
            r"\p{Klingon}",
            r"\pL",
            r"\ud83d",
        ),
        *(
            "a$b",
            "(a^)b",
            "(a$)*",
            "^*",
            "a++",
            "[z-a]",
            r"[\d-z]",
            "[[:alpha:]]",
            "[]",
            "x{,3}",
            "\\",
            r"\q",
            "x{999999999}",
        ),
        *("(" * 60 + ")" * 60, "a" * 5000),
    ],
)
def test_what_cannot_be_held_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        searched(parse(pattern))


@pytest.mark.parametrize(
    ("pattern", "low", "high"),
    [
        ("[a-z]+", 3, 6),
        ("[a-z][a-z0-9]*", 0, 4),
        ("(ab)*", 3, 7),
        ("a{2,9}|b*", 4, 5),
        ("ab", 0, 9),
        ("x-(\\d+)", 4, None),
    ],
)
def test_a_pattern_within_a_length(pattern: str, low: int, high: int | None) -> None:
    node = within(whole(parse(pattern)), low, high)
    chance = random.Random(pattern)
    for length in range(12):
        for _ in range(60):
            text = "".join(chance.choice("abx-1") for _ in range(length))
            expected = re.fullmatch(pattern, text) is not None and low <= length and (high is None or length <= high)
            assert matches(node, text) == expected, text


def test_matching_takes_bounded_time() -> None:
    assert not matches(searched(parse("^(a+)+$")), "a" * 400 + "b")


@pytest.mark.parametrize(
    "text",
    [
        r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
        r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,3}|(?=[\d.]{1,6}0*$)\d{0,3}\.\d{0,2}0*$)",
        r"^(?=.*\d)(?!.*--)[-+.\d]{2,5}$",
        r"\d(?!\.)",
        r"^(?:(?=\d)\d|-)?\.$",
    ],
)
def test_looking_ahead_agrees_with_pythons(text: str) -> None:
    chance = random.Random(text)
    for _ in range(1000):
        value = "".join(chance.choice("01.-+") for _ in range(chance.randint(0, 8)))
        assert found(text, value) == bool(re.search(text, value)), value


@pytest.mark.parametrize("name", ["L", "Lu", "Nd", "Z", "Zs", "M"])
def test_a_category_has_the_characters_that_this_python_puts_there(name: str) -> None:
    found = property_ranges(name)
    assert found is not None
    sure, maybe = ({code for low, high in ranges for code in range(low, high + 1)} for ranges in found)
    by_code = [unicodedata.category(chr(code)) for code in range(0x110000)]
    assert sure == {code for code, kind in enumerate(by_code) if kind.startswith(name)}
    assert maybe == sure | {code for code, kind in enumerate(by_code) if kind == "Cn"}
