from __future__ import annotations

import json
import threading

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from puna.errors import InvalidRequest
from puna.server.body import JsonReply, dump, dump_text, kind, parse_json


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


WIDE = st.recursive(
    st.integers() | st.text(max_size=3) | st.sampled_from(["x" * 2_000_000, None, True, 0.5]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=2), inner, max_size=4),
        st.tuples(
            st.sampled_from([["a"] * 30_000, [{"b": [1]}] * 9_000, [0.5] * 15_000, ["y" * 900_000] * 3]), inner
        ).map(list),
    ),
    max_leaves=6,
)


@example([0.5, "x" * 2_000_000, "x" * 2_000_000])
@settings(max_examples=60, deadline=None)
@given(WIDE)
def test_no_stretch_of_an_answer_is_long(value):
    """Nothing else runs while the encoder does."""
    written = []

    def encoded(part):
        written.append(dump_text(part))
        return written[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("puna.server.body.dump_text", encoded)
        assert dump(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    assert max(map(len, written), default=0) < 2_100_000


async def test_an_answer_of_much_is_written_in_another_thread():
    sent, threads = [], set()
    value = {"model_info": {"words": ["ab"] * 200_000}}

    async def send(message):
        sent.append(message)

    def encoded(part):
        threads.add(threading.get_ident())
        return dump_text(part)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("puna.server.body.dump_text", encoded)
        reply = JsonReply(value, headers={"x-more": "1"})
        await reply({"type": "http"}, None, send)
    assert threads
    assert threading.get_ident() not in threads
    headers = dict(sent[0]["headers"])
    assert json.loads(sent[1]["body"]) == value
    assert headers[b"content-length"] == str(len(sent[1]["body"])).encode()
    assert headers[b"x-more"] == b"1"
