from __future__ import annotations

from puna.engine.llama.slots import SlotKeys


def test_a_key_returns_to_its_slot() -> None:
    keys = SlotKeys(3)
    keys.used(1, "a")
    keys.used(2, "b")
    assert keys.choose("a", ()) == 1
    assert keys.choose("b", {0, 1}) == 2


def test_a_new_key_leaves_the_slots_of_others_alone() -> None:
    keys = SlotKeys(3)
    assert keys.choose("a", ()) == 0
    keys.used(0, "a")
    assert keys.choose("b", ()) == 1
    assert keys.choose("b", {1}) == 2
    keys.used(1, None)
    assert keys.choose("b", ()) == 2, "the one longest unused"


def test_with_nothing_to_prefer_the_engine_chooses() -> None:
    keys = SlotKeys(2)
    keys.used(0, "a")
    keys.used(1, "b")
    assert keys.choose("c", ()) is None
    assert keys.choose("a", {0}) is None


def test_a_key_with_several_slots_takes_the_last_used_of_the_free_ones() -> None:
    keys = SlotKeys(3)
    for slot in (0, 1, 2, 1):
        keys.used(slot, "a")
    assert keys.choose("a", ()) == 1
    assert keys.choose("a", {1}) == 2


def test_who_takes_a_slot_ends_its_key() -> None:
    keys = SlotKeys(2)
    keys.used(0, "a")
    keys.used(0, None)
    keys.used(1, "b")
    assert keys.choose("a", ()) == 0
    keys.used(0, "c")
    assert keys.choose("a", ()) is None
