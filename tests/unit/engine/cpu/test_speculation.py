"""Speculation is exact: whatever is guessed, rightly or not, an answer is told as it is without."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fakes.cpu_loop import EOS, Bench, prompt
from puna.engine.cpu.constraint import Grammars, TokenTable
from puna.engine.cpu.loop import Cancel, Census
from puna.engine.cpu.mask import Mask
from puna.engine.cpu.sampler import Drawn
from puna.engine.cpu.stream import Matcher, StreamEvent
from puna.engine.runner import End, Prefilled
from puna.errors import InvalidRequest

SAMPLINGS: dict[str, dict[str, Any]] = {
    "sampled": {},
    "likeliest": {"temperature": 0.0},
    "filtered": {"top_k": 5, "top_p": 0.8, "min_p": 0.05},
    "penalised": {"repeat_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.3},
    "penalised over all": {"repeat_penalty": 1.2, "repeat_last_n": -1},
    "logprobs": {"logprobs": 3},
    "biased": {"logit_bias": ((50, 2.0), (EOS, -2.0))},
    "without an end": {"ignore_eos": True},
    "mirostat": {"mirostat": 2},
    "older mirostat": {"mirostat": 1},
}


def told(events: Sequence[StreamEvent | Census]) -> list[object]:
    """All but times, and what was found in the cache."""
    return [
        (event.reason, event.prompt_tokens, event.completion_tokens, event.settings)
        if isinstance(event, End)
        else event.prompt_tokens
        if isinstance(event, Prefilled)
        else (type(event), str(event))
        if isinstance(event, Exception)
        else event
        for event in events
    ]


def answer(text: Sequence[int], *, speculation: bool, habit: float = 6.0, **said: Any) -> tuple[list[object], int]:
    bench = Bench(habit=habit, speculation=speculation, price=0.02)
    bench.generate(1, text, **said)
    bench.run()
    assert bench.cache.used == 0
    assert bench.cache.open == bench.cache.capacity
    return told(bench.told[1]), bench.model.steps


def tokens(events: Sequence[object]) -> list[int]:
    return [event.token for event in events if isinstance(event, Drawn)]


@pytest.mark.parametrize("habit", [0.0, 3.0, 6.0, 20.0])
@pytest.mark.parametrize("kind", SAMPLINGS)
def test_what_repeats_itself_is_told_the_same(kind: str, habit: float) -> None:
    for seed in range(4):
        said = {"max_tokens": 120, "seed": seed, **SAMPLINGS[kind]}
        text = [*prompt(30, seed), *prompt(20, seed)]
        plain, _ = answer(text, speculation=False, habit=habit, **said)
        guessed, _ = answer(text, speculation=True, habit=habit, **said)
        assert guessed == plain


def test_what_repeats_itself_takes_fewer_steps() -> None:
    said = {"max_tokens": 200, "ignore_eos": True, "temperature": 0.0}
    plain, steps = answer(prompt(50), speculation=False, habit=20.0, **said)
    guessed, fewer = answer(prompt(50), speculation=True, habit=20.0, **said)
    assert guessed == plain
    assert fewer < steps / 3


@pytest.mark.parametrize("kind", SAMPLINGS)
@pytest.mark.parametrize("trial", range(6))
def test_any_prediction_changes_nothing(kind: str, trial: int) -> None:
    """The true answer with tokens replaced, left out and put in: guesses are right and wrong in every pattern."""
    source = random.Random(trial)
    said = {"max_tokens": source.randrange(1, 150), "seed": trial, **SAMPLINGS[kind]}
    text = prompt(source.randrange(1, 80), trial)
    plain, _ = answer(text, speculation=False, habit=0.0, **said)
    prediction: list[int] = []
    for token in tokens(plain):
        chance = source.random() * 8
        prediction += (
            [token] if chance > 1 else [] if chance > 0.6 else prompt(1, token) if chance > 0.3 else [token, 9]
        )
    guessed, _ = answer(text, speculation=True, habit=0.0, prediction=prediction, **said)
    assert guessed == plain


def test_a_true_prediction_takes_few_steps() -> None:
    said = {"max_tokens": 100, "ignore_eos": True}
    plain, steps = answer(prompt(40), speculation=False, habit=0.0, **said)
    guessed, fewer = answer(prompt(40), speculation=True, habit=0.0, prediction=tokens(plain), **said)
    assert guessed == plain
    assert fewer < steps / 5
    assert len(tokens(guessed)) == 100


def test_a_prediction_that_goes_on_after_the_end_is_cut_there() -> None:
    said = {"max_tokens": 60, "logit_bias": ((EOS, 2.0),)}
    plain, _ = answer(prompt(40), speculation=False, habit=0.0, **said)
    assert len(tokens(plain)) < 60
    for more in ([EOS, 11, 12, 13], [11, 12, 13], [EOS]):
        prediction = [*tokens(plain), *more]
        assert answer(prompt(40), speculation=True, habit=0.0, prediction=prediction, **said)[0] == plain


def test_no_more_is_guessed_than_there_is_room_for() -> None:
    truth = tokens(answer(prompt(30), speculation=False, max_tokens=30, ignore_eos=True)[0])
    bench = Bench(blocks=1, num_ctx=32, price=0.02, habit=6.0)
    bench.generate(1, prompt(30), max_tokens=30, ignore_eos=True, prediction=truth)
    bench.run()
    assert bench.tokens(1) == truth[:2]
    assert bench.model.computed <= 32


@pytest.mark.parametrize("trial", range(10))
def test_company_changes_no_answer(trial: int) -> None:
    """Streams that guess and are cancelled in the middle, in a cache so small that refused rows would be met again."""
    source = random.Random(trial)
    text = [*prompt(25, 7), *prompt(25, 7), *prompt(source.randrange(1, 60), 8)]
    expected, _ = answer(text, speculation=False, max_tokens=80)
    bench = Bench(
        blocks=source.choice([20, 60]), slots=source.choice([2, 5]), habit=6.0, price=0.02, stateful=trial % 2 == 1
    )
    number, arrives = 100, source.randrange(1, 25)
    for step in range(60):
        if step == arrives:
            bench.generate(1, text, max_tokens=80)
        if source.random() < 0.4:
            number += 1
            other = [*text[: source.randrange(len(text))], *prompt(source.randrange(1, 40), number)]
            bench.generate(number, other, seed=number, max_tokens=source.randrange(1, 90))
        if source.random() < 0.2:
            bench.loop.put(Cancel(source.randrange(101, number + 2)))
        bench.step()
    bench.run()
    assert told(bench.told[1]) == expected
    assert bench.cache.used == 0
    assert bench.cache.open == bench.cache.capacity


@pytest.mark.parametrize("trial", range(6))
def test_what_was_computed_with_guesses_serves_the_next_turn(trial: int) -> None:
    """Blocks that an answer leaves hold its tokens, not those that were guessed beside them."""
    bench, text = Bench(habit=6.0, price=0.02), [*prompt(30, trial), *prompt(20, trial)]
    bench.generate(1, text, max_tokens=100, ignore_eos=True)
    bench.run()
    turn = [*text, *bench.tokens(1), *prompt(20, seed=5)]
    before = bench.model.computed
    bench.generate(2, turn, max_tokens=1)
    bench.run()
    assert bench.model.computed - before == 170 - 149
    assert told(bench.told[2]) == answer(turn, speculation=False, max_tokens=1)[0]


# ------------------------------------------------------------------------------------------------------- constraints

PIECES = [bytes([max(token, 9)]) for token in range(120)]
JSON = r'root ::= "{" ("\"" [a-e]+ "\":" [0-9]+ ","?)+ "}"'


def grammar(gbnf: str) -> Matcher:
    return Grammars(TokenTable(PIECES, frozenset({EOS, 0}), (EOS,))).matcher(gbnf)


@pytest.mark.parametrize("gbnf", [JSON, "root ::= [a-e]+", 'root ::= ("ab" | "abc")+ "x"?', 'root ::= "abcabcabc"'])
@pytest.mark.parametrize("habit", [0.0, 8.0])
def test_under_a_grammar_nothing_changes(gbnf: str, habit: float) -> None:
    for seed in range(4):
        said = {"max_tokens": 60, "seed": seed}
        text = list(b'{"abc":12,"abd":12,"abc":12}')
        plain, _ = answer(text, speculation=False, habit=habit, matcher=grammar(gbnf), **said)
        for prediction in ([], tokens(plain), [*tokens(plain)[:9], 65, *tokens(plain)[10:], 65, 66]):
            guessed, _ = answer(
                text, speculation=True, habit=habit, matcher=grammar(gbnf), prediction=prediction, **said
            )
            assert guessed == plain


def test_under_a_grammar_a_true_prediction_takes_few_steps() -> None:
    said = {"max_tokens": 80, "seed": 3}
    plain, steps = answer(prompt(9), speculation=False, habit=0.0, matcher=grammar("root ::= [a-e]{80}"), **said)
    guessed, fewer = answer(
        prompt(9), speculation=True, habit=0.0, matcher=grammar("root ::= [a-e]{80}"), prediction=tokens(plain), **said
    )
    assert guessed == plain
    assert fewer < steps / 3


def test_what_a_grammar_forbids_is_not_computed() -> None:
    bench = Bench(price=0.02)
    bench.generate(1, prompt(9), max_tokens=40, matcher=grammar("root ::= [O-w]{40}"), prediction=[65, 66, 67] * 9)
    bench.run()
    assert len(bench.tokens(1)) == 40
    assert bench.model.computed <= 9 + 40 + 1


class Breaking:
    """Lets everything through, until after so many tokens it has become too much."""

    def __init__(self, left: int) -> None:
        self._left = left

    def mask(self) -> Mask:
        if self._left <= 0:
            raise InvalidRequest("too much", param="grammar")
        return Mask.of(np.ones(120, np.bool_))

    def accept(self, token: int) -> bool:
        self._left -= 1
        return False

    def follows(self, tokens: Sequence[int]) -> int:
        return len(tokens)

    def fork(self) -> Breaking:
        return Breaking(self._left)


def test_a_constraint_that_becomes_too_much_does_so_at_the_same_token() -> None:
    truth = tokens(answer(prompt(9), speculation=False, habit=0.0, max_tokens=30, ignore_eos=True)[0])
    for left in (1, 5, 17):
        said = {"max_tokens": 30, "ignore_eos": True}
        plain, _ = answer(prompt(9), speculation=False, habit=0.0, matcher=Breaking(left), **said)
        assert tokens(plain) == truth[:left]
        guessed, _ = answer(prompt(9), speculation=True, habit=0.0, matcher=Breaking(left), prediction=truth, **said)
        assert guessed == plain


class Slow(Breaking):
    """Takes its time after each guess."""

    def fork(self) -> Slow:
        return Slow(self._left)

    def accept(self, token: int) -> bool:
        super().accept(token)
        for _ in range(20_000):
            pass
        return False


def test_a_slow_constraint_is_not_asked_for_all_guesses_and_changes_nothing() -> None:
    said = {"max_tokens": 60, "ignore_eos": True}
    plain, _ = answer(prompt(9), speculation=False, habit=0.0, matcher=Breaking(1000), **said)
    guessed, _ = answer(prompt(9), speculation=True, habit=0.0, matcher=Slow(1000), prediction=tokens(plain), **said)
    assert guessed == plain
