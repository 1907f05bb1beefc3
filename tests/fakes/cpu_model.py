"""A model for the CPU engine's loop: its logits depend on every token before, as the blocks given to it hold them.

What it stores for a token is the token and its place, and that goes into every later logit. So an answer changes when
blocks are mixed up, when a token is read that was refused, or when one stands elsewhere than it was computed for.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.choice import Draw, Outcome, Rate
from puna.engine.cpu.sampler import log_probabilities
from puna.errors import EngineError

BLOCK = 32


class FakeModel:
    """`steps` counts the calls, `computed` the tokens, `widest` the longest step.

    `habit`: added to the logit of the token that followed the last one before. The larger, the more an answer repeats
    its prompt and itself. `replayed`: tokens that states absorbed a second time; it has states if it is told of them.
    """

    def __init__(self, n_blocks: int, vocabulary: int = 120, *, habit: float = 0.0) -> None:
        self.vocabulary = vocabulary
        self.block_size = BLOCK
        self._habit = habit
        self._slots: NDArray[np.int64] = np.full((n_blocks, BLOCK), -1, np.int64)
        self.steps = self.computed = self.widest = self.replayed = 0
        self._states: dict[int, NDArray[np.int64]] = {}

    def __call__(
        self,
        ids: NDArray[np.int32],
        past: NDArray[np.int32],
        begins: NDArray[np.int32],
        blocks: NDArray[np.int32],
        block_begins: NDArray[np.int32],
        rows: NDArray[np.int32],
        states: NDArray[np.int32] | None = None,
    ) -> NDArray[np.float32]:
        for values in (ids, past, begins, blocks, block_begins, rows):
            assert values.dtype == np.int32
        self.steps, self.computed, self.widest = (
            self.steps + 1, self.computed + len(ids), max(self.widest, len(ids)),
        )  # fmt: skip
        histories: list[NDArray[np.int64]] = []
        written: list[set[int]] = []
        read: list[set[int]] = []
        for i, start in enumerate(past):
            own = blocks[block_begins[i] : block_begins[i + 1]]
            count = int(begins[i + 1] - begins[i])
            assert len(own) == -(-(start + count) // BLOCK)
            for place in range(start, start + count):
                token = int(ids[begins[i] + place - start])
                self._slots[own[place // BLOCK], place % BLOCK] = place * self.vocabulary + token
            written.append({int(block) for block in own[int(start) // BLOCK :]})
            read.append({int(block) for block in own})
            history = self._slots[own].reshape(-1)[: start + count].copy()
            places = history // self.vocabulary
            assert (places == np.arange(len(history))).all(), "a slot is read that was not written for its place"
            if states is not None:
                self._absorb(*(int(number) for number in states[:, i]), int(start), history)
            histories += [history[: int(start) + place + 1] for place in range(count)]
        for i, mine in enumerate(written):
            assert not any(mine & theirs for j, theirs in enumerate(read) if j != i), "a block is written while shared"
        return np.stack([self._logits(histories[row]) for row in rows]) if len(rows) else np.zeros((0, 1), np.float32)

    def _absorb(self, state: int, absorbed: int, keep: int, start: int, history: NDArray[np.int64]) -> None:
        """A state is what came of this very sequence, and becomes that of no guess: those are further than `keep`."""
        assert 0 <= absorbed <= start < keep <= len(history)
        before = self._states.pop(state, np.zeros(0, np.int64))
        assert absorbed in {0, len(before)}
        assert (before[:absorbed] == history[:absorbed]).all(), "a state of another sequence"
        self.replayed += start - absorbed
        self._states[state] = history[:keep].copy()

    def copy(self, source: int, target: int) -> None:
        self._slots[target] = self._slots[source]

    def block(self, number: int) -> memoryview:
        return self._slots[number].view(np.uint8).data

    def choose(self, logits: NDArray[np.float32], orders: Sequence[Draw | Rate]) -> list[Outcome]:
        """By the specification."""
        return [self._chosen(logits[order.row], order) for order in orders]

    @staticmethod
    def _chosen(row: NDArray[np.float32], order: Draw | Rate) -> Outcome:
        if isinstance(order, Rate):
            return log_probabilities(row, order.token, order.top)
        allowed = None if order.allowed is None else order.allowed.allowed()[: len(row)]
        try:
            return order.sampler(row, order.history.tokens(0, order.length), allowed)
        except EngineError as error:
            return error

    def _logits(self, history: NDArray[np.int64]) -> NDArray[np.float32]:
        seed = int.from_bytes(blake2b(history.tobytes(), digest_size=8).digest(), "little")
        logits = np.random.default_rng(seed).normal(0, 2, self.vocabulary).astype(np.float32)
        if self._habit:
            tokens = history % self.vocabulary
            before = np.flatnonzero(tokens[:-1] == tokens[-1])
            if before.size:
                logits[tokens[before[-1] + 1]] += self._habit
        return logits
