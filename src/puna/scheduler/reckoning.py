"""What a model would take, told before it is loaded. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from puna.engine.memory import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoning:
    """A model as a request would have it loaded, and what there is for it.

    `slots`: requests at once, each with `num_ctx` tokens. `available`: bytes that could be had, those of models that
    are loaded now included. `largest`: the largest context that would fit for each of `least_slots` requests, one
    unless a setting fixes how many; None: not even the least.
    """

    engine: str
    reason: str
    num_ctx: int
    slots: int
    estimate: Estimate
    available: int
    largest: int | None
    least_slots: int

    @property
    def fits(self) -> bool:
        return self.estimate.total <= self.available
