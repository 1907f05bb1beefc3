from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from puna.chat.characters import read_by_grammar
from puna.chat.text import TextStream

BROKEN = "\N{REPLACEMENT CHARACTER}"


@given(st.text())
@example("a\0é日\U0010ffff")
def test_text_is_read_as_it_is(text: str) -> None:
    data = text.encode()
    assert read_by_grammar(data, True) == (text, len(data))
    assert TextStream(held=True).decode(data, True) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xf4\x90\x80\x80", BROKEN),  # beyond Unicode
        (b"\xf7\xbf\xbf\xbf", BROKEN),
        (b"\xff\xbf\xbf\xbf", BROKEN),
        (b"\xed\xa0\x80", BROKEN),  # half of a pair
        (b"\xed\xa0\x80\xed\xb0\x80", BROKEN * 2),
        (b"\xe0\x82\xa9", "©"),  # longer than need be
        (b"\xf0\x82\x82\xac", "€"),
        (b"G\xf4\x90\x80\x80S\xf0\x9f\x98\x80", f"G{BROKEN}S\N{GRINNING FACE}"),
        (b"\x80a\xbf", f"{BROKEN}a{BROKEN}"),
        (b"\xc3a", f"{BROKEN}a"),
        (b"\xf0\x9fa", f"{BROKEN}a"),
        (b"\xf0\x9f\x98", BROKEN),
    ],
)
def test_a_sequence_is_one_character(data: bytes, text: str) -> None:
    for cut in range(len(data) + 1):
        stream = TextStream(held=True)
        assert stream.decode(data[:cut]) + stream.decode(data[cut:]) + stream.decode(b"", True) == text


@given(st.lists(st.integers(0, 255)).map(bytes), st.data())
def test_any_bytes_in_any_pieces_read_the_same(data: bytes, chance: st.DataObject) -> None:
    cut = chance.draw(st.integers(0, len(data)))
    stream = TextStream(held=True)
    assert (
        stream.decode(data[:cut]) + stream.decode(data[cut:]) + stream.decode(b"", True)
        == read_by_grammar(data, True)[0]
    )
