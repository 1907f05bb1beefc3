"""Who gets the memory: one decision at a time."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from puna.engine.runner import LoadOptions
from puna.scheduler.policy import (
    COLLATE_SECONDS,
    HEAD_START,
    AllPinned,
    Evict,
    Held,
    Key,
    Move,
    Reuse,
    Snapshot,
    Start,
    TooLarge,
    Wait,
    Wish,
    decide,
    line,
    next_move,
)

LOAD = LoadOptions(num_ctx=4096, slots=4)
A, B, C = Key("a"), Key("b"), Key("c")


def wish(key: Key = A, *, said: tuple[str, ...] = (), size: int = 100, num_ctx: int = 4096) -> Wish:
    return Wish(key, replace(LOAD, num_ctx=num_ctx), frozenset(said), ((4, size), (2, size // 2), (1, size // 4)))


def held(id_: int, key: Key, **changes: object) -> Held:
    return replace(Held(id_, key, LOAD, 100), **changes)  # type: ignore[arg-type]


def now(*runners: Held, free: int = 10_000, limit: int = 0, most: int = 0) -> Snapshot:
    return Snapshot(held=runners, free=lambda: free, limit=limit, most=most)


def waiting(snapshot: Snapshot, *wishes: Wish, time: float = 100.0, turns: dict[Key, float] | None = None) -> Snapshot:
    """The same with these in line, numbered from 1 on."""
    queue: dict[Key, dict[int, Wish]] = {}
    for number, one in enumerate(wishes, 1):
        queue.setdefault(one.key, {})[number] = replace(one, id=number)
    return replace(snapshot, time=time, queue=queue, turns=turns or {})


def test_a_loaded_model_is_used_again() -> None:
    assert decide(wish(), now(held(7, A))) == Reuse(7)


def test_the_system_is_not_asked_for_memory_that_nobody_needs() -> None:
    def nobody() -> int:
        raise AssertionError("asked")

    assert decide(wish(), Snapshot(held=(held(1, A),), free=nobody)) == Reuse(1)


def test_a_load_under_way_is_joined() -> None:
    assert decide(wish(), now(held(7, A, loading=True, users=1))) == Reuse(7)


def test_a_context_that_was_not_asked_for_may_be_larger_but_not_smaller() -> None:
    assert decide(wish(), now(held(7, A, load=replace(LOAD, num_ctx=8192)))) == Reuse(7)
    assert decide(wish(), now(held(7, A, load=replace(LOAD, num_ctx=512)))) == Evict(7)


def test_a_context_that_was_asked_for_is_found_in_a_larger_one() -> None:
    assert decide(wish(said=("num_ctx",)), now(held(7, A, load=replace(LOAD, num_ctx=8192)))) == Reuse(7)
    assert decide(wish(said=("num_ctx",)), now(held(7, A, load=replace(LOAD, num_ctx=512)))) == Evict(7)
    assert decide(wish(said=("num_ctx",)), now(held(7, A))) == Reuse(7)


def test_who_has_just_come_lets_those_pass_whose_model_works() -> None:
    new, old = replace(wish(C), since=100 - COLLATE_SECONDS + 0.1), replace(wish(C), since=100 - COLLATE_SECONDS)
    busy, idle = replace(now(held(1, A, users=2), free=50), time=100), replace(now(held(1, A), free=50), time=100)
    assert decide(new, busy) == Wait()
    assert decide(new, idle) == Evict(1)
    assert decide(old, busy) == Evict(1)
    larger = replace(wish(num_ctx=8192), since=100)
    assert decide(larger, replace(now(held(7, A, users=1)), time=100)) == Wait()
    assert decide(larger, replace(now(held(7, A)), time=100)) == Evict(7)


def test_an_option_that_was_not_said_suits_as_it_is() -> None:
    loaded = held(7, A, load=replace(LOAD, num_thread=3))
    assert decide(wish(), now(loaded)) == Reuse(7)
    assert decide(wish(said=("num_thread",)), now(loaded)) == Evict(7)


def test_a_model_that_leaves_is_waited_for() -> None:
    assert decide(wish(), now(held(7, A, leaving=True))) == Wait()


def test_the_same_weights_to_embed_are_another_runner() -> None:
    assert decide(wish(Key("a", embedding=True)), now(held(7, A))) == Start(4, 4096, 100)


def test_another_model_is_loaded_beside_while_memory_allows() -> None:
    assert decide(wish(B), now(held(7, A, users=1), free=200)) == Start(4, 4096, 100)


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
    assert decide(wish(C), now(held(1, A, users=2, leaving=True), free=500)) == Start(4, 4096, 100)


def test_a_load_under_way_counts_before_its_memory_is_taken() -> None:
    loading = held(1, A, loading=True, users=1)
    assert decide(wish(B), now(loading, free=150)) == Wait()
    assert decide(wish(B), now(loading, free=250)) == Start(4, 4096, 100)


def test_the_number_of_models_is_bounded() -> None:
    assert decide(wish(C), now(held(1, A), held(2, B), most=2)) == Evict(1)
    assert decide(wish(C), now(held(1, A), held(2, B), most=3)) == Start(4, 4096, 100)


def test_a_limit_replaces_what_the_system_has_free() -> None:
    assert decide(wish(B), now(held(1, A), free=0, limit=200)) == Start(4, 4096, 100)
    assert decide(wish(B), now(held(1, A), free=10_000, limit=199)) == Evict(1)


def test_alone_it_gets_the_slots_that_fit() -> None:
    assert decide(wish(), now(free=60)) == Start(2, 4096, 50)
    assert decide(wish(), now(free=30)) == Start(1, 4096, 25)


def test_nothing_leaves_for_what_would_not_fit_even_then() -> None:
    idle = held(1, A, size=100)
    assert decide(wish(B, size=1000), now(idle, free=100)) == TooLarge(250, 195)
    assert decide(wish(B, size=780), now(idle, free=100)) == Evict(1)
    assert decide(wish(B, size=1000), now(idle, limit=240)) == TooLarge(250, 240)


def test_too_large_says_both_numbers() -> None:
    assert decide(wish(), now(free=20)) == TooLarge(25, 19)


def test_one_that_is_pinned_leaves_for_no_other_model() -> None:
    pinned, other = held(1, A, pinned=True, expires=10), held(2, B, expires=90)
    assert decide(wish(C), now(pinned, other, free=50)) == Evict(2)
    assert decide(wish(C), now(pinned, free=20)) == TooLarge(25, 19)
    assert decide(wish(C), now(pinned, free=60)) == Start(2, 4096, 50)
    assert decide(wish(C), now(pinned, most=1)) == AllPinned()
    assert decide(wish(num_ctx=8192), now(pinned)) == Evict(1), "but for itself it does"


def test_whoever_finds_his_model_there_goes_before_all_others() -> None:
    wishes = [replace(wish(C), since=1), replace(wish(B), since=2), replace(wish(A), since=3)]
    assert next_move(waiting(now(held(7, A, users=9), free=50), *wishes)) == Move(3, Reuse(7))
    alone = waiting(now(held(7, A, users=1), held(8, B, leaving=True), free=50), *wishes[:2])
    assert next_move(alone) is None


def test_who_waits_for_memory_holds_back_those_behind_him() -> None:
    large, small = replace(wish(B, size=600), since=1), replace(wish(C, size=10), since=2)
    leaving = now(held(7, A, users=1, leaving=True), free=100)
    assert next_move(waiting(leaving, large, small)) is None
    assert next_move(waiting(leaving, small)) == Move(1, Start(4, 4096, 10))


def test_who_waits_for_his_own_models_runner_holds_back_nobody() -> None:
    otherwise, other = replace(wish(num_ctx=8192), since=99), replace(wish(B), since=100)
    assert next_move(waiting(now(held(7, A, users=1)), otherwise, other)) == Move(2, Start(4, 4096, 100))


def test_a_model_is_loaded_once_for_all_contexts_that_are_waited_for() -> None:
    small, large = replace(wish(num_ctx=2048, size=100), since=1), replace(wish(size=400), since=2)
    assert next_move(waiting(now(), small, large)) == Move(1, Start(4, 4096, 400))
    assert next_move(waiting(now(free=100), small, large)) == Move(1, Start(2, 2048, 50)), "if that can be had"


def test_models_take_turns() -> None:
    """However many requests to one model want it loaded each in their own way."""
    many = [replace(wish(said=("num_thread",)), since=moment) for moment in (1, 2, 3)]
    other = replace(wish(B), since=50)
    assert [one.key for one in line(waiting(now(), *many, other))] == [A, B]
    assert [one.key for one in line(waiting(now(), *many, other, turns={A: 60}))] == [B, A]


def test_a_priority_is_a_head_start() -> None:
    early, preferred = replace(wish(A), since=50), replace(wish(B), since=50 + HEAD_START - 1, priority=1)
    assert [one.key for one in line(waiting(now(), early, preferred))] == [B, A]
    late = replace(preferred, since=50 + HEAD_START + 1)
    assert [one.key for one in line(waiting(now(), early, late))] == [A, B]


def test_who_is_too_late_is_passed_over() -> None:
    over, other = replace(wish(A), since=1, deadline=100), replace(wish(B), since=2)
    assert next_move(waiting(now(), over, other)) == Move(2, Start(4, 4096, 100))
    assert next_move(waiting(now(held(7, A)), over)) is None
    assert next_move(waiting(now(held(7, A)), replace(over, deadline=100.1))) == Move(1, Reuse(7))
