"""Cosines and sines, against the C library's, which are right to the last bit of a double."""

from __future__ import annotations

import math
from ctypes import CDLL

import numpy as np


def test_angles_of_long_contexts(variants: dict[str, CDLL]) -> None:
    random = np.random.default_rng(0)
    speeds = (10000.0 ** (-np.arange(32) / 32)).astype(np.float32).astype(np.float64)
    positions = np.concatenate([np.arange(300), random.integers(0, 2**20, 500), [2**20 - 1, 2**20]])
    far = random.uniform(-(2.0**31), 2.0**31, 500)
    close = np.arange(-40, 40) * (math.pi / 4)
    angles = np.concatenate([(positions[:, None] * speeds).reshape(-1), far, close, [0.0, -0.0, 1e-300]])
    expected = np.array([[math.cos(x) for x in angles], [math.sin(x) for x in angles]])
    found = np.empty((2, len(angles)), np.float32)
    bits = set()
    for library in variants.values():
        assert not library.puna_angles(angles.ctypes.data, len(angles), found[0].ctypes.data, found[1].ctypes.data)
        assert np.abs(found - expected).max() < 6e-8, "half of a float's last bit"
        bits.add(found.tobytes())
    assert len(bits) == 1


def test_angles_that_are_too_far(native: CDLL) -> None:
    out = np.empty((2, 1), np.float32)
    for value in (2.0**31, -(2.0**40), float("inf"), float("nan")):
        angle = np.array([value])
        assert native.puna_angles(angle.ctypes.data, 1, out[0].ctypes.data, out[1].ctypes.data) == 1
