"""Decisions: what labels' tokens come to, whatever they are made of."""

from __future__ import annotations

import math
import random

import pytest

from fakes.house import open_house
from puna.engine.runner import Weighed
from puna.errors import EngineError, InvalidRequest
from puna.inference.labels import label_logprobs, shares
from puna.types import DecisionRequest, Message, Question

VOCABULARY = 7


class Chances:
    """A model whose probabilities follow from what came before; it counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def row(self, before: tuple[int, ...]) -> list[float]:
        weights = [random.Random(f"{before} {token}").random() for token in range(VOCABULARY)]
        return [math.log(weight / sum(weights)) for weight in weights]

    async def weigh(self, tokens: tuple[int, ...], following: tuple[int, ...]) -> Weighed:
        self.asked.append(tokens)
        row = self.row(tokens)
        return Weighed(tuple(row[token] for token in following), cached=len(tokens) - 1)

    def answers(self, before: tuple[int, ...], length: int) -> dict[tuple[int, ...], float]:
        """Every answer of so many tokens, and its probability."""
        if not length:
            return {(): 1.0}
        return {
            (*begun, token): chance * math.exp(logprob)
            for begun, chance in self.answers(before, length - 1).items()
            for token, logprob in enumerate(self.row((*before, *begun)))
        }


LABELS = [
    [(1,), (2,)],
    [(1, 2, 3), (1, 2, 4), (5,)],
    [(1,), (1, 2), (1, 2, 3), (1, 4), (6, 6)],
    [(3,), (3, 3), (4, 0, 0)],
]


@pytest.mark.parametrize("labels", LABELS)
async def test_a_label_has_the_answers_that_begin_with_it_and_with_no_longer_one(labels) -> None:
    model = Chances()
    logprobs, cached = await label_logprobs(model, (6, 5), labels)  # type: ignore[arg-type]
    expected = dict.fromkeys(labels, 0.0)
    for answer, chance in model.answers((6, 5), 4).items():
        begun = [label for label in labels if answer[: len(label)] == label]
        if begun:
            expected[max(begun, key=len)] += chance
    total = sum(expected.values())
    assert shares(labels, logprobs) == pytest.approx([expected[label] / total for label in labels])
    assert len(set(model.asked)) == len(model.asked)
    assert cached == 1


def test_labels_that_a_model_never_writes_are_no_decision() -> None:
    with pytest.raises(EngineError):
        shares([(1,), (2,)], [-9999.0, -9999.0])
    assert shares([(1,), (2,)], [-9999.0, -700.0]) == (0.0, 1.0)


def asked(*labels: str, text: str = "x") -> DecisionRequest:
    return DecisionRequest(model="m", messages=(Message.of("user", text),), questions=(Question("Which?", labels),))


async def test_labels_of_one_token_need_one_look_at_the_prompt() -> None:
    async with open_house({"default": {"text": "b"}}) as h:
        [found] = (await h.inference.decide(asked("a", "b", "c"))).probabilities
    assert max(found) == found[1]
    assert sum(found) == pytest.approx(1)


async def test_labels_that_are_the_same_tokens_are_refused() -> None:
    async with open_house({}) as h:
        with pytest.raises(InvalidRequest) as refused:
            await h.inference.decide(asked("a", "a"))
    assert refused.value.param == "questions[0]"
