"""Weights and logarithms against the mathematics library, and their sums in any order."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from puna.engine.cpu.odds import DEEPEST, MOST_TOKENS, coolness, depths, exponential, logarithm, total, weights


def test_weights_are_powers_of_e() -> None:
    deep = np.linspace(0, 30, 300_001).astype(np.float32)
    exact = np.exp(-deep.astype(np.float64))
    assert np.abs(weights(deep) - exact).max() < 1e-7
    assert weights(deep)[0] == 1
    assert not weights(deep[deep >= DEEPEST]).any()
    assert weights(np.array([np.inf], np.float32)) == [0]


def test_weights_fall_with_depth() -> None:
    falls = np.diff(weights(np.linspace(0, 30, 300_001).astype(np.float32)))
    assert falls.max() < 2**-22, "but for a unit in the last place"


def test_sums_of_weights_are_exact_in_any_order() -> None:
    many = weights(np.random.default_rng(1).exponential(5, MOST_TOKENS).astype(np.float32))
    assert total(many) == math.fsum(many) == total(np.sort(many)) == float(np.cumsum(many, dtype=np.float64)[-1])
    assert total(np.ones(MOST_TOKENS, np.float32)) == MOST_TOKENS


def test_logarithms_and_powers_are_those_of_the_library() -> None:
    chance = random.Random(1)
    for _ in range(5_000):
        x = 10 ** chance.uniform(-300, 300)
        assert logarithm(x) == pytest.approx(math.log(x), rel=1e-15, abs=1e-15)
        y = chance.uniform(-690, 690)
        assert exponential(y) == pytest.approx(math.exp(y), rel=1e-14)
    assert logarithm(1.0) == 0
    assert logarithm(5e-324) == pytest.approx(math.log(5e-324))
    assert exponential(0.0) == 1
    assert exponential(1e9) == exponential(700.0)


def test_depths_at_a_temperature() -> None:
    row = np.array([1, 3, -np.inf, 2], np.float32)
    assert depths(row).tolist() == [2, 0, math.inf, 1]
    assert depths(row, 0.5).tolist() == [4, 0, math.inf, 2]
    assert coolness(0.0) == coolness(1e-9)
    assert coolness(1e300) > 0
