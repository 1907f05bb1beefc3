"""What a step computes: the rules that keep answers exact, and that nobody is kept waiting."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given

from puna.engine.cpu.cache import BLOCK
from puna.engine.cpu.plan import SCORED, SMALLEST, Span, State, chunk_size, plan

prompts = st.builds(
    lambda left, blocks, scored: State(known=blocks * BLOCK + left, done=blocks * BLOCK, scored=scored),
    st.integers(1, 700),
    st.integers(0, 5),
    st.booleans(),
)
answers = st.integers(1, 500).map(lambda known: State(known=known + 1, done=known, decoding=True))
sequences = st.lists(st.one_of(prompts, answers), max_size=40)
budgets = st.integers(1, 600)


@given(st.integers(1, 10_000), st.integers(0, 2_000))
def test_chunks_end_on_edges_and_leave_more_than_one_token(left: int, room: int) -> None:
    size = chunk_size(left, room)
    assert 0 <= size <= min(left, room)
    assert size in {0, left} or (size % BLOCK == 0 and left - size != 1)
    assert size or room < SMALLEST


@given(sequences, budgets)
def test_every_answer_gets_its_token_in_every_step(states: list[State], budget: int) -> None:
    chunks = plan(states, budget)
    for index, state in enumerate(states):
        if state.decoding:
            assert Span(index, state.done, 1) in chunks


@given(sequences, budgets)
def test_a_plan_keeps_to_the_budget_and_the_rules(states: list[State], budget: int) -> None:
    chunks = plan(states, budget)
    assert len({chunk.index for chunk in chunks}) == len(chunks)
    decoding = sum(state.decoding for state in states)
    assert sum(chunk.count for chunk in chunks) <= max(budget, decoding + SMALLEST)
    for chunk in chunks:
        state = states[chunk.index]
        left = state.known - chunk.start - chunk.count
        assert chunk.start == state.done
        assert chunk.count >= 1
        assert left == 0 or ((chunk.start + chunk.count) % BLOCK == 0 and left != 1)
        assert not state.scored or chunk.count <= SCORED


@given(sequences.filter(bool), budgets)
def test_the_oldest_prompt_moves_in_every_step(states: list[State], budget: int) -> None:
    chunks = plan(states, budget)
    oldest = next((index for index, state in enumerate(states) if not state.decoding), None)
    assert oldest is None or any(chunk.index == oldest for chunk in chunks)


@given(st.lists(prompts, max_size=12), st.integers(SMALLEST, 600))
def test_all_prompts_come_to_their_end(states: list[State], budget: int) -> None:
    for _ in range(sum(state.known for state in states) // BLOCK + len(states) + 1):
        for chunk in plan(states, budget):
            states[chunk.index] = replace(states[chunk.index], done=chunk.start + chunk.count)
        states = [state for state in states if state.done < state.known]
    assert not states


def test_a_short_prompt_passes_a_long_one() -> None:
    states = [State(5_000, 0), State(3_000, 0), State(40, 0)]
    assert plan(states, 256) == [Span(0, 0, 128), Span(2, 0, 40), Span(1, 0, 64)]


def test_a_prompt_alone_gets_the_whole_budget() -> None:
    assert plan([State(5_000, 0)], 512) == [Span(0, 0, 512)]


def test_nothing_to_do_is_an_empty_plan() -> None:
    assert plan([], 512) == []
