"""The sampler against closed forms written out in plain float64 over a full sort, as llama.cpp documents each step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from puna.engine.cpu.odds import Logits, depths, uniform, weights
from puna.engine.cpu.sampler import Sampler, check, draw, log_normaliser
from puna.engine.runner import Sampling
from puna.errors import EngineError, InvalidRequest

DRAWS = 8_000
PLAIN: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}


def sampling(seed: int = 0, **said: Any) -> Sampling:
    return Sampling(**{"max_tokens": 1, "seed": seed, **PLAIN, **said})


def logits(size: int, spread: float = 2.0, seed: int = 1) -> Logits:
    return np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)


def closed_form(row: Logits, history: Sequence[int], wanted: Sampling) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The probability of every token, step by step, without a shortcut."""
    x = row.astype(np.float64)
    for token, bias in wanted.logit_bias:
        x[token] += bias
    if wanted.repeat_last_n:
        for token, count in Counter(list(history)[-wanted.repeat_last_n :]).items():
            x[token] = x[token] * wanted.repeat_penalty if x[token] <= 0 else x[token] / wanted.repeat_penalty
            x[token] -= count * wanted.frequency_penalty + wanted.presence_penalty
    order = sorted(range(len(x)), key=lambda token: (-x[token], token))
    if wanted.top_k > 0:
        order = order[: wanted.top_k]
    if wanted.typical_p < 1:
        p = softmax(x[order])
        entropy = -(p * np.log(p)).sum()
        nearest = np.argsort(np.abs(-np.log(p) - entropy), kind="stable")
        kept = nearest[: int((np.cumsum(p[nearest]) <= wanted.typical_p).sum()) + 1]
        order = [order[place] for place in sorted(kept)]
    if wanted.top_p < 1:
        order = order[: int((np.cumsum(softmax(x[order])) < wanted.top_p).sum()) + 1]
    if wanted.min_p > 0:
        order = [token for token in order if x[token] >= x[order[0]] + math.log(wanted.min_p)]
    result = np.zeros(len(x))
    result[order] = softmax(x[order] / wanted.temperature)
    return result


def softmax(x: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def chi_square_fits(counts: Counter[int], expected: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """At the 0.1 % level; cells under 5 expected draws are taken together."""
    assert all(expected[token] > 0 for token in counts), "a token was drawn that cannot be"
    cells = [(counts[token], p * DRAWS) for token, p in enumerate(expected) if p * DRAWS >= 5]
    rest = [(counts[token], p * DRAWS) for token, p in enumerate(expected) if 0 < p * DRAWS < 5]
    if rest and sum(p for _, p in rest) >= 5:
        cells.append((sum(seen for seen, _ in rest), sum(p for _, p in rest)))
    freedom = len(cells) - 1
    if freedom == 0:
        return True
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in cells)
    spread = 2 / (9 * freedom)
    return statistic < freedom * (1 - spread + 3.09 * math.sqrt(spread)) ** 3


HISTORY = (3, 5, 5, 9, 9, 9, 11, 2, 7, 5, 40, 41)

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "cool": {"temperature": 0.5},
    "hot": {"temperature": 1.7},
    "top_k": {"top_k": 12},
    "top_p": {"top_p": 0.7},
    "min_p": {"min_p": 0.08},
    "typical_p": {"typical_p": 0.6},
    "bias": {"logit_bias": ((3, 4.0), (8, -100.0), (3, 0.5))},
    "repeat": {"repeat_penalty": 1.4},
    "repeat_window": {"repeat_penalty": 1.8, "repeat_last_n": 4},
    "repeat_whole": {"repeat_penalty": 1.8, "repeat_last_n": -1},
    "presence": {"presence_penalty": 1.5},
    "frequency": {"frequency_penalty": 0.9},
    "defaults": {"temperature": 0.8, "top_k": 40, "top_p": 0.9},
    "all": {
        "temperature": 0.9, "top_k": 30, "typical_p": 0.9, "top_p": 0.9, "min_p": 0.02, "repeat_penalty": 1.1,
        "presence_penalty": 0.2, "frequency_penalty": 0.1, "logit_bias": ((1, 2.0),),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_draws_follow_the_closed_form(name: str) -> None:
    row, said = logits(200), CASES[name]
    counts = Counter(Sampler(sampling(seed, **said))(row, HISTORY).token for seed in range(DRAWS))
    assert chi_square_fits(counts, closed_form(row, HISTORY, sampling(**said)))


def test_draws_from_a_whole_vocabulary_follow_the_closed_form() -> None:
    row = logits(2_563, spread=1.0)
    counts = Counter(draw(weights(depths(row)), uniform(seed, 1)) for seed in range(DRAWS))
    assert chi_square_fits(counts, softmax(row.astype(np.float64)))


@pytest.mark.parametrize("said", [{"top_p": 0.95}, {"typical_p": 0.8}, {"min_p": 0.1}, {"top_k": 700, "top_p": 0.9}])
def test_a_large_vocabulary_keeps_the_same_tokens(said: dict[str, Any]) -> None:
    row = logits(5_000, spread=1.0)
    expected = closed_form(row, (), sampling(**said))
    drawn = {Sampler(sampling(seed, **said))(row, ()).token for seed in range(2_000)}
    assert all(expected[token] > 0 for token in drawn)
    assert np.isin(np.argsort(-expected)[:100], list(drawn)).mean() > 0.5


def test_positions_give_independent_draws() -> None:
    numbers = np.array([[uniform(seed, position) for position in range(100)] for seed in range(100)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < 0.03
    assert abs(numbers.mean() - 0.5) < 0.01


def test_greedy_takes_the_largest_and_the_first_of_equals() -> None:
    row = np.zeros(300, np.float32)
    row[[17, 170]] = 5
    assert Sampler(sampling(temperature=0.0))(row, ()).token == 17


def test_greedy_keeps_to_what_typical_leaves() -> None:
    row = np.log(np.array([0.5, 0.13, 0.13, 0.12, 0.12], np.float32))
    assert Sampler(sampling(temperature=0.0, typical_p=0.2))(row, ()).token != 0


def test_a_temperature_near_zero_is_greedy() -> None:
    row = logits(300)
    assert Sampler(sampling(temperature=1e-30))(row, ()).token == int(row.argmax())


def test_log_probabilities_sum_to_one_and_are_exact() -> None:
    row = logits(49_152, spread=3.0)
    drawn = Sampler(sampling(logprobs=20))(row, ())
    exact = row.astype(np.float64) - (row.max() + np.log(np.exp(row.astype(np.float64) - row.max()).sum()))
    assert abs(np.exp(row.astype(np.float64) - log_normaliser(row)).sum() - 1) < 1e-4
    assert drawn.logprob == pytest.approx(exact[drawn.token], abs=1e-6)
    assert [token for token, _ in drawn.top] == sorted(range(row.size), key=lambda token: (-row[token], token))[:20]
    assert [p for _, p in drawn.top] == pytest.approx([exact[token] for token, _ in drawn.top], abs=1e-6)


def test_log_probabilities_are_of_the_raw_row() -> None:
    row = logits(500)
    plain = Sampler(sampling(logprobs=3))(row, ())
    bent = Sampler(sampling(logprobs=3, logit_bias=((plain.top[0][0], -100.0),), temperature=0.3, top_k=2))(row, ())
    assert bent.top == plain.top
    assert bent.token != plain.top[0][0]


def test_none_wanted_none_given() -> None:
    drawn = Sampler(sampling())(logits(100), ())
    assert drawn.logprob is None
    assert drawn.top == ()


def test_zero_alternatives_still_give_the_token_its_own() -> None:
    drawn = Sampler(sampling(logprobs=0))(logits(100), ())
    assert drawn.logprob is not None
    assert drawn.top == ()


def test_only_allowed_tokens_come_whatever_the_settings() -> None:
    row, allowed = logits(400), np.zeros(400, np.bool_)
    allowed[[7, 99, 300]] = True
    for said in CASES.values():
        drawn = {Sampler(sampling(seed, **said))(row, HISTORY, allowed).token for seed in range(50)}
        assert drawn <= {7, 99, 300}
    assert Sampler(sampling(temperature=0.0))(row, (), allowed).token == max((7, 99, 300), key=lambda token: row[token])


def test_banned_tokens_never_come() -> None:
    row = logits(100)
    best = int(row.argmax())
    assert Sampler(sampling(temperature=0.0), banned=(best,))(row, ()).token != best


def test_the_row_is_left_as_it_was_and_its_place_in_memory_changes_nothing() -> None:
    row = logits(32_003)
    said = {"repeat_penalty": 1.2, "logit_bias": ((5, 1.0),), "logprobs": 5, "top_p": 0.95, "temperature": 0.9}
    answers = set()
    for offset in range(17):
        copy = np.empty(row.size + 32, np.float32)[offset : offset + row.size]
        copy[:] = row
        answers.add(Sampler(sampling(7, **said))(copy, HISTORY))
        assert np.array_equal(copy, row)
    assert len(answers) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_keeps_the_surprise_near_its_goal(version: int) -> None:
    sampler = Sampler(sampling(5, mirostat=version, mirostat_tau=3.0, logprobs=0))
    row, history, surprises = logits(2_000), [0], []
    for _ in range(600):
        drawn = sampler(row, history)
        history.append(drawn.token)
        assert drawn.logprob is not None
        surprises.append(-drawn.logprob / math.log(2))
    plain = [-(Sampler(sampling(seed, logprobs=0))(row, [0]).logprob or 0.0) / math.log(2) for seed in range(600)]
    assert np.mean(plain) > 5.5
    assert np.mean(surprises[200:]) < np.mean(plain) - 1.0


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_repeats_itself(version: int) -> None:
    def answer() -> list[int]:
        sampler, history = Sampler(sampling(9, mirostat=version)), [1]
        for _ in range(40):
            history.append(sampler(logits(900, seed=len(history)), history).token)
        return history

    assert answer() == answer()


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_at_temperature_zero_is_greedy(version: int) -> None:
    row = logits(300)
    assert Sampler(sampling(temperature=0.0, mirostat=version))(row, ()).token == int(row.argmax())


def test_logits_that_are_no_numbers_are_an_error() -> None:
    row = logits(100)
    row[50] = np.nan
    with pytest.raises(EngineError, match="not numbers"):
        Sampler(sampling())(row, ())


def test_nothing_left_to_choose_is_an_error() -> None:
    with pytest.raises(EngineError, match="no token"):
        Sampler(sampling())(logits(100), (), np.zeros(100, np.bool_))


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"logit_bias": ((100, 1.0),)}, "logit_bias"),
        ({"logit_bias": ((-1, 1.0),)}, "logit_bias"),
        ({"logit_bias": ((1, math.inf),)}, "logit_bias"),
        ({"logit_bias": ((1, math.nan),)}, "logit_bias"),
        ({"repeat_penalty": 0.0}, "repeat_penalty"),
        ({"mirostat": 3}, "mirostat"),
        ({"mirostat_tau": math.inf}, "mirostat_tau"),
        ({"mirostat_eta": math.nan}, "mirostat_eta"),
        ({"temperature": math.nan}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_settings_without_meaning_are_refused_by_name(said: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(sampling(**said), vocabulary=100)
    assert caught.value.param == param


def test_good_settings_pass() -> None:
    check(sampling(logit_bias=((0, -math.inf), (99, 1.0))), vocabulary=100)
