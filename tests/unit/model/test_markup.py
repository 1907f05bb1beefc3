"""Where control tokens' texts stand in a text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from puna.model.markup import NO_MARKUP, Markup

CHATML = Markup({"<|im_start|>": 1, "<|im_end|>": 2, "</s>": 3, "": 4})
NESTED = Markup({"ab": 1, "abab": 2, "ba": 3, "x": 4})


def test_a_text_is_cut_at_them() -> None:
    assert CHATML.split("<|im_start|>user\na</s><|im_end|>") == [1, "user\na", 3, 2]
    assert CHATML.controls("x<|im_end|>y<|im_end|>") == [2, 2]
    assert CHATML.split("<|im_end|") == ["<|im_end|"]
    assert CHATML.split("") == []
    assert NO_MARKUP.split("<|im_end|>") == ["<|im_end|>"]


def test_the_longest_counts() -> None:
    assert NESTED.split("ababab") == [2, 1]
    assert NESTED.spans("abab") == [(0, 4), (1, 3), (2, 4)]


def test_what_could_be_part_of_one_is_touched() -> None:
    for text in ("a<|im_end|>b", "a<|im_", "a <", "end|>", ">", "  |> b", "a<|im_ \n"):
        assert CHATML.touches(text), text
    for text in ("", "a", "a < b", "a |im_end| b", "user", "im_start", "a > b", "if a <| b |> c then"):
        assert not CHATML.touches(text), text
    assert not NO_MARKUP.touches("<|im_end|>")


def test_one_is_found_across_stretches() -> None:
    for before in range((1 << 16) - 12, (1 << 16) + 2):
        assert CHATML.spans(" " * before + "<|im_end|>") == [(before, before + 10)]


@given(st.lists(st.text(st.sampled_from("<|im_end></s"), max_size=14), max_size=4))
def test_no_pieces_make_one_once_their_places_are_other_characters(pieces: list[str]) -> None:
    hidden = [CHATML.hidden(piece, lambda _: "\0") for piece in pieces]
    assert list(map(len, hidden)) == list(map(len, pieces))
    assert CHATML.controls("".join(hidden)) == []


def test_a_vocabulary_of_nothing_else() -> None:
    """To try each of its tokens at each place would take longer than a test may."""
    many = Markup({f"{chr(0x4E00 + index)}{index}": index for index in range(20_000)})
    assert many.controls("没有 nothing 丁1 " * 20_000) == [1] * 20_000
