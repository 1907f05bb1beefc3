"""Slots and what was saved of them: no conversation computes again what it had, as far as there is room for it."""

from __future__ import annotations

import random
from array import array

from hypothesis import example, given, settings
from hypothesis import strategies as st

from puna.engine.llama.book import LEAST, Book, Seat, agreeing


def text(length: int, seed: int = 0) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(50_000) for _ in range(length)]


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_how_many_tokens_agree(one: list[int], other: list[int]) -> None:
    wanted = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    expected = min(len(one), len(other)) if wanted is None else wanted
    assert agreeing(array("i", one), array("i", other)) == expected


def test_a_conversation_goes_on_in_its_slot() -> None:
    book = Book(3)
    for slot in range(3):
        book.holds(slot, text(100, slot))
    assert book.place([*text(100, 1), 5]) == Seat(1)
    assert book.place([*text(100, 1), 5], busy={1}) == Seat(0, save=True)
    assert book.place(text(100, 1), busy={0, 1, 2}) is None


def test_an_empty_slot_comes_first_and_then_the_one_left_longest_ago() -> None:
    book = Book(3)
    book.holds(2, text(100, 2))
    assert book.place(text(100, 9)) == Seat(0)
    book.holds(0, text(100, 0))
    book.holds(1, text(100, 1))
    assert book.place(text(100, 9)) == Seat(2, save=True)


def test_a_beginning_that_many_share_is_computed_once() -> None:
    book, system = Book(2), text(200, 7)
    book.holds(0, [*system, *text(100, 1)])
    assert book.place([*system, *text(50, 2)]) == Seat(0, save=True)


def test_what_is_short_is_not_saved() -> None:
    book = Book(1)
    book.holds(0, text(LEAST))
    assert book.place(text(100, 1)) == Seat(0)
    assert book.unsaved() == []


def test_what_is_saved_is_not_saved_again_and_a_longer_one_takes_its_place() -> None:
    book, talk = Book(1), array("i", text(100))
    book.holds(0, talk)
    assert book.save("a", talk[:]) == []
    assert book.place(text(100, 1)) == Seat(0)
    book.holds(0, text(100, 1))
    assert book.place([*talk, 1, 2]) == Seat(0, save=True, restore="a")
    book.holds(0, [*talk, *text(60, 3)])
    longer = book.tokens(0)[:]
    assert book.save("b", longer) == ["a"]
    book.holds(0, text(100, 1))
    assert book.place([*longer, 7]) == Seat(0, save=True, restore="b")
    book.lost("b")
    assert book.place([*longer, 7]) == Seat(0, save=True)


def test_those_used_last_are_saved_first() -> None:
    book = Book(4)
    for slot in (2, 0, 1):
        book.holds(slot, text(100, slot))
    assert book.unsaved() == [1, 0, 2]
    assert book.unsaved(busy={1}) == [0, 2]


def test_a_slot_holds_no_more_than_the_engine_says() -> None:
    book = Book(1)
    book.holds(0, text(100))
    book.trim(0, 60)
    assert list(book.tokens(0)) == text(100)[:60]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 5), st.integers(1, 9), st.integers(0, 300))
@example(seed=19296940, slots=5, talks=5, shared=5)  # another slot shared a little, and another than that was taken
def test_each_turn_computes_what_is_new_and_a_little(seed: int, slots: int, talks: int, shared: int) -> None:
    """An engine that keeps to its slots, talks of any length in any order, and a beginning that they may share."""
    source, system = random.Random(seed), text(shared, 3)
    book = Book(slots)
    saved: dict[str, array[int]] = {}
    engine = [array("i") for _ in range(slots)]
    histories = [[*system, *text(source.randrange(1, 200), seed + number)] for number in range(talks)]
    known = [0] * talks
    for _ in range(40):
        number = source.randrange(talks)
        busy = set(source.sample(range(slots), source.randrange(slots)))
        place = book.place(histories[number], busy)
        assert place is not None
        assert place.slot not in busy
        if place.save:
            saved[str(len(saved))] = engine[place.slot][:]
            book.save(str(len(saved) - 1), engine[place.slot][:])
        if place.restore is not None:
            engine[place.slot] = saved[place.restore][:]
        found = agreeing(engine[place.slot], array("i", histories[number]))
        if not busy:
            assert found >= min(known[number], len(histories[number])) - LEAST
        histories[number] += text(source.randrange(1, 40), source.randrange(1 << 30))
        engine[place.slot] = array("i", histories[number])
        book.holds(place.slot, histories[number])
        known[number] = len(histories[number])
        histories[number] += text(source.randrange(1, 60), source.randrange(1 << 30))
