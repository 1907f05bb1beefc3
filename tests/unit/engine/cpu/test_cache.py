"""The cache's bookkeeping, against a model that knows what every block holds."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from puna.engine.cpu.cache import Cache, Table, WaitReason, block_keys, blocks_for, capacity_for
from puna.errors import LoadFailed

BLOCK = 32


def shareable(prompt: list[int]) -> int:
    return (len(prompt) - 1) // BLOCK


def admit(cache: Cache, prompt: list[int], answer: int = 10) -> Table | WaitReason:
    return cache.admit(block_keys(prompt, BLOCK), len(prompt) + answer, shareable(prompt))


def admitted(cache: Cache, prompt: list[int], answer: int = 10) -> Table:
    table = admit(cache, prompt, answer)
    assert isinstance(table, Table)
    return table


def computed(cache: Cache, prompt: list[int], answer: int = 10) -> Table:
    table = admitted(cache, prompt, answer)
    cache.extend(table, len(prompt))
    cache.publish(table, prompt, len(prompt))
    return table


def test_keys_stand_for_a_block_and_all_before_it() -> None:
    a, b = block_keys([1] * 64 + [2] * 40, BLOCK), block_keys([1] * 32 + [3] * 32 + [2] * 32, BLOCK)
    assert len(a) == len(b) == 3
    assert a[0] == b[0]
    assert a[1] != b[1]
    assert a[2] != b[2]
    assert block_keys([1] * 31, BLOCK) == []
    assert block_keys([1] * 64 + [2] * 40, BLOCK, a[:2]) == a
    assert len(block_keys([1] * 64, 16)) == 4


def test_a_prompt_is_found_again() -> None:
    cache, prompt = Cache(20, BLOCK), list(range(100))
    first = computed(cache, prompt)
    blocks = list(first.blocks)
    cache.release(first)
    again = admitted(cache, prompt)
    assert again.cached == 3
    assert again.blocks == blocks[:3]


def test_a_token_or_more_is_left_to_compute() -> None:
    cache, prompt = Cache(20, BLOCK), list(range(65))
    cache.release(computed(cache, prompt))
    assert admitted(cache, prompt).cached == 2
    assert admitted(cache, prompt[:64]).cached == 1


def test_an_answer_is_found_like_a_prompt() -> None:
    cache, prompt, answer = Cache(20, BLOCK), list(range(40)), list(range(500, 560))
    table = computed(cache, prompt, answer=60)
    for done in range(41, 101):
        cache.extend(table, done)
        cache.publish(table, [*prompt, *answer], done)
    blocks = list(table.blocks)
    cache.release(table)
    again = admitted(cache, [*prompt, *answer, 7, 7])
    assert again.cached == 3
    assert again.blocks == blocks[:3]
    assert admitted(cache, [*prompt, *answer[:30], 7, *answer[30:]]).cached == 2


def test_what_two_compute_at_once_is_kept_once() -> None:
    cache, text = Cache(20, BLOCK), list(range(64))
    tables = [admitted(cache, [text[0]], answer=64), admitted(cache, [text[0]], answer=64)]
    for table in tables:
        cache.extend(table, 64)
        cache.publish(table, text, 64)
    first = list(tables[0].blocks)
    for table in reversed(tables):
        cache.release(table)
    assert cache.kept == 2
    assert admitted(cache, [*text, 1]).blocks == first


def test_a_prompt_being_computed_is_waited_for_and_then_shared() -> None:
    cache, prompt = Cache(40, BLOCK), list(range(100))
    first = admitted(cache, prompt)
    assert admit(cache, prompt) is WaitReason.PROMPT
    cache.extend(first, 64)
    cache.publish(first, prompt, 64)
    assert admit(cache, prompt) is WaitReason.PROMPT
    cache.extend(first, 100)
    cache.publish(first, prompt, 100)
    second = admitted(cache, prompt)
    assert second.blocks == first.blocks[:3]


def test_who_gives_up_lets_the_others_go_on() -> None:
    cache, prompt = Cache(40, BLOCK), list(range(100))
    first = admitted(cache, prompt)
    cache.extend(first, 32)
    cache.publish(first, prompt, 32)
    cache.release(first)
    second = admitted(cache, prompt)
    assert second.cached == 1
    assert admit(cache, prompt) is WaitReason.PROMPT


def test_all_that_may_be_needed_is_promised_at_the_start() -> None:
    cache = Cache(10, BLOCK)
    first = admitted(cache, [1] * 10, answer=150)
    assert first.promised == 5
    assert cache.open == 5
    assert admit(cache, [2] * 10, answer=151) is WaitReason.ROOM
    second = admitted(cache, [2] * 10, answer=150)
    for table in (first, second):
        cache.extend(table, 160)
    assert sorted(first.blocks + second.blocks) == list(range(10))


def test_the_prompt_left_unused_for_longest_is_evicted_from_its_end() -> None:
    cache = Cache(6, BLOCK)
    old, new = list(range(96)), list(range(500, 596))
    cache.release(computed(cache, old, answer=0))
    cache.release(computed(cache, new, answer=0))
    cache.release(computed(cache, [9] * 20, answer=0))
    assert cache.kept == 5  # the last of the older went; the new one's end is open and so not kept
    again = admitted(cache, new, answer=0)
    assert again.cached == 2
    cache.release(again)
    assert admitted(cache, [*old[:64], 7, 7], answer=0).cached == 2


def test_a_kept_block_that_a_sequence_begins_with_is_not_also_promised_to_it() -> None:
    cache, prompt = Cache(3, BLOCK), list(range(66))
    cache.release(computed(cache, prompt, answer=0))
    assert (cache.kept, cache.open) == (2, 3)
    assert admit(cache, prompt, answer=31) is WaitReason.ROOM
    assert isinstance(admit(cache, prompt, answer=30), Table)


def test_every_slot_gets_a_full_context_where_memory_allows() -> None:
    assert capacity_for(num_ctx=100, slots=3, block_size=BLOCK, bytes_per_block=1000, left=10**6) == 3 * 4


def test_with_less_memory_the_slots_share() -> None:
    assert capacity_for(num_ctx=100, slots=3, block_size=BLOCK, bytes_per_block=1000, left=20_000) == 10


def test_a_context_that_does_not_fit_is_refused() -> None:
    with pytest.raises(LoadFailed, match="num_ctx"):
        capacity_for(num_ctx=100, slots=3, block_size=BLOCK, bytes_per_block=1000, left=7_000)


class CacheMachine(RuleBasedStateMachine):
    """Random sequences over few texts: each block is held by whom the model says, and holds what it should."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(24, BLOCK)
        self.running: list[tuple[Table, list[int], int]] = []  # table, all tokens it will have, of them the prompt
        self.done: dict[int, int] = {}
        self.holds: dict[int, tuple[int, ...]] = {}  # block: the whole text up to its end

    @rule(family=st.integers(0, 2), split=st.integers(0, 130), length=st.integers(1, 200), answer=st.integers(0, 100))
    def start(self, family: int, split: int, length: int, answer: int) -> None:
        text = [family if place < split else 10 + family + split for place in range(length + answer)]
        prompt = text[:length]
        table = admit(self.cache, prompt, answer)
        if isinstance(table, WaitReason):
            return
        for place, block in enumerate(table.blocks):
            assert self.holds[block] == tuple(text[: (place + 1) * BLOCK])
        self.running.append((table, text, length))
        self.done[id(table)] = table.cached * BLOCK

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 1000), step=st.integers(1, 90), refused=st.integers(0, 15))
    def advance(self, which: int, step: int, refused: int) -> None:
        """Some tokens come, and some that were guessed and computed behind them do not."""
        table, text, _ = self.running[which % len(self.running)]
        before = self.done[id(table)]
        after = min(before + step, len(text))
        reach = min(after + refused, len(text))
        self.cache.extend(table, reach)
        written = text[:after] + [-1] * (reach - after)
        for place in range(before // BLOCK, blocks_for(reach, BLOCK)):
            self.holds[table.blocks[place]] = tuple(written[: (place + 1) * BLOCK])
        self.done[id(table)] = after
        self.cache.publish(table, text, after)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 1000))
    def stop(self, which: int) -> None:
        table, _, _ = self.running.pop(which % len(self.running))
        self.cache.release(table)

    @invariant()
    def no_block_is_written_while_shared(self) -> None:
        for table, text, _ in self.running:
            for place, block in enumerate(table.blocks[: self.done[id(table)] // BLOCK]):
                assert self.holds[block] == tuple(text[: (place + 1) * BLOCK])

    @invariant()
    def every_block_is_accounted_for(self) -> None:
        held = {block for table, _, _ in self.running for block in table.blocks}
        assert self.cache.used == len(held)
        promised = sum(table.promised for table, _, _ in self.running)
        assert self.cache.open == self.cache.capacity - len(held) - promised
        assert self.cache.open >= 0
        assert self.cache.used + self.cache.kept <= self.cache.capacity

    def teardown(self) -> None:
        for table, _, _ in self.running:
            self.cache.release(table)
        assert (self.cache.used, self.cache.open) == (0, self.cache.capacity)


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
