"""Lists in arrays give what a list and a dictionary give."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.engine.cpu.lists import ByteTexts, Places


@given(st.lists(st.binary(max_size=5)))
def test_byte_strings_are_those_that_were_given(texts: list[bytes]) -> None:
    kept = ByteTexts(texts)
    assert list(kept) == texts
    assert len(kept) == len(texts)
    assert kept[1:] == texts[1:]
    assert [kept[at] for at in range(-len(texts), 0)] == texts
    for outside in (len(texts), -len(texts) - 1):
        with pytest.raises(IndexError):
            kept[outside]


def test_empty_ones_fill_up_to_a_count_and_no_further() -> None:
    kept = ByteTexts([b"a", b"", b"bc"])
    assert list(kept.filled(5)) == [b"a", b"", b"bc", b"", b""]
    assert list(kept.filled(2)) == list(kept) == [b"a", b"", b"bc"]


@given(st.lists(st.text(max_size=3)), st.text(max_size=3))
def test_of_equal_texts_the_first_is_found(texts: list[str], other: str) -> None:
    places = Places(texts)
    for text in [*texts, other]:
        assert places.get(text) == (texts.index(text) if text in texts else None)


class Alike(str):
    """A text whose hash is that of many others."""

    __slots__ = ()

    def __hash__(self) -> int:
        return len(self) % 2 - 1


def test_texts_of_one_hash_are_told_apart() -> None:
    texts = [Alike(f"{number:0{1 + number % 4}}") for number in [*range(300), *range(50)]]
    places = Places(texts)
    for text in texts:
        assert places.get(text) == [*map(str, texts)].index(str(text))
    assert places.get(Alike("x")) is None


def test_a_list_of_equal_texts_is_read_as_fast_as_another():
    """It took a step for each, over all that were left."""
    texts = ["a b", *(str(number) for number in range(50)), *["a b", "c"] * 250_000]
    places = Places(texts)
    assert (places.get("a b"), places.get("7"), places.get("c"), places.get("d")) == (0, 8, 52, None)
