"""What the next step computes. Pure: it sees how far each sequence is and a budget of tokens, nothing else.

Every running answer gets its next token in every step; what is left of the budget goes to prompts, in chunks. So a long
prompt makes a step longer, by a bounded time, and never makes an answer miss one. How a prompt is cut changes no byte
of what follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SCORED = 64
"""Tokens of one chunk whose every row is wanted: rows are as long as the vocabulary."""

SMALLEST = 16
"""Tokens of prompts in a step at least, whatever the budget says: else none would start beside many answers."""


@dataclass(frozen=True, slots=True)
class Advance:
    """One sequence: `known` tokens, of which `done` are in the cache. `decoding`: the one left is of its answer.

    `scored`: the row of every token is wanted, not of the last alone.
    """

    known: int
    done: int
    decoding: bool = False
    scored: bool = False

    @property
    def left(self) -> int:
        return self.known - self.done


@dataclass(frozen=True, slots=True)
class Span:
    """What a step computes of one sequence: `count` tokens of sequence number `index`, from its token `start` on.

    `guesses`: tokens that may follow these and are computed with them, to see whether they do.
    """

    index: int
    start: int
    count: int
    guesses: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        """Where the sequence ends in this step, guesses included."""
        return self.start + self.count + len(self.guesses)


def plan(states: Sequence[Advance], budget: int) -> list[Span]:
    """Answers first, then prompts: half of the rest is the oldest's, the other half goes to the shortest first.

    `states` in order of age. What the one half leaves is the other's.
    """
    spans = [Span(index, state.done, 1) for index, state in enumerate(states) if state.decoding]
    room = max(budget - len(spans), SMALLEST)
    prompts = [(index, state) for index, state in enumerate(states) if not state.decoding]
    if not prompts:
        return spans
    (oldest, first), *others = prompts
    held = min(_wanted(first), max(room // 2, SMALLEST))
    room -= held
    for index, state in sorted(others, key=lambda prompt: prompt[1].left):
        size = min(_wanted(state), room)
        if size:
            spans.append(Span(index, state.done, size))
            room -= size
    spans.append(Span(oldest, first.done, min(_wanted(first), held + room)))
    return sorted(spans, key=lambda span: span.index)


def _wanted(state: Advance) -> int:
    """Tokens that a chunk of this prompt may have."""
    return min(state.left, SCORED) if state.scored else state.left
