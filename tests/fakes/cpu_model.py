"""A model for the CPU engine's loop: its logits depend on every token before, as the blocks given to it hold them.

It is as touchy as the real one. What it stores for a token tells how it was computed (alone, or from which place of its
block on), and that goes into every later logit. So an answer changes when blocks are mixed up, when a decoded block is
shared as a prompt, or when a chunk ends inside a block.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

BLOCK = 32


class FakeModel:
    """`steps` counts the calls, `computed` the tokens, `widest` the longest step."""

    def __init__(self, n_blocks: int, vocabulary: int = 120) -> None:
        self.vocabulary = vocabulary
        self._slots: NDArray[np.int64] = np.full((n_blocks, BLOCK), -1, np.int64)
        self.steps = self.computed = self.widest = 0

    def __call__(
        self,
        ids: NDArray[np.int32],
        past: NDArray[np.int32],
        begins: NDArray[np.int32],
        blocks: NDArray[np.int32],
        block_begins: NDArray[np.int32],
        rows: NDArray[np.int32],
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
                first = max(int(start), place // BLOCK * BLOCK) % BLOCK
                token = int(ids[begins[i] + place - start])
                self._slots[own[place // BLOCK], place % BLOCK] = token * 1000 + (99 if count == 1 else first)
            written.append({int(block) for block in own[int(start) // BLOCK :]})
            read.append({int(block) for block in own})
            history = self._slots[own].reshape(-1)[: start + count].copy()
            assert (history >= 0).all(), "a slot is read that was never written"
            histories += [history[: int(start) + place + 1] for place in range(count)]
        for i, mine in enumerate(written):
            assert not any(mine & theirs for j, theirs in enumerate(read) if j != i), "a block is written while shared"
        return np.stack([self._logits(histories[row]) for row in rows]) if len(rows) else np.zeros((0, 1), np.float32)

    def _logits(self, history: NDArray[np.int64]) -> NDArray[np.float32]:
        seed = int.from_bytes(blake2b(history.tobytes(), digest_size=8).digest(), "little")
        return np.random.default_rng(seed).normal(0, 2, self.vocabulary).astype(np.float32)
