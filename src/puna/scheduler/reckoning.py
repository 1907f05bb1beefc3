"""What a model would take, told before it is loaded. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from puna.engine.memory import Estimate

STEP = 256
"""Tokens: contexts are looked for in multiples of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoning:
    """A model as a request would have it loaded, and what there is for it.

    `slots`: requests at once, each with `num_ctx` tokens. `available`: bytes that could be had, those of models that
    are loaded now included. `largest`: the largest context that would fit for one request; None: not even the least.
    """

    engine: str
    reason: str
    num_ctx: int
    slots: int
    estimate: Estimate
    available: int
    largest: int | None

    @property
    def fits(self) -> bool:
        return self.estimate.total <= self.available


def largest_context(need: Callable[[int], int], available: int, most: int) -> int | None:
    """The largest multiple of STEP (or `most` itself) of which `need`, which grows with it, is at most `available`."""
    if need(most) <= available:
        return most
    low, high = 0, -(-most // STEP)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if need(middle * STEP) <= available else (low, middle)
    return low * STEP or None
