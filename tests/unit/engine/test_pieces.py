"""Tokens that end inside a character, found again."""

from __future__ import annotations

import pytest

from puna.engine.llama.pieces import Pieces, ends_inside, vocabulary

CAT = "🐱".encode()


@pytest.mark.parametrize(
    ("data", "inside"),
    [
        (b"", False),
        (b"a", False),
        ("é".encode(), False),
        (CAT, False),
        (b" " + CAT[:1], True),
        (CAT[:2], True),
        (CAT[:3], True),
        ("日".encode()[:2], True),
        (b"\xc3", True),
        (CAT[1:2], True),
        (CAT[1:], True),
        (CAT + b"a", False),
    ],
)
def test_ending_inside_a_character(data: bytes, inside: bool) -> None:
    assert ends_inside(data) is inside


def pieces() -> Pieces:
    return Pieces([b"a", b" " + CAT[:3], CAT[:2], CAT[2:3], CAT[3:], CAT[:1], CAT[1:3], CAT])


def test_bytes_of_a_token() -> None:
    assert [pieces()[id_] for id_ in (0, 4, 7)] == [b"a", CAT[3:], CAT]


def test_one_way() -> None:
    assert pieces().between(b" " + CAT, 2, 4) == [(1, 4)]


def test_two_ways() -> None:
    assert sorted(pieces().between(CAT, 3, 4)) == [(2, 3, 4), (5, 6, 4)]


def test_no_way() -> None:
    assert pieces().between(b"b" + CAT, 2, 4) == []
    assert pieces().between(CAT, 2, 0) == []
    assert pieces().between(CAT, 5, 4) == []


def test_byte_level_vocabularies() -> None:
    read = vocabulary("gpt2", ["a", "Ġb", "ðŁ", "<|end|>", "日"], [1, 1, 1, 3, 1])
    assert read is not None
    assert [read[id_] for id_ in range(5)] == [b"a", b" b", b"\xf0\x9f", b"<|end|>", "日".encode()]


def test_sentence_piece_vocabularies() -> None:
    read = vocabulary("llama", ["<unk>", "<0xF0>", "▁the", "é"], [2, 6, 1, 1])
    assert read is not None
    assert [read[id_] for id_ in range(1, 4)] == [b"\xf0", b" the", "é".encode()]


def test_other_vocabularies_are_not_guessed() -> None:
    assert vocabulary("rwkv", ["a"], [1]) is None
