"""One row of logits to one token. Pure but for Mirostat's running estimate, which belongs to one request.

Order and meaning are llama.cpp's: bias, penalties, top-k, typical, top-p, min-p, temperature; with Mirostat on, bias,
temperature and Mirostat alone. Random numbers come from (seed, position) and nothing else: neither the batch, nor the
step, nor what was cached can change a draw. Equal logits are ordered by token id.

It knows no text, no cache and no other request.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from puna.engine.runner import Sampling
from puna.errors import EngineError, InvalidRequest

Logits: TypeAlias = NDArray[np.float32]
Ids: TypeAlias = NDArray[np.intp]
Allowed: TypeAlias = NDArray[np.bool_]

CELLS = 64
"""Values that share one maximum when the largest are looked for: one cheap pass instead of a partition of the row."""

HEAD = 512
"""How many of the largest are sorted first when the nucleus of a whole vocabulary is looked for."""

MIROSTAT_TERMS = 100
"""How many of the largest the first Mirostat estimates the slope from (llama.cpp's and the paper's m)."""

COLDEST = 1e-6
"""Below this temperature only equals share a draw, and the quotient would overflow."""


def check(sampling: Sampling, vocabulary: int) -> None:
    """InvalidRequest, naming the field, for a setting that means nothing here."""
    if sampling.max_tokens < 1:
        raise InvalidRequest("max_tokens must be at least 1", param="max_tokens")
    if sampling.repeat_penalty <= 0:
        raise InvalidRequest("repeat_penalty must be more than 0", param="repeat_penalty")
    if sampling.mirostat not in {0, 1, 2}:
        raise InvalidRequest("mirostat must be 0, 1 or 2", param="mirostat")
    if any(not 0 <= token < vocabulary for token, _ in sampling.logit_bias):
        raise InvalidRequest(f"logit_bias names a token outside 0 … {vocabulary - 1}", param="logit_bias")
    if any(math.isnan(bias) or bias == math.inf for _, bias in sampling.logit_bias):
        raise InvalidRequest("a bias must be a finite number or -inf", param="logit_bias")


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that only `seed` and `position` decide."""
    digest = blake2b(struct.pack("<QQ", seed & 0xFFFFFFFFFFFFFFFF, position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def largest(values: Logits, count: int) -> Ids:
    """Where the `count` largest values stand, largest first; equals by place."""
    size = values.size
    count = min(count, size)
    width = size // CELLS
    if count < width:
        cells = values[: width * CELLS].reshape(CELLS, width).max(axis=0)
        bound = np.partition(cells, width - count)[width - count]
    else:
        bound = np.partition(values, size - count)[size - count]
    places = np.flatnonzero(values >= bound)
    return places[np.argsort(-values[places], kind="stable")[:count]]


def weights(values: Logits) -> NDArray[np.float64]:
    """Unnormalised probabilities: the largest value weighs 1."""
    shares: NDArray[np.float64] = np.exp((values - values.max()).astype(np.float64))
    return shares


def log_normaliser(row: Logits) -> float:
    """log of the sum of exp over the row: a logit less this is its log-probability. Exact to about 1e-7."""
    peak = row.max()
    return float(peak) + float(np.log(np.exp(row - peak).sum(dtype=np.float64)))


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


def typical(values: Logits, mass: float) -> Ids:
    """Places of the values whose surprise is nearest to the entropy, until their probability passes `mass`."""
    p = weights(values)
    p /= p.sum()
    surprise = -np.log(np.maximum(p, np.finfo(np.float64).tiny))
    order = np.argsort(np.abs(surprise - (p * surprise).sum()), kind="stable")
    kept = int(np.searchsorted(np.cumsum(p[order]), mass, side="right")) + 1
    return np.sort(order[:kept])


def nucleus(values: Logits, mass: float) -> Ids:
    """Places of the fewest largest values whose probability reaches `mass`, largest first; at least one."""
    count = HEAD
    total = float(np.exp(values - values.max()).sum(dtype=np.float64)) if values.size > HEAD else 0.0
    while True:
        head = largest(values, count)
        sums = np.cumsum(weights(values[head]))
        whole = head.size == values.size
        goal = mass * (sums[-1] if whole else total)
        if whole or sums[-1] >= goal:
            return head[: int(np.searchsorted(sums, goal)) + 1]
        count *= 8


def draw(values: Logits, number: float) -> int:
    """The place that `number` in [0, 1) falls on when each value has its share of exp(value)."""
    if values.size <= HEAD:
        return _fall(np.cumsum(weights(values)), number)
    p: Logits = np.exp(values - values.max())
    width = -(-p.size // CELLS)
    padded = np.zeros(CELLS * width, np.float32)
    padded[: p.size] = p
    cells = padded.reshape(CELLS, width)
    sums = np.cumsum(cells.sum(axis=0, dtype=np.float64))
    column = _fall(sums, number)
    before = float(sums[column - 1]) if column else 0.0
    inside = np.cumsum(cells[:, column], dtype=np.float64)
    place = _fall(inside, (number * float(sums[-1]) - before) / float(inside[-1]))
    return place * width + column


def _fall(sums: NDArray[np.float64], number: float) -> int:
    """The first place whose running sum passes that share of the whole: never one that weighs nothing."""
    share = min(max(number, 0.0) * float(sums[-1]), float(np.nextafter(sums[-1], 0.0)))
    return int(np.searchsorted(sums, share, side="right"))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token; with log-probabilities wanted, its own and (token, log-probability) of the likeliest, largest first."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def log_probabilities(row: Logits, token: int, count: int) -> Drawn:
    """`token` with its log-probability in `row` as it came from the model, and the `count` likeliest."""
    normaliser = log_normaliser(row)
    places = largest(row, count) if count else ()
    top = tuple((int(place), float(row[place]) - normaliser) for place in places)
    return Drawn(token, float(row[token]) - normaliser, top)


class Sampler:
    """The sampling of one request. `banned`: tokens that never come (what `ignore_eos` takes away)."""

    def __init__(self, sampling: Sampling, banned: Sequence[int] = ()) -> None:
        self._sampling = sampling
        self._banned = np.asarray(banned, np.intp)
        self._bias_ids = np.asarray([token for token, _ in sampling.logit_bias], np.intp)
        self._bias = np.asarray([bias for _, bias in sampling.logit_bias], np.float32)
        self._penalises = sampling.repeat_last_n != 0 and (
            sampling.repeat_penalty != 1.0 or sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0
        )
        self._surprise_limit = 2.0 * sampling.mirostat_tau

    def __call__(self, row: Logits, history: Sequence[int], allowed: Allowed | None = None) -> Drawn:
        """The token after `history` (prompt and answer so far). `allowed`: which tokens a Constraint lets through.

        `row` is left as it is. EngineError when nothing can be drawn: every token is forbidden, or a logit is not a
        number.
        """
        token = self._token(row, history, allowed)
        if self._sampling.logprobs is None:
            return Drawn(token)
        return log_probabilities(row, token, self._sampling.logprobs)

    def _token(self, row: Logits, history: Sequence[int], allowed: Allowed | None) -> int:
        sampling = self._sampling
        values = self._adjusted(row, history)
        ids: Ids | None = None
        if allowed is not None:
            ids = np.flatnonzero(allowed)
            values = values[ids]
        peak = values.max() if values.size else -np.inf
        if not np.isfinite(peak):
            raise EngineError(
                "the model's logits are not numbers" if np.isnan(peak) else "no token is left to choose from"
            )
        number = uniform(sampling.seed, len(history))
        place = self._mirostat(values, row.size, number) if sampling.mirostat else self._chain(values, number)
        return int(place if ids is None else ids[place])

    def _adjusted(self, row: Logits, history: Sequence[int]) -> Logits:
        penalises = self._penalises and not self._sampling.mirostat
        if not (penalises or self._bias.size or self._banned.size):
            return row
        row = row.copy()
        if self._bias.size:
            np.add.at(row, self._bias_ids, self._bias)
        row[self._banned] = -np.inf
        if penalises and history:
            penalise(row, history, self._sampling)
        return row

    def _chain(self, values: Logits, number: float) -> int:
        sampling = self._sampling
        if sampling.temperature <= 0 and sampling.typical_p >= 1:
            return int(values.argmax())  # no other filter can take the largest away
        places: Ids | None = None
        if 0 < sampling.top_k < values.size:
            places = largest(values, sampling.top_k)
        if sampling.typical_p < 1:
            places = _within(places, typical(_at(values, places), sampling.typical_p))
        if sampling.top_p < 1:
            places = _within(places, nucleus(_at(values, places), sampling.top_p))
        if sampling.min_p > 0:
            kept = _at(values, places)
            places = _within(places, np.flatnonzero(kept >= kept.max() + np.log(np.float32(min(sampling.min_p, 1.0)))))
        kept = _at(values, places)
        place = self._at_temperature(kept, number)
        return place if places is None else int(places[place])

    def _at_temperature(self, values: Logits, number: float) -> int:
        temperature = self._sampling.temperature
        if temperature <= 0:
            return int(values.argmax())
        return draw(_heated(values, temperature), number)

    def _mirostat(self, values: Logits, vocabulary: int, number: float) -> int:
        """Keep the surprise of the answer near tau (Basu et al. 2020): by the slope of the ranks, or by a plain cut."""
        sampling = self._sampling
        if sampling.temperature <= 0:
            return int(values.argmax())
        scaled = _heated(values, sampling.temperature)
        normaliser = log_normaliser(scaled)
        if sampling.mirostat == 1:
            kept = largest(scaled, self._ranks(scaled, normaliser, vocabulary))
        else:
            floor = normaliser - self._surprise_limit * np.log(2.0)
            kept = np.flatnonzero(scaled >= floor)
            if not kept.size:
                kept = np.asarray([scaled.argmax()])
        left = scaled[kept]
        chosen = draw(left, number)
        surprise = (log_normaliser(left) - float(left[chosen])) / float(np.log(2.0))
        self._surprise_limit -= sampling.mirostat_eta * (surprise - sampling.mirostat_tau)
        return int(kept[chosen])

    def _ranks(self, scaled: Logits, normaliser: float, vocabulary: int) -> int:
        """How many of the largest the first Mirostat keeps, were the vocabulary distributed by Zipf's law."""
        head = scaled[largest(scaled, MIROSTAT_TERMS)].astype(np.float64)
        head = head[np.isfinite(head)]
        if head.size < 2:
            return 1
        ranks = np.arange(1, head.size, dtype=np.float64)
        steps = np.log((ranks + 1) / ranks)
        slope = float((steps * (head[:-1] - head[1:])).sum() / (steps * steps).sum())
        excess = slope - 1.0
        if slope <= 0 or excess == 0:
            return scaled.size
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            share = np.float64(excess * 2.0**self._surprise_limit) / (1.0 - np.float64(vocabulary) ** -excess)
            count = share ** (1.0 / slope)
        return int(min(max(count, 1.0), scaled.size)) if np.isfinite(count) else scaled.size


def _heated(values: Logits, temperature: float) -> Logits:
    if temperature == 1:
        return values
    heated: Logits = (values - values.max()) / np.float32(max(temperature, COLDEST))
    return heated


def _at(values: Logits, places: Ids | None) -> Logits:
    return values if places is None else values[places]


def _within(places: Ids | None, kept: Ids) -> Ids:
    return kept if places is None else places[kept]
