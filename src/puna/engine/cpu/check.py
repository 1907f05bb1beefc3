"""Check: what a loaded model has to show before it serves. One short step, some milliseconds."""

from __future__ import annotations

import numpy as np

from puna.engine.cpu.forward import Forward
from puna.errors import LoadFailed

PROMPT = 4
"""Tokens of the step, if the context has room for so many."""


def check_numbers(model: Forward) -> None:
    """Compute a first step in block 0, which then is nobody's. LoadFailed if its logits are no numbers."""
    tokens = min(PROMPT, model.context)
    prompt = [101 * place % model.vocabulary for place in range(tokens)]
    logits = model(prompt, [0], [0, tokens], [0], [0, 1], range(tokens))
    if not np.isfinite(logits).all():
        raise LoadFailed("the model's first step gave logits that are no numbers")
