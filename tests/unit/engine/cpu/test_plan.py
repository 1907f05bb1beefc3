"""What a step computes: nobody is kept waiting, and a step keeps to its size."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given

from puna.engine.cpu.plan import SCORED, SMALLEST, Advance, Span, plan

prompts = st.builds(
    lambda left, done, scored: Advance(known=done + left, done=done, scored=scored),
    st.integers(1, 700),
    st.integers(0, 200),
    st.booleans(),
)
answers = st.integers(1, 500).map(lambda known: Advance(known=known + 1, done=known, decoding=True))
sequences = st.lists(st.one_of(prompts, answers), max_size=40)
budgets = st.integers(1, 600)


@given(sequences, budgets)
def test_every_answer_gets_its_token_in_every_step(states: list[Advance], budget: int) -> None:
    spans = plan(states, budget)
    for index, state in enumerate(states):
        if state.decoding:
            assert Span(index, state.done, 1) in spans


@given(sequences, budgets)
def test_a_plan_keeps_to_the_budget(states: list[Advance], budget: int) -> None:
    spans = plan(states, budget)
    assert len({span.index for span in spans}) == len(spans)
    decoding = sum(state.decoding for state in states)
    assert sum(span.count for span in spans) <= max(budget, decoding + SMALLEST)
    for span in spans:
        state = states[span.index]
        assert span.start == state.done
        assert 1 <= span.count <= state.left
        assert not state.scored or span.count <= SCORED


@given(sequences.filter(bool), budgets)
def test_the_oldest_prompt_moves_in_every_step(states: list[Advance], budget: int) -> None:
    spans = plan(states, budget)
    oldest = next((index for index, state in enumerate(states) if not state.decoding), None)
    assert oldest is None or any(span.index == oldest for span in spans)


@given(sequences, budgets)
def test_no_room_is_left_while_a_prompt_could_use_it(states: list[Advance], budget: int) -> None:
    spans = plan(states, budget)
    taken = {span.index: span.count for span in spans}
    prompts_left = [
        state for index, state in enumerate(states) if not state.decoding and taken.get(index, 0) < state.left
    ]
    if any(not state.scored for state in prompts_left):
        assert sum(taken.values()) >= budget


@given(st.lists(prompts, max_size=12), st.integers(SMALLEST, 600))
def test_all_prompts_come_to_their_end(states: list[Advance], budget: int) -> None:
    for _ in range(sum(state.known for state in states) // SMALLEST + len(states) + 1):
        for span in plan(states, budget):
            states[span.index] = replace(states[span.index], done=span.end)
        states = [state for state in states if state.done < state.known]
    assert not states


def test_a_short_prompt_passes_a_long_one() -> None:
    states = [Advance(5_000, 0), Advance(3_000, 0), Advance(40, 0)]
    assert plan(states, 256) == [Span(0, 0, 128), Span(1, 0, 88), Span(2, 0, 40)]


def test_what_short_prompts_leave_is_the_oldest_ones() -> None:
    assert plan([Advance(5_000, 0), Advance(40, 0)], 256) == [Span(0, 0, 216), Span(1, 0, 40)]


def test_a_prompt_alone_gets_the_whole_budget() -> None:
    assert plan([Advance(5_000, 0)], 512) == [Span(0, 0, 512)]


def test_nothing_to_do_is_an_empty_plan() -> None:
    assert plan([], 512) == []
