"""Log-probabilities as an engine gives them, to such as an answer can hold. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from puna.errors import EngineError
from puna.types import Candidate, TokenLogprob

UNLIKELY = -9999.0
"""What OpenAI gives for a probability of nothing."""


def finite(logprob: float) -> float:
    """A probability of nothing becomes UNLIKELY. EngineError when it is no number: the model computes none."""
    if math.isnan(logprob) or logprob == math.inf:
        raise EngineError("the model's log-probabilities are not numbers")
    return logprob if logprob > -math.inf else UNLIKELY


def entry(token: int, data: bytes, logprob: float, top: Sequence[Candidate]) -> TokenLogprob:
    """A token's own, and those of its alternatives, all of them finite."""
    alternatives = tuple(Candidate(item.token, item.data, finite(item.logprob)) for item in top)
    return TokenLogprob(Candidate(token, data, finite(logprob)), alternatives)
