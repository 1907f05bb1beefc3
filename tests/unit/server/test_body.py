from __future__ import annotations

import json

import pytest

from puna.errors import InvalidRequest
from puna.server.body import dump, dump_text, kind, parse_json


def test_values_come_as_they_are():
    assert parse_json(b'{"a": [1, 2.5, "\\ud83d\\ude00", null, true]}') == {"a": [1, 2.5, "😀", None, True]}
    assert parse_json(b"\xef\xbb\xbf[]") == []
    assert parse_json(b"123456789012345678901234567890") == 123456789012345678901234567890


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"NaN", b"[1e999]", b"9" * 309, b'"\\udc00"', b'"\xc3"', b"[" * 300 + b"]" * 300, b"01", b"1e400"],
)
def test_what_cannot_be_held_is_refused(text):
    with pytest.raises(InvalidRequest) as caught:
        parse_json(text)
    assert caught.value.code is None
    assert "JSON body" in caught.value.message


def test_the_place_is_told():
    with pytest.raises(InvalidRequest, match="line 2 column 3"):
        parse_json(b"[\n  x]")


def test_text_is_kept_and_half_surrogates_do_not_break_it():
    assert dump_text({"a": "ü\n😀"}) == '{"a":"ü\\n😀"}'
    assert dump("\ud800") == b'"?"'
    with pytest.raises(ValueError):
        dump(float("nan"))


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "null"), (True, "a boolean"), (1, "an integer"), (1.5, "a decimal number"), ("", "a string"),
     ([], "an array"), ({}, "an object")],
)  # fmt: skip
def test_kinds_in_words(value, words):
    assert kind(value) == words


def test_long_lists_are_written_in_stretches_and_alike():
    value = {"a": [*range(25_000)], "b": [[0.5] * 12_000, [], {"c": ["\u00e9"] * 10_001}], "d": [], "e": "x", "f": [[]]}
    assert json.loads(dump(value)) == value
    assert dump(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
