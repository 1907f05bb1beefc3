"""One row of logits to one token, in plain steps: the specification of what the native library does (`choice`).

Order and meaning are llama.cpp's: bias, penalties, top-k, typical, top-p, min-p, temperature; with Mirostat on, bias,
temperature and Mirostat alone. Each filter leaves a set of tokens, and the draw goes through the set by token id.
Random numbers come from (seed, position) and nothing else: neither the batch, nor the step, nor what was cached can
change a draw. Equal logits are ordered by token id. All that decides has the same bits on every machine (`odds`).

Pure but for Mirostat's running estimate, which belongs to one request. It knows no text, no cache and no other request.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.mask import Allowed
from puna.engine.cpu.odds import (
    DEEPEST,
    LN2,
    Logits,
    depths,
    exponential,
    in_grains,
    logarithm,
    total,
    uniform,
    weights,
)
from puna.engine.runner import Sampling
from puna.errors import EngineError, InvalidRequest

Ids: TypeAlias = NDArray[np.intp]

MIROSTAT_TERMS = 100
"""How many of the largest the first Mirostat estimates the slope from (llama.cpp's and the paper's m)."""

MOST_SURPRISE = 1e6
"""Mirostat's limit stays within this, in bits: no token can surprise so much, and no sum can overflow."""

NOT_NUMBERS = "the model's logits are not numbers"
NOTHING_LEFT = "no token is left to choose from"


def check(sampling: Sampling, vocabulary: int) -> None:
    """InvalidRequest, naming the field, for a setting that means nothing here."""
    if sampling.max_tokens < 1:
        raise InvalidRequest("max_tokens must be at least 1", param="max_tokens")
    if sampling.repeat_penalty <= 0:
        raise InvalidRequest("repeat_penalty must be more than 0", param="repeat_penalty")
    if sampling.mirostat not in {0, 1, 2}:
        raise InvalidRequest("mirostat must be 0, 1 or 2", param="mirostat")
    for field in ("temperature", "mirostat_tau", "mirostat_eta"):
        if not math.isfinite(getattr(sampling, field)):
            raise InvalidRequest(f"{field} must be a finite number", param=field)
    if any(not 0 <= token < vocabulary for token, _ in sampling.logit_bias):
        raise InvalidRequest(f"logit_bias names a token outside 0 … {vocabulary - 1}", param="logit_bias")
    if any(math.isnan(bias) or bias == math.inf for _, bias in sampling.logit_bias):
        raise InvalidRequest("a bias must be a finite number or -inf", param="logit_bias")


def penalise(row: Logits, history: Sequence[int], sampling: Sampling) -> None:
    """Lower, in place, what the last `repeat_last_n` tokens (prompt and answer) held. Negative: all of them."""
    last = sampling.repeat_last_n
    counts = Counter(history if last < 0 else history[-last:])
    ids = np.fromiter(counts, np.intp, len(counts))
    seen = np.fromiter(counts.values(), np.float32, len(counts))
    repeat = np.float32(sampling.repeat_penalty)
    values = row[ids]
    values = np.where(values <= 0, values * repeat, values / repeat)
    row[ids] = values - seen * np.float32(sampling.frequency_penalty) - np.float32(sampling.presence_penalty)


def largest(values: Logits, count: int) -> Ids:
    """Where the `count` largest values stand, largest first; equals by place."""
    return np.argsort(-values, kind="stable")[:count]


def typical(values: Logits, mass: float) -> Ids:
    """Places of the values whose surprise is nearest to the entropy, until their probability passes `mass`.

    Surprise less entropy is depth less mean depth: the logarithm of the sum is in both.
    """
    deep = depths(values)
    p = weights(deep)
    mean = np.float32(total(in_grains(p * np.minimum(deep, np.float32(DEEPEST)))) / total(p))
    order = np.argsort(np.abs(deep - mean), kind="stable")
    sums = np.cumsum(p[order], dtype=np.float64)
    return np.sort(order[: int(np.searchsorted(sums, max(mass, 0.0) * sums[-1], side="right")) + 1])


def nucleus(values: Logits, mass: float) -> Ids:
    """Places of the fewest largest values whose probability reaches `mass`; at least one."""
    order = np.argsort(-values, kind="stable")
    sums = np.cumsum(weights(depths(values))[order], dtype=np.float64)
    return np.sort(order[: int(np.searchsorted(sums, mass * sums[-1])) + 1])


def draw(p: Logits, number: float) -> int:
    """The first place whose running sum of weights passes that share, in [0, 1), of the whole."""
    sums = np.cumsum(p, dtype=np.float64)
    return int(np.searchsorted(sums, number * sums[-1], side="right"))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token; with log-probabilities wanted, its own and (token, log-probability) of the likeliest, largest first."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def log_normaliser(row: Logits) -> float:
    """log of the sum of exp over the row: a logit less this is its log-probability. Exact to about 1e-7."""
    return float(row.max()) + logarithm(total(weights(depths(row))))


def log_probabilities(row: Logits, token: int, count: int) -> Drawn:
    """`token` with its log-probability in `row` as it came from the model, and the `count` likeliest."""
    normaliser = log_normaliser(row)
    top = tuple((int(place), float(row[place]) - normaliser) for place in largest(row, count))
    return Drawn(token, float(row[token]) - normaliser, top)


class Sampler:
    """The sampling of one request. `banned`: tokens that never come (what `ignore_eos` takes away).

    `surprise_limit` is Mirostat's, in bits, and moves with every token.
    """

    def __init__(self, sampling: Sampling, banned: Sequence[int] = ()) -> None:
        self.sampling = sampling
        self.banned = np.asarray(banned, np.int32)
        self.bias_ids = np.asarray([token for token, _ in sampling.logit_bias], np.int32)
        self.bias = np.asarray([bias for _, bias in sampling.logit_bias], np.float32)
        self.penalises = sampling.repeat_last_n != 0 and (
            sampling.repeat_penalty != 1.0 or sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0
        )
        self.deepest = np.float32(-logarithm(min(sampling.min_p, 1.0)) if sampling.min_p > 0 else math.inf)
        self.surprise_limit = min(max(2.0 * sampling.mirostat_tau, -MOST_SURPRISE), MOST_SURPRISE)

    def __call__(self, row: Logits, history: Sequence[int], allowed: Allowed | None = None) -> Drawn:
        """The token after `history` (prompt and answer so far). `allowed`: which tokens a Constraint lets through.

        `row` is left as it is. EngineError when nothing can be drawn: every token is forbidden, or a logit is not a
        number.
        """
        token = self._token(row, history, allowed)
        if self.sampling.logprobs is None:
            return Drawn(token)
        return log_probabilities(row, token, self.sampling.logprobs)

    @np.errstate(over="ignore", invalid="ignore")  # what comes of it is looked at
    def _token(self, row: Logits, history: Sequence[int], allowed: Allowed | None) -> int:
        if not (row < np.inf).all():
            raise EngineError(NOT_NUMBERS)
        values = self._adjusted(row, history)
        if allowed is not None:
            values = np.where(allowed, values, np.float32(-np.inf))
        if not (values < np.inf).all():
            raise EngineError(NOT_NUMBERS)
        if values.max() == -np.inf:
            raise EngineError(NOTHING_LEFT)
        number = uniform(self.sampling.seed, len(history))
        return self._mirostat(values, number) if self.sampling.mirostat else self._chain(values, number)

    def _adjusted(self, row: Logits, history: Sequence[int]) -> Logits:
        row = row.copy()
        np.add.at(row, self.bias_ids, self.bias)
        row[self.banned] = -np.inf
        if self.penalises and history and not self.sampling.mirostat:
            penalise(row, history, self.sampling)
        return row

    def _chain(self, values: Logits, number: float) -> int:
        sampling = self.sampling
        places = np.arange(values.size)
        if 0 < sampling.top_k < values.size:
            places = np.sort(largest(values, sampling.top_k))
        if sampling.typical_p < 1:
            places = places[typical(values[places], sampling.typical_p)]
        if sampling.top_p < 1:
            places = places[nucleus(values[places], sampling.top_p)]
        if sampling.min_p > 0:
            places = places[depths(values[places]) <= self.deepest]
        kept = values[places]
        if sampling.temperature <= 0:
            return int(places[kept.argmax()])
        return int(places[draw(weights(depths(kept, sampling.temperature)), number)])

    def _mirostat(self, values: Logits, number: float) -> int:
        """Keep the surprise of the answer near tau (Basu et al. 2020): by the slope of the ranks, or by a plain cut."""
        sampling = self.sampling
        if sampling.temperature <= 0:
            return int(values.argmax())
        deep = depths(values, sampling.temperature)
        if sampling.mirostat == 1:
            kept = np.sort(largest(values, self._ranks(deep[largest(values, MIROSTAT_TERMS)], values.size)))
        else:
            deepest = np.float32(self.surprise_limit * LN2 - logarithm(total(weights(deep))))
            kept = np.flatnonzero(deep <= max(deepest, np.float32(0)))
        p = weights(deep[kept])
        chosen = kept[draw(p, number)]
        surprise = (logarithm(total(p)) + float(deep[chosen])) / LN2
        limit = self.surprise_limit - sampling.mirostat_eta * (surprise - sampling.mirostat_tau)
        self.surprise_limit = min(max(limit, -MOST_SURPRISE), MOST_SURPRISE)
        return int(chosen)

    def _ranks(self, head: Logits, vocabulary: int) -> int:
        """How many of the largest the first Mirostat keeps, were the vocabulary distributed by Zipf's law.

        `head`: the depths of the largest, largest value first.
        """
        products = squares = 0.0
        for rank in range(1, int(np.isfinite(head).sum())):
            step = logarithm((rank + 1) / rank)
            products += step * (float(head[rank]) - float(head[rank - 1]))
            squares += step * step
        if squares == 0:
            return 1
        slope = products / squares
        excess = slope - 1.0
        rest = 1.0 - exponential(-excess * logarithm(float(vocabulary)))
        if slope <= 0 or excess == 0 or rest == 0:
            return vocabulary
        # (excess * 2^limit / rest)^(1/slope); excess and rest have one sign.
        count = exponential((logarithm(abs(excess)) + self.surprise_limit * LN2 - logarithm(abs(rest))) / slope)
        return int(min(max(count, 1.0), float(vocabulary)))
