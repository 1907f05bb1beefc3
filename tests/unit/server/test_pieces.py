"""A text parsed in pieces is what the parser makes of it at once, or is refused as it refuses it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from puna.server import pieces
from puna.server.pieces import NotJson, parse_in_pieces


def parse(text: bytes) -> Any:
    return from_json(text, allow_inf_nan=False)


@pytest.fixture
def small(monkeypatch):
    """Everything is large."""
    for name, size in {"PIECE": 16, "_WINDOW": 16, "_LONGEST": 1 << 20, "MAX_KEY": 1 << 20}.items():
        monkeypatch.setattr(pieces, name, size)


TEXT = st.text(st.sampled_from('"\\[]{},: aé€😀\n\u2028\ufffd0u'), max_size=60)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXT, inner, max_size=6),
    max_leaves=40,
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 4000), st.sampled_from([*b'"\\[]{},: u0ed', 0xC3, 0xFF]), st.integers(0, 2)), max_size=3
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(TEXT, VALUES, max_size=6), st.booleans(), st.sampled_from([None, 1]), CHANGES)
@example({}, False, None, [(0, 34, 0), (0, 91, 1), (1, 93, 2)])
def test_the_same_value_or_refused_all_the_same(value, ascii_, indent, changes):
    text = json.dumps(value, ensure_ascii=ascii_, indent=indent).encode("utf-8", "replace")
    for place, byte, what in changes:
        at = place % (len(text) + 1)
        text = text[:at] + (b"" if what == 0 else bytes([byte])) + text[at + (what != 1) :]
    try:
        expected = parse(text)
    except ValueError:
        expected = None
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {"PIECE": 16, "_WINDOW": 16, "_LONGEST": 1 << 20, "MAX_KEY": 1 << 20}.items():
            patch.setattr(pieces, name, size)
        if isinstance(expected, dict | list):
            found = parse_in_pieces(text, parse)
            assert found == expected
            assert isinstance(found, type(expected))
            assert [*found] == [*expected]
        else:
            with pytest.raises(NotJson):
                parse_in_pieces(text, parse)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": "' + b"\\ud83d\\ude00" * 9 + b'"}',
        b'{"a": "' + b"\\\\" * 33 + b'"}',
        b'{"a": "x' + b"\\\\" * 33 + b'"}',
        b'{"a": "' + b'\\"' * 33 + b'"}',
        b'{"a": "' + "😀".encode() * 33 + b'"}',
        b'{"a": "' + b"\\\\\\ude00" * 9 + b'"}',
        b'{"a": "\\ud83d' + b"\\ud83d\\ude00" * 9 + b'"}',
        b'{"a": [1, 2, 3, 4, 5, 6, 7, 8, 9,]}',
        b'{"a": [1, 2, 3, 4, 5, 6, , 7, 8, 9]}',
        b'{"a": [[1, 2, 3, 4, 5, 6, 7] [1, 2, 3, 4, 5, 6, 7]]}',
        b'{"a": "xxxxxxxxxxxxxxxxxxxx" "xxxxxxxxxxxxxxxxxxxx"}',
        b'{"a": "xxxxxxxxxxxxxxxxxxxx": 1}',
        b'{"xxxxxxxxxxxxxxxxxxxxxx"}',
        b'{"a": 1, "a": "xxxxxxxxxxxxxxxxxxxxxx", "b": 2, "a": 3}',
        b'["xxxxxxxxxxxxxxxxxxxxxxx"}',
        b'{"a": []} {"b": []}',
        b'{"a": "' + b"x" * 40,
        b"{" + b" " * 40 + b"}",
    ],
)
def test_where_it_could_be_cut_wrongly(small, text):
    try:
        expected = parse(text)
    except ValueError:
        with pytest.raises(NotJson):
            parse_in_pieces(text, parse)
    else:
        assert parse_in_pieces(text, parse) == expected


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (b'{"a": [' + b"0," * 1_000_000 + b"0]}", "1000000 values"),
        (b'{"a": [' + b"[]," * 500_001 + b"0]}", "1000000 values"),
        (b'{"x":[' + b",".join([b"{" + b'"a":0,' * 39_999 + b'"a":0}'] * 13) + b"]}", "500000 members"),
        (b"{" + b'"a":0,' * 50_000 + b'"a":0}', "50000 members"),
        (b'{"' + b"a" * 70_000 + b'":0}', "longer than 65536"),
        (b'{"a": "' + b"x" * 42_000_000 + b'"}', "a text is longer"),
        (b'{"a":' * 200 + b'"' + b"x" * 70_000 + b'"' + b"}" * 200, "128 deep"),
        (b'{"a":' + b" " * 300_000 + b"1}", "white space"),
        (b'{"a": 0.' + b"1" * 300_000 + b"}", "a number"),
        (b'"' + b"x" * 100_000 + b'"', "object"),
        (b"x" * 100_000, "too early"),
    ],
)
def test_limits_are_named(text, limit):
    with pytest.raises(NotJson, match=limit):
        parse_in_pieces(text, parse)


def test_no_call_of_the_parser_is_long():
    texts = [
        b'{"a": "' + b"x" * 1_000_000 + b'", "b": [' + b"1.5," * 100_000 + b"0]}",
        b"{" + b",".join(b'"%d":0' % number for number in range(40_000)) + b"}",
        b'{"a": [' + b",".join([b'{"role":"user","content":"hi"}'] * 20_000) + b"]}",
    ]
    for text in texts:
        calls: list[int] = []

        def counting(piece: bytes) -> Any:
            calls.append(len(piece))  # noqa: B023 - used within this turn
            return parse(piece)

        assert parse_in_pieces(text, counting) == parse(text)
        assert max(calls) < 3 * pieces.PIECE
