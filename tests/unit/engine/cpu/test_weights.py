"""Unpacking against the `gguf` package's own dequantisation, bit for bit, on random bytes of every type."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from puna.engine.cpu import weights
from puna.engine.cpu.supported import TYPES
from puna.model.ggml import TensorType

ROWS, COLUMNS = 24, 768


@pytest.mark.parametrize("kind", sorted(TYPES - {"F32", "F16"}))
def test_a_type_has_the_values_it_should(kind: str) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (ROWS, TensorType[kind].bytes_of(COLUMNS)), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = dequantize(raw, GGMLQuantizationType[kind])
        got = weights.values(kind, raw)
    usable = np.isfinite(expected)
    assert usable.mean() > 0.8
    assert got.shape == (ROWS, COLUMNS)
    np.testing.assert_array_equal(got[usable], expected[usable])


@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_plain_numbers_stay_what_they_are(kind: str) -> None:
    numbers = np.random.default_rng(1).standard_normal((ROWS, COLUMNS)).astype(f"<f{int(kind[1:]) // 8}")
    np.testing.assert_array_equal(weights.values(kind, numbers.view(np.uint8)), numbers.astype(np.float32))


@pytest.mark.parametrize("kind", sorted(TYPES - weights.DENSE))
def test_the_integers_fit_their_bits(kind: str) -> None:
    raw = np.random.default_rng(2).integers(0, 256, (ROWS, TensorType[kind].bytes_of(COLUMNS)), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        quantised = weights.unpack(kind, raw)
    low, high = int(quantised.integers.min()), int(quantised.integers.max())
    limits = {4: {np.uint8: (0, 15), np.int8: (-8, 7)}, 8: {np.uint8: (0, 255), np.int8: (-128, 127)}}
    allowed = limits[quantised.bits][quantised.integers.dtype.type]
    assert allowed[0] <= low < high <= allowed[1]
    assert quantised.scales.shape == quantised.integers.shape[:2]


def test_bytes_are_near() -> None:
    numbers = np.random.default_rng(3).standard_normal((ROWS, COLUMNS // 16, 16)).astype(np.float32)
    integers = np.rint(numbers * 8).astype(np.int8)
    quantised = weights.Quantised(integers, np.full(integers.shape[:2], 0.1, np.float32), None, 8)
    near = weights.in_bytes(quantised, 32)
    assert near.integers.shape == (ROWS, COLUMNS // 32, 32)
    error = np.abs(near.values() - quantised.values()).max()
    assert error <= 0.5 * np.abs(quantised.values()).max() / 127 + 1e-6


def test_a_row_of_zeros_becomes_zeros() -> None:
    zeros = weights.Quantised(np.zeros((1, 2, 16), np.int8), np.zeros((1, 2), np.float32), None, 8)
    assert not weights.in_bytes(zeros, 32).values().any()
