"""Every logit's bytes: the same in any company, however a prompt is cut, for any number of threads and any variant."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from puna.engine.cpu import library
from puna.engine.cpu.forward import Forward
from puna.model.ggml import TensorType
from puna.model.gguf import read_header
from real.cpu.models import VOCABULARY, Floats, Recipe, forward_logits, write_model
from real.cpu.test_families import RECIPES

POSITIONS = 90
BLOCKS = 40
STATES = 7
RECIPES_OF_BITS = {
    **{
        name: RECIPES[name] for name in ("llama", "gemma2", "gemma3", "qwen3moe", "gpt-oss", "lfm2", "qwen35", "gemma4")
    },
    "gemma4, experts, Q8_0": replace(RECIPES["gemma4, experts"], kind=TensorType.Q8_0),
    "lfm2, a convolution last, Q4_K": replace(RECIPES["lfm2, a convolution last"], kind=TensorType.Q4_K),
    "qwen35, linear attention last, Q8_0": replace(RECIPES["qwen35, linear attention last"], kind=TensorType.Q8_0),
    **{kind: Recipe(kind=TensorType[kind]) for kind in ("Q4_1", "Q4_K", "Q6_K", "Q8_0", "BF16", "IQ4_XS")},
}


@pytest.fixture(params=["f16", "q8_0"])
def cache_type(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(params=RECIPES_OF_BITS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    write_model(path, RECIPES_OF_BITS[request.param])
    return path


def tokens(seed: int, count: int = POSITIONS) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(3, VOCABULARY) for _ in range(count)]


class Sequences:
    """Several sequences in one cache, each advanced by pieces; the blocks of all are mixed and full of leavings.

    Some pieces have guesses behind them, which are wrong. A state, of a model that has them, absorbs any part of a
    piece, and is sometimes not there.
    """

    def __init__(self, model: Path, seed: int, cache_type: str) -> None:
        self.source = random.Random(seed)
        self.forward = Forward(model, read_header(model), threads=2, num_ctx=POSITIONS, cache_type=cache_type)
        self.stateful = self.forward.bytes_per_state > 0
        self.forward.allocate(BLOCKS, STATES if self.stateful else 0)
        self.free = self.source.sample(range(BLOCKS), BLOCKS)
        self.states = self.source.sample(range(STATES), STATES)
        self.known: list[list[int]] = []
        self.past: list[int] = []
        self.absorbed: list[int] = []
        self.blocks: list[list[int]] = []
        self.logits: list[list[Floats]] = []

    def add(self, ids: Sequence[int]) -> int:
        self.known.append(list(ids))
        self.past.append(0)
        self.absorbed.append(0)
        self.blocks.append([self.free.pop() for _ in range(-(-len(ids) // self.forward.block_size))])
        self.logits.append([])
        return len(self.known) - 1

    def step(self) -> bool:
        """A piece of some length from each that has something left, in any order."""
        numbers = [i for i, ids in enumerate(self.known) if self.past[i] < len(ids)]
        self.source.shuffle(numbers)
        ids: list[int] = []
        past, begins, blocks, block_begins = [], [0], [], [0]
        states: list[tuple[int, int, int]] = []
        for i in numbers:
            start, size = self.past[i], self.forward.block_size
            end = min(len(self.known[i]), start + self.source.choice([1, 1, 2, 7, 31, 32, 33, 64]))
            guesses = min(self.source.choice([0, 0, 1, 5]), len(self.blocks[i]) * size - end)
            ids += self.known[i][start:end] + tokens(start, guesses)
            past.append(start)
            begins.append(len(ids))
            blocks += self.blocks[i][: -(-(end + guesses) // size)]
            block_begins.append(len(blocks))
            keep = self.source.choice([start, end, self.source.randint(start, end)])
            there = self.source.random() < 0.8
            states.append((self.states[i] if there else -1, self.absorbed[i], keep))
            self.absorbed[i] = keep if there else self.absorbed[i]
            self.past[i] = end
        if not numbers:
            return False
        told = np.ascontiguousarray(np.array(states, np.int32).T) if self.stateful else None
        rows = self.forward(ids, past, begins, blocks, block_begins, range(len(ids)), told)
        for i, start, begin in zip(numbers, past, begins, strict=False):
            self.logits[i].append(rows[begin : begin + self.past[i] - start].copy())
        return True


def test_company_and_cuts_change_no_byte(model: Path, cache_type: str) -> None:
    ids = tokens(1)
    alone = forward_logits(model, ids, num_ctx=POSITIONS, cache_type=cache_type)
    for trial in range(3):
        together = Sequences(model, trial, cache_type)
        for other in range(trial * 2):
            together.add(tokens(100 + other, together.source.randrange(1, POSITIONS)))
        mine = together.add(ids)
        while together.step():
            pass
        np.testing.assert_array_equal(np.concatenate(together.logits[mine]), alone)
        together.forward.close()


def test_threads_change_no_byte(model: Path, cache_type: str) -> None:
    ids = tokens(2)
    alone = forward_logits(model, ids, num_ctx=POSITIONS, cache_type=cache_type, threads=1)
    for threads in (2, 3, 4):
        others = forward_logits(model, ids, num_ctx=POSITIONS, cache_type=cache_type, threads=threads)
        np.testing.assert_array_equal(others, alone)


def test_variants_change_no_byte(model: Path, cache_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tokens(3)
    usual = forward_logits(model, ids, num_ctx=POSITIONS, cache_type=cache_type)
    assert "portable" in library.variants()
    for variant in library.variants():
        monkeypatch.setenv(library.VARIABLE, variant)
        np.testing.assert_array_equal(forward_logits(model, ids, num_ctx=POSITIONS, cache_type=cache_type), usual)
