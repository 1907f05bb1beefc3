from __future__ import annotations

from puna.engine.cpu.pieces import SPACE, Merger


def merger(**scores: float) -> Merger:
    pieces = list(scores)
    ids = {piece: place for place, piece in enumerate(pieces)}
    byte_ids = [1000 + byte if byte < 128 else None for byte in range(256)]
    return Merger(ids, list(scores.values()), byte_ids)


def test_the_best_score_goes_first() -> None:
    low, high = merger(a=0, b=0, c=0, ab=-2, bc=-1), merger(a=0, b=0, c=0, ab=-1, bc=-2)
    assert low.encode("abc") == [0, 4]
    assert high.encode("abc") == [3, 2]


def test_of_equals_the_left_goes_first() -> None:
    assert merger(a=0, aa=-1).encode("aaa") == [1, 0]


def test_any_split_of_a_piece_counts() -> None:
    assert merger(a=0, b=0, c=0, bc=-1, abc=-2).encode("abc") == [4]
    assert merger(a=0, b=0, c=0, ab=-1, abc=-2).encode("abc") == [4]


def test_what_is_no_piece_becomes_bytes_and_what_has_none_is_left_out() -> None:
    assert merger(a=0).encode("axé") == [0, 1000 + ord("x")]


def test_words_merge_alike_alone_and_together() -> None:
    pieces = merger(**{SPACE: 0, "h": 0, "i": 0, "hi": -1, f"{SPACE}hi": -2, SPACE * 2: -3})
    text = f"{SPACE}hi{SPACE}{SPACE}{SPACE}hi{SPACE}"
    assert pieces.encode(text) == [4, 5, 4, 0]
    across = merger(**{SPACE: 0, "h": 0, "i": 0, "hi": -1, f"i{SPACE}": -0.5})
    assert across.encode(f"hi{SPACE}") == [1, 4]
