"""Bits of a vocabulary."""

from __future__ import annotations

import numpy as np
import pytest

from puna.engine.cpu.mask import Mask


@pytest.mark.parametrize("size", [1, 31, 32, 33, 1_000, 49_153])
def test_bits_and_truth_values_are_the_same(size: int) -> None:
    allowed = np.random.default_rng(size).random(size) < 0.3
    mask = Mask.of(allowed)
    assert np.array_equal(mask.allowed(), allowed)
    assert mask.words.size * 32 >= size
    assert mask.address == mask.words.ctypes.data


def test_a_new_one_allows_nothing() -> None:
    assert not Mask(100).allowed().any()


def test_the_lowest_bit_is_the_first_token() -> None:
    allowed = np.zeros(64, np.bool_)
    allowed[[0, 33]] = True
    assert Mask.of(allowed).words.tolist() == [1, 2]
