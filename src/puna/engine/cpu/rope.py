"""Rotary frequencies: how fast each pair of a head turns from token to token. Pure; NumPy only.

Source: YaRN (arXiv:2309.00071) and ggml's rotary kernel, whose order of operations this follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.shape import RopeScaling


@dataclass(frozen=True, slots=True)
class Rope:
    """Angle of pair i at a position: `position * speeds[i]`. Cosine and sine are multiplied by `magnitude`."""

    speeds: NDArray[np.float32]
    magnitude: float


def rope(base: float, rotary: int, scaling: RopeScaling, factors: NDArray[np.float32] | None = None) -> Rope:
    """`rotary`: rotated elements of a head. `factors` divide the speeds, one a pair."""
    speeds = base ** (-np.arange(0, rotary, 2, dtype=np.float64) / rotary)
    if factors is not None:
        speeds = speeds / factors
    if scaling.kind == "linear":
        return Rope((speeds / scaling.factor).astype(np.float32), scaling.attention_factor)
    if scaling.kind == "yarn":
        slow = speeds / scaling.factor
        mix = _ramp(base, rotary, scaling)
        magnitude = 1 + 0.1 * math.log(scaling.factor) if scaling.factor > 1 else 1.0
        return Rope((slow * (1 - mix) + speeds * mix).astype(np.float32), magnitude * scaling.attention_factor)
    return Rope(speeds.astype(np.float32), scaling.attention_factor)


def _ramp(base: float, rotary: int, scaling: RopeScaling) -> NDArray[np.float64]:
    """For each pair: 1 where it turns fast enough to be kept, 0 where it is stretched, between them a slope."""

    def pair(turns: float) -> float:
        return rotary * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(0, math.floor(pair(scaling.fast))), min(rotary - 1, math.ceil(pair(scaling.slow)))
    slope = (np.arange(rotary // 2) - low) / max(0.001, high - low)
    return 1 - np.clip(slope, 0, 1)
