"""The tokens of one step, from its logits: one call for all rows. A thin form over `sampler`, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.mask import Allowed
from puna.engine.cpu.sampler import Drawn, Sampler
from puna.errors import PunaError


@dataclass(frozen=True, slots=True)
class TokenAsk:
    """The token after `history`, from row number `row`. `allowed`: what a Constraint lets through, None: all."""

    sampler: Sampler
    row: int
    history: Sequence[int]
    allowed: Allowed | None = None


def choose(logits: NDArray[np.float32], asks: Sequence[TokenAsk]) -> list[Drawn | PunaError]:
    """A token for each ask, or why there is none, which concerns no other."""
    return [_one(logits, ask) for ask in asks]


def _one(logits: NDArray[np.float32], ask: TokenAsk) -> Drawn | PunaError:
    try:
        return ask.sampler(logits[ask.row], ask.history, ask.allowed)
    except PunaError as error:
        return error
