"""Decisions of a real model, on each engine."""

from __future__ import annotations

import math
from typing import Any

import pytest

from puna.server.openai.decisions import DecisionBody, to_decisions

from .conftest import Program

ASKED: Any = [
    {"type": "choice", "instructions": "Which word?", "choices": [{"value": "New York"}, {"value": "New"}]},
    {"type": "predicate", "instructions": "The word is swordfish."},
]


def test_decisions_are_what_the_model_would_say(program: Program) -> None:
    said = "The word is swordfish."
    choice, predicate = program.client.decisions.create(model="smollm2", input=said, questions=ASKED).answers
    assert choice.type == "choice"
    assert sum(one.probability for one in choice.probabilities) == pytest.approx(1)
    # The same question as a chat: what it says of the first token of an answer is the decision.
    question = to_decisions(DecisionBody.model_validate({"model": "x", "input": said, "questions": ASKED})).request
    content = f"{said}\n\n{question.questions[1].text}"
    answer = program.client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": content}],
        max_tokens=1,
        temperature=0,
        logprobs=True,
        top_logprobs=20,
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    chances = {one.token: math.exp(one.logprob) for one in logprobs.content[0].top_logprobs}
    assert predicate.type == "predicate"
    assert predicate.probability == pytest.approx(chances["Yes"] / (chances["Yes"] + chances["No"]), abs=0.02)
