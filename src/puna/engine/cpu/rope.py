"""Rotary frequencies: how fast each pair of a head turns from token to token. Pure; NumPy only.

The same bits on every machine: logarithms and powers are decimal ones, which are rounded correctly everywhere, and the
rest is plain floating point. A processor's or a library's own would differ in the last bit.

Source: YaRN (arXiv:2309.00071) and ggml's rotary kernel, whose order of operations this follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.shape import RopeScaling

_EXACT = Context(prec=50)
_PI = Decimal("3.14159265358979323846264338327950288419716939937510")


@dataclass(frozen=True, slots=True)
class Rope:
    """Angle of pair i at a position: `position * speeds[i]`. Cosine and sine are multiplied by `magnitude`."""

    speeds: NDArray[np.float32]
    magnitude: float


def rope(base: float, rotary: int, scaling: RopeScaling, factors: NDArray[np.float32] | None = None) -> Rope:
    """`rotary`: rotated elements of a head. `factors` divide the speeds, one a pair."""
    speeds = _powers(base, rotary)
    if factors is not None:
        speeds = speeds / factors
    if scaling.kind == "linear":
        return Rope((speeds / scaling.factor).astype(np.float32), scaling.attention_factor)
    if scaling.kind == "yarn":
        slow = speeds / scaling.factor
        mix = _ramp(base, rotary, scaling)
        magnitude = 1 + 0.1 * float(_EXACT.ln(Decimal(scaling.factor))) if scaling.factor > 1 else 1.0
        return Rope((slow * (1 - mix) + speeds * mix).astype(np.float32), magnitude * scaling.attention_factor)
    return Rope(speeds.astype(np.float32), scaling.attention_factor)


def _powers(base: float, rotary: int) -> NDArray[np.float64]:
    """base ** (-2 i / rotary) for each pair i."""
    with localcontext(_EXACT):
        step = (Decimal(base).ln() * -2 / rotary).exp()
        power, powers = Decimal(1), []
        for _ in range(rotary // 2):
            powers.append(float(power))
            power *= step
    return np.array(powers)


def _ramp(base: float, rotary: int, scaling: RopeScaling) -> NDArray[np.float64]:
    """For each pair: 1 where it turns fast enough to be kept, 0 where it is stretched, between them a slope."""

    def pair(turns: float) -> Decimal:
        with localcontext(_EXACT):
            context = Decimal(scaling.original_context)
            return rotary * (context / (Decimal(turns) * 2 * _PI)).ln() / (2 * Decimal(base).ln())

    low, high = max(0, math.floor(pair(scaling.fast))), min(rotary - 1, math.ceil(pair(scaling.slow)))
    slope = (np.arange(rotary // 2) - low) / max(0.001, high - low)
    return 1 - np.clip(slope, 0, 1)
