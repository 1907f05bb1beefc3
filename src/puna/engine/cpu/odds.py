"""What the draw of a token is made of: weights, their sums, logarithms, random numbers. The same bits on every machine.

A function of a mathematics library differs by a unit in the last place from one machine to the next, and a sum of
floats by its order. So these are written out in additions, multiplications and divisions alone, and a weight is a whole
number of 2**-34: the sum of as many as MOST_TOKENS is exact in float64, in whatever order it is taken. `native/odds.h`
is the same in C, operation by operation.
"""

from __future__ import annotations

import math
import struct
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Logits: TypeAlias = NDArray[np.float32]

MOST_TOKENS = 1 << 19
"""Vocabularies up to this size have exact sums of weights."""

COLDEST, HOTTEST = 1e-6, 1e30
"""Below the first temperature only equals share a draw, above the second all tokens are alike. More would overflow."""

DEEPEST = 25.0
"""What lies further below the largest weighs nothing."""

GRAIN = 2.0**-11
"""Added to a float32 from 0 to 1 and taken away again, it leaves a whole number of 2**-34."""

# e^x = 2^n e^r with r in -0.35 … 0.35, whose polynomial is the Cephes library's.
_LOG2_E = 1.44269504
_ROUNDER = 12582912.0  # 1.5 * 2^23: a small float32 added to it loses its fraction, ties to even
_LN2_HIGH = 0.693359375
_LN2_LOW = 2.12194440e-4  # what is too much in _LN2_HIGH
_POLYNOMIAL = (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666666e-1, 5.0000001e-1)

LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_LN2_UPPER = 6.93147180369123816490e-01  # LN2 in two parts: its products with whole numbers up to 2^20 are exact
_LN2_REST = 1.90821492927058770002e-10
_MOST_EXPONENT = 700.0


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that only `seed` and `position` decide."""
    digest = blake2b(struct.pack("<QQ", seed & 0xFFFFFFFFFFFFFFFF, position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def coolness(temperature: float) -> np.float32:
    """What depths are multiplied by at that temperature."""
    cool: np.float32 = np.float32(1) / np.float32(min(max(temperature, COLDEST), HOTTEST))
    return cool


def depths(values: Logits, temperature: float = 1.0) -> Logits:
    """How far each value lies below the largest, at that temperature: 0 … inf. The largest must be finite."""
    with np.errstate(over="ignore"):
        deep: Logits = (values.max() - values) * coolness(temperature)
    return deep


def weights(deep: Logits) -> Logits:
    """e**-depth to about a unit in the last place, as whole numbers of 2**-34: unnormalised probabilities."""
    x = -np.minimum(deep, np.float32(DEEPEST))
    shifted = x * np.float32(_LOG2_E) + np.float32(_ROUNDER)
    n = shifted - np.float32(_ROUNDER)
    r = (x - n * np.float32(_LN2_HIGH)) + n * np.float32(_LN2_LOW)
    p = np.full_like(r, _POLYNOMIAL[0])
    for factor in _POLYNOMIAL[1:]:
        p = p * r + np.float32(factor)
    p = (p * (r * r) + r) + np.float32(1)
    return in_grains(np.ldexp(p, n.astype(np.int32)))


def in_grains(values: Logits) -> Logits:
    """Values from 0 to 1 as whole numbers of 2**-34."""
    rounded: Logits = (values + np.float32(GRAIN)) - np.float32(GRAIN)
    return rounded


def total(grains: Logits) -> float:
    """The sum of whole numbers of 2**-34: exact."""
    return float(grains.sum(dtype=np.float64))


def logarithm(x: float) -> float:
    """ln x of a finite x above 0, to about a unit in the last place."""
    mantissa, exponent = math.frexp(x)
    if mantissa < _SQRT_HALF:
        mantissa, exponent = mantissa * 2, exponent - 1
    s = (mantissa - 1) / (mantissa + 1)
    z = s * s
    p = 1.0 / 23
    for odd in range(21, 1, -2):
        p = p * z + 1.0 / odd
    return exponent * LN2 + 2 * (s + s * z * p)


def exponential(x: float) -> float:
    """e**x to some units in the last place; x is cut to -700 … 700."""
    x = min(max(x, -_MOST_EXPONENT), _MOST_EXPONENT)
    n = int(x / LN2 + (0.5 if x >= 0 else -0.5))
    r = (x - n * _LN2_UPPER) - n * _LN2_REST
    p = 1.0
    for k in range(14, 0, -1):
        p = p * r / k + 1
    return math.ldexp(p, n)
