"""The library's choice of tokens against the sampler that specifies it: equal tokens, equal numbers, on any variant."""

from __future__ import annotations

import ctypes
import math
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from puna.engine.cpu import structures
from puna.engine.cpu.choice import Chooser, Draw, Rate
from puna.engine.cpu.history import History
from puna.engine.cpu.mask import Allowed, Mask
from puna.engine.cpu.odds import MOST_TOKENS, Logits
from puna.engine.cpu.sampler import Drawn, Sampler, log_probabilities
from puna.engine.runner import Sampling
from puna.errors import EngineError

ROWS = int(os.environ.get("PUNA_TEST_ROWS", "20000"))
"""Random rows whose tokens are compared; the promise is 100,000."""
PLAIN: dict[str, Any] = {"max_tokens": 1, "seed": 0, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True, slots=True)
class Case:
    """A row, and all that is asked of it."""

    row: Logits
    sampling: Sampling
    banned: tuple[int, ...]
    history: list[int]
    allowed: Allowed | None


def some_row(chance: random.Random, numbers: np.random.Generator, size: int) -> Logits:
    """Sharp or flat, with equals, with what cannot come, in every range."""
    row = numbers.normal(0, chance.choice([0.0, 0.1, 1.0, 3.0, 10.0, 40.0]), size)
    if chance.random() < 0.3:
        row = np.round(row, chance.choice([0, 1]))
    if chance.random() < 0.2:
        row[numbers.random(size) < chance.choice([0.1, 0.9])] = -np.inf
    if chance.random() < 0.1:
        row[numbers.integers(size)] += 30
    if chance.random() < 0.02:
        row[numbers.integers(size)] = chance.choice([np.nan, np.inf])
    return (row * chance.choice([1, 1, 1, 1e-30, 1e30])).astype(np.float32)


def some_sampling(chance: random.Random, size: int) -> Sampling:
    """Mostly a few settings at a time, as people ask; sometimes all of them."""

    def now_and_then(value: Any, otherwise: Any) -> Any:
        return value if chance.random() < 0.25 else otherwise

    return Sampling(
        max_tokens=1,
        seed=chance.getrandbits(32),
        temperature=chance.choice([0.0, 0.2, 0.8, 1.0, 1.0, 1.5, 4.0, 1e-9, -1.0]),
        top_k=chance.choice([0, 1, 2, 5, 40, 40, size - 1, size, size + 1, 2**40]),
        top_p=chance.choice([1.0, 1.0, 0.9, 0.5, 0.01, 0.0, 1.5]),
        min_p=now_and_then(chance.choice([0.05, 0.5, 1.0, 1e-9, 2.0]), 0.0),
        typical_p=now_and_then(chance.choice([0.9, 0.5, 0.1, 0.0]), 1.0),
        repeat_last_n=chance.choice([64, 64, 0, -1, 3]),
        repeat_penalty=now_and_then(chance.choice([1.1, 0.7, 1e38]), 1.0),
        presence_penalty=now_and_then(chance.choice([0.5, -1.0]), 0.0),
        frequency_penalty=now_and_then(chance.choice([0.3, -0.2]), 0.0),
        mirostat=chance.choice([0, 0, 0, 0, 0, 0, 0, 0, 1, 2]),
        mirostat_tau=chance.choice([5.0, 0.5, 0.0, 9.0, 1e300]),
        mirostat_eta=chance.choice([0.1, 0.0, 1.0, -1e300]),
        logit_bias=tuple(
            (chance.randrange(size), chance.choice([-100.0, -math.inf, 5.0, 0.3]))
            for _ in range(now_and_then(chance.randrange(5), 0))
        ),
        logprobs=now_and_then(chance.choice([0, 1, 5, 20, 500]), None),
    )


def some_case(chance: random.Random, numbers: np.random.Generator, size: int) -> Case:
    allowed = None
    if chance.random() < 0.25:
        allowed = numbers.random(size) < chance.choice([0.0, 0.02, 0.5, 0.99, 1.0])
    banned = tuple(chance.randrange(size) for _ in range(chance.choice([0, 0, 0, 1, 3])))
    history = numbers.integers(size, size=chance.choice([0, 1, 7, 100])).tolist()
    return Case(some_row(chance, numbers, size), some_sampling(chance, size), banned, history, allowed)


def specified(sampler: Sampler, case: Case) -> Drawn | str:
    try:
        return sampler(case.row, case.history, case.allowed)
    except EngineError as error:
        return error.message


def ask(case: Case, sampler: Sampler, row: int) -> Draw:
    mask = None if case.allowed is None else Mask.of(case.allowed)
    return Draw(sampler, row, History(case.history), mask)


def agree(variants: dict[str, ctypes.CDLL], cases: list[Case]) -> None:
    """One call for all rows; then a second token of each stream whose limit moved."""
    logits = np.stack([case.row for case in cases])
    before = logits.copy()
    specs = [Sampler(case.sampling, case.banned) for case in cases]
    choosers = [Chooser(native, logits.shape[1]) for native in variants.values()]
    samplers = [[Sampler(case.sampling, case.banned) for case in cases] for _ in choosers]
    rows = list(range(len(cases)))
    for _ in range(2):
        expected = [specified(specs[row], cases[row]) for row in rows]
        for choose, own in zip(choosers, samplers, strict=True):
            found = choose(logits, [ask(cases[row], own[row], row) for row in rows])
            for row, one, other in zip(rows, expected, found, strict=True):
                said = other.message if isinstance(other, EngineError) else other
                assert one == said, (cases[row].sampling, cases[row].row.size)
                assert specs[row].surprise_limit == own[row].surprise_limit, cases[row].sampling
        rows = [row for row in rows if cases[row].sampling.mirostat]
    assert np.array_equal(logits, before, equal_nan=True), "rows are left as they are"


def sizes(count: int, chance: random.Random) -> Iterator[int]:
    """Mostly small vocabularies, around the widths in which the library works; some of real models."""
    for number in range(count):
        if number % 250 == 0:
            yield chance.choice([4_000, 32_003])
        elif number % 20 == 0:
            yield chance.choice([1_025, 2_000])
        else:
            yield chance.choice([1, 2, 15, 16, 17, 63, 64, 65, 127, 255, 256, 257, 300, 513])


def test_random_rows_give_the_same_tokens(variants: dict[str, ctypes.CDLL]) -> None:
    together = 20
    chance, numbers = random.Random(0), np.random.default_rng(0)
    for size in sizes(ROWS // together, chance):
        agree(variants, [some_case(chance, numbers, size) for _ in range(together)])


@pytest.mark.parametrize("size", [49_152, 262_144])
def test_rows_of_whole_vocabularies_give_the_same_tokens(variants: dict[str, ctypes.CDLL], size: int) -> None:
    chance, numbers = random.Random(size), np.random.default_rng(size)
    for _ in range(4):
        agree(variants, [some_case(chance, numbers, size) for _ in range(8)])


def test_the_largest_vocabulary_is_summed_exactly(native: ctypes.CDLL) -> None:
    row = np.zeros((1, MOST_TOKENS), np.float32)
    [drawn] = Chooser(native, MOST_TOKENS)(row, [Rate(0, 3, 2)])
    assert drawn == log_probabilities(row[0], 3, 2)
    assert isinstance(drawn, Drawn)
    assert drawn.logprob == pytest.approx(-math.log(MOST_TOKENS), abs=1e-12)
    with pytest.raises(EngineError, match="too large"):
        Chooser(native, MOST_TOKENS + 1)


def test_the_structures_are_mirrored(native: ctypes.CDLL) -> None:
    structures.check(native)


def sampling(**said: Any) -> Sampling:
    return Sampling(**{**PLAIN, **said})


def logits(rows: int, size: int) -> Logits:
    return np.random.default_rng(size).normal(0, 2, (rows, size)).astype(np.float32)


def test_guesses_of_one_stream_are_asked_together(native: ctypes.CDLL) -> None:
    """Each with the tokens before it: the penalties and the draw's number are those of its own place."""
    rows, wanted = logits(4, 300), sampling(seed=5, repeat_penalty=1.5, repeat_last_n=3, logprobs=2)
    history = History([1, 2, 3, 4], room=5)
    history.extend([7, 8, 9])
    sampler = Sampler(wanted)
    found = Chooser(native, 300)(rows, [Draw(sampler, row, history, length=4 + row) for row in range(4)])
    assert found == [Sampler(wanted)(rows[row], [1, 2, 3, 4, 7, 8, 9][: 4 + row]) for row in range(4)]
    history.truncate(5)
    assert history.tokens() == [1, 2, 3, 4, 7]


def test_a_row_without_a_token_fails_alone(native: ctypes.CDLL) -> None:
    rows = logits(4, 100)
    rows[1, 50] = np.nan
    greedy, none = Sampler(sampling(temperature=0.0)), Mask.of(np.zeros(100, np.bool_))
    history = History([1])
    asks = [
        Draw(greedy, 0, history),
        Draw(greedy, 1, history),
        Draw(greedy, 2, history, none),
        Draw(greedy, 3, history),
    ]
    first, second, third, last = Chooser(native, 100)(rows, asks)
    assert (first, last) == (Drawn(int(rows[0].argmax())), Drawn(int(rows[3].argmax())))
    assert isinstance(second, EngineError)
    assert isinstance(third, EngineError)
    assert "not numbers" in second.message
    assert "no token" in third.message


def test_a_text_is_scored_row_by_row(native: ctypes.CDLL) -> None:
    rows = logits(6, 500)
    found = Chooser(native, 500)(rows, [Rate(row, 3 * row, 2) for row in range(6)])
    assert found == [log_probabilities(rows[row], 3 * row, 2) for row in range(6)]


def test_slots_forget_what_was_asked_before(native: ctypes.CDLL) -> None:
    rows, history = logits(1, 100), History([])
    choose = Chooser(native, 100)
    best = int(rows[0].argmax())
    without = np.arange(100) != best
    greedy = Sampler(sampling(temperature=0.0))
    [masked] = choose(rows, [Draw(greedy, 0, history, Mask.of(without))])
    [scored] = choose(rows, [Rate(0, 3, 9)])
    [plain] = choose(rows, [Draw(greedy, 0, history)])
    assert isinstance(masked, Drawn)
    assert masked.token != best
    assert scored == log_probabilities(rows[0], 3, 9)
    assert plain == Drawn(best)


def test_many_more_asks_than_before(native: ctypes.CDLL) -> None:
    rows, choose, history = logits(100, 64), Chooser(native, 64), History([3])
    for count in (1, 17, 100):
        wanted = [sampling(seed=row, logprobs=row % 5) for row in range(count)]
        found = choose(rows, [Draw(Sampler(each), row, history) for row, each in enumerate(wanted)])
        assert found == [Sampler(each)(rows[row], [3]) for row, each in enumerate(wanted)]


@pytest.mark.parametrize(
    "wrong",
    [
        Draw(Sampler(sampling()), 2, History([])),
        Draw(Sampler(sampling()), -1, History([])),
        Draw(Sampler(sampling()), 0, History([]), Mask(32)),
        Draw(Sampler(sampling(mirostat=1, mirostat_tau=math.nan)), 0, History([])),
        Rate(0, 100, 0),
        Rate(0, 3, -2),
        Rate(0, 3, 2**31 - 1),
    ],
)
def test_what_cannot_be_is_refused_at_the_door(native: ctypes.CDLL, wrong: Draw | Rate) -> None:
    with pytest.raises(EngineError, match="no token can be chosen: .* \\(choice 1\\)"):
        Chooser(native, 100)(logits(2, 100), [Rate(0, 1, 0), wrong])


@pytest.mark.parametrize(
    "sampler",
    [
        Sampler(sampling(logit_bias=((100, 1.0),))),
        Sampler(sampling(), banned=(-1,)),
        Sampler(sampling(repeat_penalty=2.0)),
    ],
)
def test_an_id_that_is_no_token_fails_alone(native: ctypes.CDLL, sampler: Sampler) -> None:
    [found] = Chooser(native, 100)(logits(1, 100), [Draw(sampler, 0, History([5, 100]))])
    assert isinstance(found, EngineError)
    assert "outside the vocabulary" in found.message


def test_rows_of_another_kind_are_refused(native: ctypes.CDLL) -> None:
    choose = Chooser(native, 100)
    for rows in (logits(2, 99), logits(1, 100)[0], logits(2, 100).astype(np.float64), logits(100, 100).T):
        with pytest.raises(ValueError):
            choose(rows, [Rate(0, 0, 0)])


def test_rows_may_lie_apart(native: ctypes.CDLL) -> None:
    rows = logits(5, 112)[::2, :100]
    found = Chooser(native, 100)(rows, [Draw(Sampler(sampling(seed=4)), row, History([])) for row in range(3)])
    assert found == [Sampler(sampling(seed=4))(row, []) for row in rows]
