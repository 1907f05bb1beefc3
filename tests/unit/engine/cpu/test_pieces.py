from __future__ import annotations

from collections.abc import Callable

import pytest

from puna.engine.cpu.pieces import MOST_LETTERS, SPACE, Merger, by_scores
from puna.errors import InvalidRequest


def encoder(**scores: float) -> Callable[[str], list[int]]:
    pieces = list(scores)
    ids = {piece: place for place, piece in enumerate(pieces)}
    byte_ids = [1000 + byte if byte < 128 else None for byte in range(256)]
    return by_scores(ids, list(scores.values()), byte_ids)


def test_the_best_score_goes_first() -> None:
    low, high = encoder(a=0, b=0, c=0, ab=-2, bc=-1), encoder(a=0, b=0, c=0, ab=-1, bc=-2)
    assert low("abc") == [0, 4]
    assert high("abc") == [3, 2]


def test_of_equals_the_left_goes_first() -> None:
    assert encoder(a=0, aa=-1)("aaa") == [1, 0]


def test_any_split_of_a_piece_counts() -> None:
    assert encoder(a=0, b=0, c=0, bc=-1, abc=-2)("abc") == [4]
    assert encoder(a=0, b=0, c=0, ab=-1, abc=-2)("abc") == [4]


def test_what_is_no_piece_becomes_bytes_and_what_has_none_is_left_out() -> None:
    assert encoder(a=0)("axé") == [0, 1000 + ord("x")]


def test_words_merge_alike_alone_and_together() -> None:
    pieces = encoder(**{SPACE: 0, "h": 0, "i": 0, "hi": -1, f"{SPACE}hi": -2, SPACE * 2: -3})
    text = f"{SPACE}hi{SPACE}{SPACE}{SPACE}hi{SPACE}"
    assert pieces(text) == [4, 5, 4, 0]
    across = encoder(**{SPACE: 0, "h": 0, "i": 0, "hi": -1, f"i{SPACE}": -0.5})
    assert across(f"hi{SPACE}") == [1, 4]


def test_recorded_pairs_merge_in_their_order_and_no_others() -> None:
    ids = {piece: place for place, piece in enumerate(("a", "b", "c", "ab", "bc", "abc"))}
    order = {("b", "c"): 0, ("a", "b"): 1}
    merger = Merger(ids, lambda left, right: order.get((left, right)), [None] * 256)
    assert merger.merged("abc") == (0, 4)
    assert merger.merged("abxab") == (3, 3)
    assert merger.merged("ab" * 100) == (3,) * 100


def test_a_word_too_long_to_be_merged_is_refused() -> None:
    merger = Merger({"a": 0}, lambda left, right: None, [None] * 256)
    assert merger.merged("a" * 1000) == (0,) * 1000
    with pytest.raises(InvalidRequest, match="1000000 at most"):
        merger.merged("a" * (MOST_LETTERS + 1))
