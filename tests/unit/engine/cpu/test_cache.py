"""The cache's bookkeeping, against a model that knows what every block holds."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from puna.engine.cpu.cache import TAILS, Cache, Table, WaitReason, block_keys, blocks_for, capacity_for, end_key
from puna.errors import LoadFailed

BLOCK = 32


def admit(cache: Cache, prompt: list[int], answer: int = 10) -> Table | WaitReason:
    return cache.admit(prompt, block_keys(prompt, BLOCK), len(prompt) + answer, len(prompt) - 1)


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
    assert again.found == 96
    assert again.blocks == blocks[:3]


def test_a_token_or_more_is_left_to_compute() -> None:
    cache, prompt = Cache(20, BLOCK), list(range(65))
    cache.release(computed(cache, prompt))
    assert admitted(cache, prompt).found == 64
    assert admitted(cache, prompt[:64]).found == 32


def test_an_answer_is_found_like_a_prompt() -> None:
    cache, prompt, answer = Cache(20, BLOCK), list(range(40)), list(range(500, 560))
    table = computed(cache, prompt, answer=60)
    for done in range(41, 101):
        cache.extend(table, done)
        cache.publish(table, [*prompt, *answer], done)
    blocks = list(table.blocks)
    cache.release(table)
    again = admitted(cache, [*prompt, *answer, 7, 7])
    assert again.found == 96
    assert again.blocks == blocks[:3]
    assert admitted(cache, [*prompt, *answer[:30], 7, *answer[30:]]).found == 64


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
    assert second.found == 32
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
    assert again.found == 64
    cache.release(again)
    assert admitted(cache, [*old[:64], 7, 7], answer=0).found == 64


def test_a_kept_block_that_a_sequence_begins_with_is_not_also_promised_to_it() -> None:
    cache, prompt = Cache(3, BLOCK), list(range(66))
    cache.release(computed(cache, prompt, answer=0))
    assert (cache.kept, cache.open) == (2, 3)
    assert admit(cache, prompt, answer=31) is WaitReason.ROOM
    assert isinstance(admit(cache, prompt, answer=30), Table)


def capacity(*, left: int, free: int = 10**6, most: int = 0) -> int:
    """Of three slots, each with a context of four blocks, which take 4,000 bytes."""
    return capacity_for(num_ctx=100, slots=3, block_size=BLOCK, bytes_per_block=1000, left=left, free=free, most=most)


def test_every_slot_gets_a_full_context_where_memory_allows() -> None:
    assert capacity(left=10**6) == 3 * 4


def test_with_less_memory_the_slots_share() -> None:
    assert capacity(left=20_000) == 10


@pytest.mark.parametrize("left", [7_000, 3_000, -5_000])
def test_one_context_gets_what_the_system_has(left: int) -> None:
    """Whoever had it loaded has reckoned that it fits, and counts otherwise than the system does."""
    assert capacity(left=left, free=4_000) == 4


@pytest.mark.parametrize("free", [3_999, -1])
def test_a_context_that_does_not_fit_is_refused(free: int) -> None:
    with pytest.raises(LoadFailed, match="num_ctx"):
        capacity(left=7_000, free=free)


def test_it_takes_no_more_than_it_may() -> None:
    assert capacity(left=10**6, most=5500) == 5
    with pytest.raises(LoadFailed, match="PUNA_CACHE_MEMORY"):
        capacity(left=10**6, most=3500)


def ended(cache: Cache, text: list[int], computed: int) -> list[int]:
    """A sequence that is over; its blocks."""
    table = admitted(cache, text, answer=max(computed - len(text), 0))
    cache.extend(table, computed)
    cache.publish(table, text, computed)
    blocks = list(table.blocks)
    cache.remember(table, text, computed)
    cache.release(table)
    return blocks


def test_the_open_end_of_a_sequence_is_copied_as_far_as_it_agrees() -> None:
    cache, text = Cache(20, BLOCK), list(range(100))
    blocks = ended(cache, text, 80)
    assert cache.kept == 3
    again = admitted(cache, text)
    assert (again.found, again.copied) == (80, (blocks[2], again.blocks[2]))
    assert again.blocks[:2] == blocks[:2]
    assert again.blocks[2] not in blocks
    other = admitted(cache, [*text[:70], 7, 7, 7])
    assert (other.found, other.copied) == (70, (blocks[2], other.blocks[2]))
    assert admitted(cache, [*text[:64], 7, 7, 7]).copied is None
    assert admitted(cache, [7, *text[1:]]).copied is None


def test_of_open_ends_the_one_that_agrees_longest_is_taken() -> None:
    cache = Cache(40, BLOCK)
    for length in (5, 20, 9):
        ended(cache, [*range(length), *range(100, 120)], length + 3)
    assert admitted(cache, list(range(40))).found == 20


def test_a_token_is_left_where_the_text_ends_with_its_blocks() -> None:
    cache, text = Cache(20, BLOCK), list(range(64))
    ended(cache, text, 64)
    assert admitted(cache, text).found == 63
    assert admitted(cache, text[:40]).found == 39


def test_the_end_of_the_same_text_is_waited_for() -> None:
    cache, text = Cache(20, BLOCK), list(range(20))

    def same(last: int) -> Table | WaitReason:
        said = [*text, last]
        return cache.admit(said, [], 30, len(said) - 1, end_key(said, BLOCK, []))

    first = same(7)
    assert isinstance(first, Table)
    assert same(7) is WaitReason.PROMPT
    assert isinstance(same(8), Table)
    cache.extend(first, 21)
    cache.publish(first, [*text, 7], 21)
    cache.remember(first, [*text, 7], 21)
    again = same(7)
    assert isinstance(again, Table)
    assert again.found == 20
    assert isinstance(same(7), Table)


def test_open_ends_are_forgotten_with_their_blocks() -> None:
    cache = Cache(3, BLOCK)
    ended(cache, list(range(20)), 20)
    held = admitted(cache, [5] * 40, answer=50)
    cache.extend(held, 90)
    assert cache.kept == 0
    cache.release(held)
    assert admitted(cache, list(range(20))).copied is None


def test_only_the_latest_open_ends_behind_one_beginning_are_kept() -> None:
    cache = Cache(40, BLOCK)
    for number in range(TAILS + 3):
        ended(cache, [1, 2, 3, 100 + number, 5, 6], 5)
    assert cache.kept == TAILS
    assert admitted(cache, [1, 2, 3, 100, 5, 6]).found == 3
    assert admitted(cache, [1, 2, 3, 100 + TAILS + 2, 5, 6]).found == 5


def test_an_open_end_in_the_way_is_taken_over() -> None:
    """In a cache that has no other room: the block is what it should be copied into."""
    cache = Cache(1, BLOCK)
    (block,) = ended(cache, list(range(20)), 20)
    again = admitted(cache, list(range(30)), answer=2)
    assert (again.found, again.copied) == (20, (block, block))


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
        if table.copied is not None:
            source, target = table.copied
            assert target == table.blocks[-1]
            assert len(self.holds[source]) >= table.found
            self.holds[target] = self.holds[source][: table.found]
        for place, block in enumerate(table.blocks):
            assert self.holds[block] == tuple(text[: min((place + 1) * BLOCK, table.found)])
        self.running.append((table, text, length))
        self.done[id(table)] = table.found

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 1000), step=st.integers(1, 90), refused=st.integers(0, 15), remembered=st.booleans())
    def advance(self, which: int, step: int, refused: int, remembered: bool) -> None:
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
        if remembered:
            self.cache.remember(table, text, after)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 1000))
    def stop(self, which: int) -> None:
        table, text, _ = self.running.pop(which % len(self.running))
        self.cache.remember(table, text, self.done[id(table)])
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
