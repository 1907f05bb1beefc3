"""Check: what a loaded model has to show before it serves. Short prompts and two steps, some tens of milliseconds.

Processors and releases of the runtime differ in the kernels they choose. So what the engine says of itself is not taken
from a list of known processors but seen at every load.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.forward import Forward
from puna.errors import LoadFailed

COMPANY = 5
"""Sequences in the larger step."""

PROMPT = 8
"""Tokens of each prompt."""


def repeats(model: Forward) -> bool:
    """Whether a token's logits are the same bytes alone and in company. LoadFailed if they are no numbers.

    Takes the model's cache for itself: allocate it anew afterwards.
    """
    model.allocate(COMPANY)
    alone = _next(model, [0])
    together = _next(model, range(COMPANY))
    if not (np.isfinite(alone).all() and np.isfinite(together).all()):
        raise LoadFailed("this processor computes something else than numbers with this model")
    return bool(np.array_equal(alone[0], together[0]))


def _next(model: Forward, sequences: Sequence[int]) -> NDArray[np.float32]:
    """Prompts, each by itself, into the blocks of these numbers; then one token more of all in a single step."""
    for sequence in sequences:
        prompt = [_token(sequence, place, model) for place in range(PROMPT)]
        model(prompt, range(PROMPT), [0], [0, PROMPT], [sequence], [0, 1], [PROMPT - 1])
    count = len(sequences)
    past, each = [PROMPT] * count, range(count + 1)
    ids = [_token(sequence, PROMPT, model) for sequence in sequences]
    rows: NDArray[np.float32] = model(ids, past, past, each, sequences, each, each[:-1]).copy()
    return rows


def _token(sequence: int, place: int, model: Forward) -> int:
    """Some tokens, others for each sequence."""
    return (37 * (sequence + 1) + 101 * place) % model.vocabulary
