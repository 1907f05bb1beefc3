"""How many next tokens are guessed: many where they were right, and never at a cost that anybody would notice."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from puna.engine.cpu.guess import ALLOWED, BEGIN, EXPECTED, MOST, Guesser

ROOM = 100


class Played:
    """An answer that is written down already, decoded with guesses: what that took, and what it would have without."""

    def __init__(self, prompt: list[int], answer: list[int], price: float, prediction: list[int] | None = None) -> None:
        self.tokens = list(prompt)
        guesser = Guesser(self.tokens, prediction or ())
        self.steps = self.rows = self.most = 0
        place = 0
        while place < len(answer):
            guesses = guesser.guesses(ROOM, price) if place else []
            right = 0
            while right < len(guesses) and answer[place + right : place + right + 1] == [guesses[right]]:
                right += 1
            for token in answer[place : place + right + 1]:
                self.tokens.append(token)
                guesser.feed()
            place += right + 1
            if guesses:
                guesser.judged(len(guesses), right)
            self.steps += 1
            self.rows += len(guesses)
            self.most = max(self.most, len(guesses))
        self.cost = self.steps + price * self.rows
        self.without = len(answer)


def words(count: int, seed: int, kinds: int = 10_000) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(kinds) for _ in range(count)]


def changed(text: list[int], every: int) -> list[int]:
    return [token if (place + 1) % every else 20_000 + place for place, token in enumerate(text)]


@pytest.mark.parametrize("price", [0.05, 0.1, 0.3])
def test_an_answer_that_repeats_half_of_its_prompt_takes_far_fewer_steps(price: float) -> None:
    text = words(400, 1)
    played = Played(text, [*text[:200], *words(200, 2)], price)
    assert played.cost < 0.75 * played.without
    assert played.most > 10


def test_a_predicted_text_with_an_edit_in_it_is_nearly_free() -> None:
    text = words(400, 1)
    played = Played(words(50, 3), changed(text, 50), 0.1, prediction=text)
    assert played.cost < 0.3 * played.without


def test_nothing_is_guessed_where_nothing_repeats() -> None:
    played = Played(words(200, 1), words(300, 2), 0.1)
    assert played.rows <= 3
    assert played.cost <= 1.01 * played.without


TALES: dict[str, Callable[[int], list[int]]] = {
    "few words": lambda seed: words(600, seed, 12),
    "some words": lambda seed: words(600, seed, 40),
    "two in turn": lambda seed: [token for word in words(300, seed, 6) for token in (word, 50 + word)],
    "lost after three": lambda seed: [
        token for word in words(150, seed, 5) for token in (word, word + 9, 7, word * seed)
    ],
}


@pytest.mark.parametrize("price", [0.05, 0.1, 0.3, 0.6, 0.9, 3.0])
@pytest.mark.parametrize("tale", TALES)
@pytest.mark.parametrize("seed", range(6))
def test_guessing_wrong_costs_next_to_nothing(price: float, tale: str, seed: int) -> None:
    """Whatever it is that looks as if it repeated: what may be lost is bounded, however long it goes on."""
    played = Played(words(100, seed + 100, 30), TALES[tale](seed), price)
    assert played.cost <= (1 + ALLOWED) * played.without + BEGIN


@pytest.mark.parametrize("price", [0.05, 0.3, 0.9])
def test_a_prediction_that_is_wrong_costs_next_to_nothing(price: float) -> None:
    played = Played(words(100, 1), words(200, 2), price, prediction=words(200, 3))
    assert played.cost <= (1 + ALLOWED) * played.without + EXPECTED


def test_where_rows_cost_as_much_as_tokens_only_the_sure_is_guessed() -> None:
    text = words(300, 1)
    played = Played(text, text, 0.8)
    assert played.cost < played.without
    assert Played(text, text, 1.1).rows == 0


def test_a_repetition_after_a_long_time_without_is_found_again() -> None:
    text = words(100, 1)
    played = Played([*text, *words(50, 9)], [*changed(words(600, 2, 30), 3), *text, *text], 0.1)
    assert played.cost < played.without - 100


def test_no_more_is_guessed_than_may_be() -> None:
    text = words(60, 1)
    tokens: list[int] = list(text)
    guesser = Guesser(tokens)
    for token in text[:20]:
        tokens.append(token)
        guesser.feed()
    assert guesser.guesses(3, 0.01) == text[20:23]
    assert guesser.guesses(0, 0.01) == []
    assert len(guesser.guesses(ROOM, 0.01)) == MOST
