"""Who gets the memory: one decision at a time."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from puna.engine.runner import LoadOptions
from puna.scheduler.policy import (
    COLLATE_SECONDS,
    Evict,
    Full,
    Held,
    Key,
    Reuse,
    Snapshot,
    Start,
    TooLarge,
    Wait,
    Wish,
    decide,
)

LOAD = LoadOptions(num_ctx=4096, slots=4)
A, B, C = Key("a"), Key("b"), Key("c")


def wish(key: Key = A, *, said: tuple[str, ...] = (), size: int = 100, num_ctx: int = 4096) -> Wish:
    return Wish(key, replace(LOAD, num_ctx=num_ctx), frozenset(said), ((4, size), (2, size // 2), (1, size // 4)))


def held(id_: int, key: Key, **changes: object) -> Held:
    return replace(Held(id_, key, LOAD, 100), **changes)  # type: ignore[arg-type]


def now(*runners: Held, free: int = 10_000, limit: int = 0, most: int = 0, queue: int = 2) -> Snapshot:
    return Snapshot(held=runners, free=lambda: free, limit=limit, most=most, queue=queue)


def test_a_loaded_model_is_used_again() -> None:
    assert decide(wish(), now(held(7, A))) == Reuse(7)


def test_the_system_is_not_asked_for_memory_that_nobody_needs() -> None:
    def nobody() -> int:
        raise AssertionError("asked")

    assert decide(wish(), Snapshot(held=(held(1, A),), free=nobody)) == Reuse(1)


def test_a_load_under_way_is_joined() -> None:
    assert decide(wish(), now(held(7, A, loading=True, users=1))) == Reuse(7)


def test_a_busy_model_is_used_until_its_queue_is_full() -> None:
    assert decide(wish(), now(held(7, A, users=5))) == Reuse(7)
    assert decide(wish(), now(held(7, A, users=6))) == Full()


def test_a_context_that_was_not_asked_for_may_be_larger_but_not_smaller() -> None:
    assert decide(wish(), now(held(7, A, load=replace(LOAD, num_ctx=8192)))) == Reuse(7)
    assert decide(wish(), now(held(7, A, load=replace(LOAD, num_ctx=512)))) == Evict(7)


def test_a_context_that_was_asked_for_is_found_in_a_larger_one() -> None:
    assert decide(wish(said=("num_ctx",)), now(held(7, A, load=replace(LOAD, num_ctx=8192)))) == Reuse(7)
    assert decide(wish(said=("num_ctx",)), now(held(7, A, load=replace(LOAD, num_ctx=512)))) == Evict(7)
    assert decide(wish(said=("num_ctx",)), now(held(7, A))) == Reuse(7)


def test_who_has_just_come_lets_those_pass_whose_model_works() -> None:
    new, old = replace(wish(C), waited=COLLATE_SECONDS - 0.1), replace(wish(C), waited=COLLATE_SECONDS)
    assert decide(new, now(held(1, A, users=2), free=50)) == Wait()
    assert decide(new, now(held(1, A), free=50)) == Evict(1)
    assert decide(old, now(held(1, A, users=2), free=50)) == Evict(1)
    larger = replace(wish(num_ctx=8192), waited=0)
    assert decide(larger, now(held(7, A, users=1))) == Wait()
    assert decide(larger, now(held(7, A))) == Evict(7)


def test_an_option_that_was_not_said_suits_as_it_is() -> None:
    loaded = held(7, A, load=replace(LOAD, num_thread=3))
    assert decide(wish(), now(loaded)) == Reuse(7)
    assert decide(wish(said=("num_thread",)), now(loaded)) == Evict(7)


def test_a_model_that_leaves_is_waited_for() -> None:
    assert decide(wish(), now(held(7, A, leaving=True))) == Wait()


def test_the_same_weights_to_embed_are_another_runner() -> None:
    assert decide(wish(Key("a", embedding=True)), now(held(7, A))) == Start(4, 100)


def test_another_model_is_loaded_beside_while_memory_allows() -> None:
    assert decide(wish(B), now(held(7, A, users=1), free=200)) == Start(4, 100)


def test_the_idle_one_that_expires_first_makes_room() -> None:
    runners = (held(1, A, expires=90), held(2, B, expires=30), held(3, Key("d"), users=1, expires=10))
    assert decide(wish(C), now(*runners, free=50)) == Evict(2)


def test_of_those_that_never_expire_the_one_used_longest_ago_makes_room() -> None:
    runners = (held(1, A, expires=inf, used=5), held(2, B, expires=inf, used=3))
    assert decide(wish(C), now(*runners, free=50)) == Evict(2)


def test_when_all_work_one_takes_no_more_and_is_waited_for() -> None:
    assert decide(wish(C), now(held(1, A, users=2), free=50)) == Evict(1)
    assert decide(wish(C), now(held(1, A, users=2, leaving=True), free=50)) == Wait()


def test_one_that_leaves_does_not_hold_back_what_fits_beside_it() -> None:
    assert decide(wish(C), now(held(1, A, users=2, leaving=True), free=500)) == Start(4, 100)


def test_a_load_under_way_counts_before_its_memory_is_taken() -> None:
    loading = held(1, A, loading=True, users=1)
    assert decide(wish(B), now(loading, free=150)) == Wait()
    assert decide(wish(B), now(loading, free=250)) == Start(4, 100)


def test_the_number_of_models_is_bounded() -> None:
    assert decide(wish(C), now(held(1, A), held(2, B), most=2)) == Evict(1)
    assert decide(wish(C), now(held(1, A), held(2, B), most=3)) == Start(4, 100)


def test_a_limit_replaces_what_the_system_has_free() -> None:
    assert decide(wish(B), now(held(1, A), free=0, limit=200)) == Start(4, 100)
    assert decide(wish(B), now(held(1, A), free=10_000, limit=199)) == Evict(1)


def test_alone_it_gets_the_slots_that_fit() -> None:
    assert decide(wish(), now(free=60)) == Start(2, 50)
    assert decide(wish(), now(free=30)) == Start(1, 25)


def test_too_large_says_both_numbers() -> None:
    assert decide(wish(), now(free=20)) == TooLarge(25, 19)
