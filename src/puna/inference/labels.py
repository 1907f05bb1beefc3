"""Labels: texts of which one is the answer, weighed by their tokens.

A label's probability is that the answer begins with it, and with no longer label that begins with it too; so labels
exclude each other, whatever they are made of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from puna.engine.runner import Runner
from puna.errors import EngineError
from puna.inference.logprobs import UNLIKELY, finite

LabelIds: TypeAlias = tuple[int, ...]


async def label_logprobs(runner: Runner, before: LabelIds, labels: Sequence[LabelIds]) -> tuple[list[float], int]:
    """The log-probability of each label's tokens after `before`; how many of those were cached.

    What several labels begin with is computed once.
    """
    following: dict[LabelIds, dict[int, float]] = {}
    for label in labels:
        for place, token in enumerate(label):
            following.setdefault(label[:place], {})[token] = 0.0
    cached = 0
    for begun, logprobs in following.items():
        weights = await runner.weigh((*before, *begun), tuple(logprobs))
        logprobs.update(zip(logprobs, map(finite, weights.logprobs), strict=True))
        cached = cached if begun else weights.cached
    return [sum(following[label[:place]][token] for place, token in enumerate(label)) for label in labels], cached


def shares(labels: Sequence[LabelIds], logprobs: Sequence[float]) -> tuple[float, ...]:
    """Each label's part of what all have together. A label that begins another gives up what is the other's."""
    most = max(logprobs)
    if most <= UNLIKELY:
        raise EngineError("the model gives none of the labels any probability")
    whole = [math.exp(logprob - most) for logprob in logprobs]
    own = [
        max(part - sum(whole[place] for place in _next_longer(labels, label)), 0.0)
        for label, part in zip(labels, whole, strict=True)
    ]
    total = sum(own)
    return tuple(part / total for part in own)


def _next_longer(labels: Sequence[LabelIds], label: LabelIds) -> list[int]:
    """Which labels begin with this one, but for those that a longer one of them begins."""
    longer = [place for place, other in enumerate(labels) if len(other) > len(label) and other[: len(label)] == label]
    return [
        place
        for place in longer
        if not any(
            len(labels[other]) < len(labels[place]) and labels[place][: len(labels[other])] == labels[other]
            for other in longer
        )
    ]
