"""What the next step computes. Pure: it sees how far each sequence is and a budget of tokens, nothing else.

Every running answer gets its next token in every step; what is left of the budget goes to prompts, in chunks. So a long
prompt makes a step longer, by a bounded time, and never makes an answer miss one.

How a prompt is cut must not change a byte of what follows (measured rules of the runtime's kernels):
- a chunk that is not the last ends on the edge of a block: an open block is quantised again at every write;
- a last chunk is never one token alone: one token takes another kernel. (A prompt of one token has no other way.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from puna.engine.cpu.cache import BLOCK

SCORED = 64
"""Tokens of one chunk whose every row is wanted: rows are as long as the vocabulary."""

SMALLEST = 2 * BLOCK
"""The least room that lets any prompt go on by a block and leave two tokens or more."""


@dataclass(frozen=True, slots=True)
class State:
    """One sequence: `known` tokens, of which `done` are in the cache. `decoding`: the one left is of its answer.

    `scored`: the row of every token is wanted, not of the last alone.
    """

    known: int
    done: int
    decoding: bool = False
    scored: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """What a step computes of one sequence: `count` tokens of sequence number `index`, from its token `start` on."""

    index: int
    start: int
    count: int


def chunk_size(left: int, room: int) -> int:
    """How many of a prompt's `left` tokens the next chunk takes when there is room for `room`; 0: none now."""
    if left <= room:
        return left
    size = room // BLOCK * BLOCK
    return max(size - BLOCK, 0) if left - size == 1 else size


def plan(states: Sequence[State], budget: int) -> list[Span]:
    """Answers first, then prompts: the oldest gets half of the rest, and the rest of that goes to the shortest.

    `states` in order of age. Prompts get SMALLEST even when the answers take the whole budget: else none would start.
    """
    chunks = [Span(index, state.done, 1) for index, state in enumerate(states) if state.decoding]
    room = max(budget - len(chunks), SMALLEST)
    prompts = [(index, state) for index, state in enumerate(states) if not state.decoding]
    if not prompts:
        return chunks
    oldest, *others = prompts
    order = [(oldest, max(room // 2, SMALLEST) if others else room)]
    order += [(prompt, room) for prompt in sorted(others, key=lambda prompt: prompt[1].known - prompt[1].done)]
    for (index, state), most in order:
        limit = min(room, most, SCORED if state.scored else room)
        size = chunk_size(state.known - state.done, limit)
        if size:
            chunks.append(Span(index, state.done, size))
            room -= size
    return chunks
