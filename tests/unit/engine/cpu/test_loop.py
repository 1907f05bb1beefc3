"""The loop over a model that notices mistakes: exact answers in any company, no block lost, nobody left waiting."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fakes.cpu_loop import EOS, NUM_CTX, Bench, prompt
from fakes.cpu_model import BLOCK, FakeModel
from puna.engine.cpu.cache import Cache
from puna.engine.cpu.loop import Cancel, Generate, Loop, LoopLimits, Score, Shutdown, Told, Weigh
from puna.engine.cpu.mask import Mask
from puna.engine.cpu.pace import FIRST, MOST
from puna.engine.cpu.sampler import Drawn
from puna.engine.cpu.stream import Scored
from puna.engine.runner import End, Sampling, Weighed
from puna.errors import ContextLengthExceeded, EngineError, InvalidRequest


def alone(text: Sequence[int], **said: Any) -> list[int]:
    bench = Bench()
    bench.generate(1, text, **said)
    bench.run()
    return bench.tokens(1)


def test_an_answer_ends_by_length() -> None:
    bench = Bench()
    bench.generate(1, prompt(50), max_tokens=5, logit_bias=((EOS, -100.0),))
    bench.run()
    end = bench.end(1)
    assert (end.reason, end.prompt_tokens, end.cached_tokens, end.completion_tokens) == ("length", 50, 0, 5)
    assert len(bench.tokens(1)) == 5
    assert end.prompt_ns > 0
    assert end.decode_ns > 0


def test_an_answer_ends_at_the_token_that_says_so_which_is_not_told() -> None:
    bench = Bench()
    bench.generate(1, prompt(50), logit_bias=((EOS, 3.0),), max_tokens=400)
    bench.run()
    end = bench.end(1)
    assert end.reason == "stop"
    assert EOS not in bench.tokens(1)
    assert end.completion_tokens == len(bench.tokens(1)) < 400


def test_the_end_can_be_ignored() -> None:
    bench = Bench()
    bench.generate(1, prompt(50), logit_bias=((EOS, 100.0),), ignore_eos=True, max_tokens=40)
    bench.run()
    assert bench.end(1).reason == "length"
    assert len(bench.tokens(1)) == 40


def test_an_answer_stops_where_the_context_is_full_and_says_so() -> None:
    bench = Bench(num_ctx=64)
    bench.generate(1, prompt(60), max_tokens=1000, logit_bias=((EOS, -100.0),))
    bench.run()
    end = bench.end(1)
    assert (end.reason, end.completion_tokens) == ("length", 4)
    assert end.settings["max_tokens"] == 4


def test_the_end_tells_what_was_used() -> None:
    bench = Bench()
    said = {"temperature": 0.7, "top_k": 11, "top_p": 0.5, "min_p": 0.1, "seed": 99, "logit_bias": ((3, 1.5),)}
    bench.generate(1, prompt(5), max_tokens=2, repeat_penalty=1.2, presence_penalty=0.3, frequency_penalty=0.4, **said)
    bench.run()
    settings = bench.end(1).settings
    assert {key: settings[key] for key in ("temperature", "top_k", "top_p", "min_p", "seed")} == {
        key: said[key] for key in ("temperature", "top_k", "top_p", "min_p", "seed")
    }
    assert settings["logit_bias"] == [[3, 1.5]]
    assert (settings["repeat_penalty"], settings["presence_penalty"], settings["frequency_penalty"]) == (1.2, 0.3, 0.4)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 34, 63, 64, 65, 66, 100, 300])
def test_a_cached_prompt_gives_the_same_answer(length: int) -> None:
    bench, text = Bench(), prompt(length)
    bench.generate(1, text)
    bench.run()
    bench.generate(2, text)
    bench.run()
    assert bench.tokens(2) == bench.tokens(1) == alone(text)
    assert bench.end(2).cached_tokens == length - 1


@pytest.mark.parametrize("length", [1, 20, 32, 33, 64, 65, 100])
def test_of_a_cached_prompt_only_the_last_token_is_computed(length: int) -> None:
    bench, text = Bench(), prompt(length)
    for number in range(3):
        before = bench.model.computed
        bench.generate(number, text, max_tokens=1)
        bench.run()
        assert bench.model.computed - before == (1 if number else length)


def test_the_next_turn_of_a_talk_computes_only_what_is_new() -> None:
    bench, text = Bench(), prompt(100)
    bench.generate(1, text, max_tokens=60, ignore_eos=True)
    bench.run()
    turn = [*text, *bench.tokens(1), *prompt(40, seed=5)]
    before = bench.model.computed
    bench.generate(2, turn, max_tokens=1)
    bench.run()
    assert bench.end(2).cached_tokens == 159  # the last token of an answer is never computed
    assert bench.model.computed - before == 41
    assert bench.tokens(2) == alone(turn, max_tokens=1)


def test_a_state_goes_on_to_the_next_turn() -> None:
    """It has absorbed no guess, and none of what another text left."""
    bench, text = Bench(stateful=True, slots=3, habit=6.0, price=0.02), prompt(100)
    for number in range(4):
        bench.generate(number, text, max_tokens=60, ignore_eos=True)
        bench.generate(100 + number, prompt(50, seed=number))
        before = bench.model.replayed
        bench.run()
        assert bench.model.replayed - before <= 59, "guesses that came true, once"
        text = [*text, *bench.tokens(number), *prompt(40, seed=5)]
    plain = Bench(habit=6.0)
    for each in (bench, plain):
        each.generate(10, text[:90], max_tokens=20)
        each.run()
    assert bench.tokens(10) == plain.tokens(10)


def test_an_answer_that_was_left_is_found_as_far_as_it_came() -> None:
    bench, text = Bench(), prompt(20)
    bench.generate(1, text, max_tokens=400, ignore_eos=True)
    while len(bench.tokens(1)) < 50:
        bench.step()
    bench.loop.put(Cancel(1))
    bench.generate(2, [*text, *bench.tokens(1)[:48]], max_tokens=5)
    bench.run()
    assert bench.end(2).cached_tokens == 67


def test_a_text_that_was_scored_is_found_as_a_prompt() -> None:
    bench, text = Bench(), prompt(100)
    bench.loop.put(Score(1, tuple(text), 0))
    bench.run()
    bench.generate(2, text)
    bench.run()
    assert bench.end(2).cached_tokens == 99
    assert bench.tokens(2) == alone(text)


@pytest.mark.parametrize("trial", range(12))
def test_company_changes_no_answer(trial: int) -> None:
    """The same request among others that come, go and are cancelled, with prompts that share beginnings or do not."""
    source = random.Random(trial)
    text = prompt(source.randrange(40, 300), seed=77)
    expected = alone(text)
    bench = Bench(blocks=source.choice([60, 200]), slots=source.choice([2, 5, 16]), stateful=trial % 2 == 1)
    number, arrives = 100, source.randrange(1, 25)
    for step in range(60):
        if step == arrives:
            bench.generate(1, text)
        if source.random() < 0.5:
            number += 1
            start = text[: source.randrange(len(text))] if source.random() < 0.4 else []
            bench.generate(
                number, [*start, *prompt(source.randrange(2, 150), seed=number)], seed=number,
                max_tokens=source.randrange(1, 40),
            )  # fmt: skip
        if source.random() < 0.2:
            bench.loop.put(Cancel(source.randrange(101, number + 2)))
        if source.random() < 0.1:
            bench.loop.put(Score(number + 1000, tuple(prompt(source.randrange(1, 200), seed=step)), 2))
        bench.step()
    bench.run()
    assert bench.tokens(1) == expected
    assert bench.cache.used == 0
    assert bench.cache.open == bench.cache.capacity


def test_the_logits_of_two_seeds_differ_only_in_the_draw() -> None:
    text = prompt(70)
    assert alone(text, seed=1) != alone(text, seed=2)
    assert alone(text, seed=1, temperature=0.0) == alone(text, seed=2, temperature=0.0)


def test_choices_of_one_prompt_compute_it_once() -> None:
    bench, text = Bench(), prompt(330)
    for number in range(8):
        bench.generate(number, text, seed=number, max_tokens=3, ignore_eos=True)
    bench.run()
    assert bench.model.computed == 330 + 7 + 8 * 2
    assert [bench.end(number).cached_tokens for number in range(8)] == [0] + [329] * 7
    assert [bench.tokens(number) for number in range(8)] == [
        alone(text, seed=number, max_tokens=3, ignore_eos=True) for number in range(8)
    ]


def test_choices_go_on_when_the_one_that_computes_their_prompt_is_cancelled() -> None:
    bench, text = Bench(num_ctx=2048), prompt(1500)
    bench.generate(1, text, max_tokens=2)
    bench.generate(2, text, max_tokens=2, ignore_eos=True)
    bench.step()
    bench.loop.put(Cancel(1))
    bench.run()
    assert bench.end(2).cached_tokens == FIRST
    assert bench.told[1] == []


def test_a_long_prompt_makes_no_answer_miss_a_step() -> None:
    bench = Bench(blocks=400, num_ctx=8192)
    for number in range(4):
        bench.generate(number, prompt(20, seed=number), max_tokens=200, ignore_eos=True)
    for _ in range(4):
        bench.step()
    bench.model.widest = 0
    bench.generate(9, prompt(6000), max_tokens=2)
    while not bench.told[9]:
        before = [len(bench.told[number]) for number in range(4)]
        bench.step()
        assert all(len(bench.told[number]) > count for number, count in enumerate(before))
    assert bench.model.widest <= MOST


def test_a_cancelled_stream_is_gone_before_the_next_step() -> None:
    bench = Bench()
    bench.generate(1, prompt(40), max_tokens=400, ignore_eos=True)
    for _ in range(5):
        bench.step()
    assert bench.tokens(1)
    told = len(bench.told[1])
    bench.loop.put(Cancel(1))
    assert not bench.step()
    assert len(bench.told[1]) == told
    assert bench.cache.used == bench.busy() == 0


def test_over_the_slots_requests_wait_in_order() -> None:
    bench = Bench(slots=2)
    for number in range(5):
        bench.generate(number, prompt(10, seed=number), max_tokens=4, ignore_eos=True)
    bench.step()
    assert bench.busy() == 2
    assert sorted(bench.told) == [0, 1]
    bench.run()
    assert all(len(bench.tokens(number)) == 4 for number in range(5))
    assert list(bench.told) == [0, 1, 2, 3, 4]


def test_a_request_waits_until_there_is_room_for_all_it_may_need() -> None:
    bench = Bench(blocks=19)
    for number in range(3):
        bench.generate(number, prompt(200, seed=number), max_tokens=100, ignore_eos=True)
    bench.step()
    assert bench.busy() == 1
    bench.run()
    assert [len(bench.tokens(number)) for number in range(3)] == [100, 100, 100]
    assert [bench.tokens(number) for number in range(3)] == [
        alone(prompt(200, seed=number), max_tokens=100, ignore_eos=True) for number in range(3)
    ]


def test_a_loop_with_too_small_a_cache_does_not_start() -> None:
    with pytest.raises(ValueError, match="context"):
        Bench(blocks=10, num_ctx=512)


def test_a_prompt_over_the_context_is_refused() -> None:
    bench = Bench()
    bench.generate(1, prompt(NUM_CTX))
    bench.run()
    error = bench.error(1)
    assert isinstance(error, ContextLengthExceeded)
    assert (error.tokens, error.limit) == (NUM_CTX, NUM_CTX)


@pytest.mark.parametrize(("tokens", "param"), [([], "prompt"), ([5, 120], "prompt"), ([-1, 5], "prompt")])
def test_a_prompt_of_no_or_unknown_tokens_is_refused(tokens: list[int], param: str) -> None:
    bench = Bench()
    bench.generate(1, tokens)
    bench.run()
    assert isinstance(bench.error(1), InvalidRequest)
    assert bench.error(1).param == param


def test_a_prediction_of_unknown_tokens_is_refused() -> None:
    bench = Bench()
    bench.generate(1, prompt(20), prediction=[5, 120])
    bench.run()
    assert isinstance(bench.error(1), InvalidRequest)
    assert bench.error(1).param == "prediction"


def test_a_setting_without_meaning_is_refused_and_disturbs_nobody() -> None:
    bench, text = Bench(), prompt(40)
    bench.generate(1, text)
    bench.generate(2, text, logit_bias=((4000, 1.0),))
    bench.run()
    assert bench.error(2).param == "logit_bias"
    assert bench.tokens(1) == alone(text)


def test_an_answer_that_nothing_can_continue_fails_alone() -> None:
    bench, text = Bench(), prompt(40)
    bench.generate(1, text)
    bench.generate(2, text, logit_bias=tuple((token, -np.inf) for token in range(120)))
    bench.run()
    assert isinstance(bench.error(2), EngineError)
    assert bench.tokens(1) == alone(text)
    assert bench.cache.used == 0


class Counting:
    """Lets through the tokens of a text, one after the other, then the end."""

    def __init__(self, text: Sequence[int], *, ends: bool, place: int = 0) -> None:
        self._text, self._place, self._ends = text, place, ends

    def follows(self, tokens: Sequence[int]) -> int:
        left = self._text[self._place :]
        return next((at for at, token in enumerate(tokens) if left[at : at + 1] != [token]), len(tokens))

    def fork(self) -> Counting:
        return Counting(self._text, ends=self._ends, place=self._place)

    def mask(self) -> Mask:
        mask = np.zeros(120, np.bool_)
        mask[self._text[self._place] if self._place < len(self._text) else EOS] = True
        return Mask.of(mask)

    def accept(self, token: int) -> bool:
        assert token == self._text[self._place]
        self._place += 1
        return self._ends and self._place == len(self._text)


@pytest.mark.parametrize("ends", [True, False])
def test_a_constraint_decides_what_comes_and_when_it_is_over(ends: bool) -> None:
    bench = Bench()
    bench.generate(1, prompt(40), matcher=Counting([50, 51, 52, 50], ends=ends))
    bench.run()
    assert bench.tokens(1) == [50, 51, 52, 50]
    assert bench.end(1).reason == "stop"


def test_a_constraint_cut_off_by_length_says_so() -> None:
    bench = Bench()
    bench.generate(1, prompt(40), matcher=Counting([50, 51, 52, 50], ends=True), max_tokens=3)
    bench.run()
    assert bench.end(1).reason == "length"


def test_log_probabilities_are_told_when_wanted() -> None:
    bench = Bench()
    bench.generate(1, prompt(40), logprobs=3, max_tokens=4, ignore_eos=True)
    bench.run()
    drawn = [event for event in bench.told[1] if isinstance(event, Drawn)]
    assert all(event.logprob is not None and len(event.top) == 3 for event in drawn)


@pytest.mark.parametrize("length", [1, 2, 33, 65, 200])
def test_scores_are_those_of_the_tokens_as_they_came(length: int) -> None:
    """A text scored whole: each token's log-probability, whatever else runs, and alternatives in order."""
    text = prompt(length)
    quiet, busy = Bench(), Bench()
    busy.generate(2, text)
    for bench in (quiet, busy):
        bench.loop.put(Score(1, tuple(text), 2))
        bench.run()
    (scored,) = quiet.told[1]
    assert isinstance(scored, Scored)
    assert [drawn.token for drawn in scored.tokens] == text[1:]
    assert all(drawn.logprob is not None and drawn.logprob < 0 for drawn in scored.tokens)
    assert all(len(drawn.top) == 2 and drawn.top[0][1] >= drawn.top[1][1] for drawn in scored.tokens)
    assert busy.told[1] == quiet.told[1]
    assert busy.cache.used == 0


@pytest.mark.parametrize("length", [1, 2, 33, 200])
def test_tokens_are_weighed_as_they_would_be_scored(length: int) -> None:
    """One row says all of them; what is in the cache is not computed again, and nothing of the cache is lost."""
    text, following = prompt(length), (5, 9, 7)
    bench = Bench()
    for number in (1, 2):
        bench.loop.put(Weigh(number, tuple(text), following))
        bench.run()
    for place, token in enumerate(following):
        bench.loop.put(Score(10 + place, (*text, token), 0))
    bench.loop.put(Weigh(20, tuple(text), (10**6,)))
    bench.loop.put(Weigh(21, (), (5,)))
    bench.run()
    scored = [bench.told[10 + place][0].tokens[-1].logprob for place in range(3)]
    [first], [again] = bench.told[1], bench.told[2]
    assert first == Weighed(tuple(scored), 0)
    assert again.logprobs == first.logprobs
    assert again.cached == (length - 1 if length > 1 else 0)
    assert [type(bench.told[number][0]) for number in (20, 21)] == [InvalidRequest, InvalidRequest]
    assert bench.cache.used == 0


def test_the_thread_works_waits_and_stops() -> None:
    heard, done = [], threading.Event()

    def hear(told: Told) -> None:
        heard.extend(told)
        if any(isinstance(event, End) for _, event in told):
            done.set()

    loop = Loop(FakeModel(64), Cache(64, BLOCK), LoopLimits(NUM_CTX, 4, 120, frozenset({EOS})), hear)
    thread = threading.Thread(target=loop.run)
    thread.start()
    for number in range(3):
        done.clear()
        loop.put(Generate(number, tuple(prompt(50)), Sampling(max_tokens=5, seed=1, ignore_eos=True)))
        assert done.wait(10)
    loop.put(Shutdown())
    thread.join(10)
    assert not thread.is_alive()
    answers = [[event for who, event in heard if who == number and isinstance(event, Drawn)] for number in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0]) == 5
