"""/v1/decisions: typed questions about an input, answered by the probabilities of their labels."""

from __future__ import annotations

import pytest
from openai import BadRequestError, OpenAI

BILLING = {"rules": [{"when": {"contains": "billing"}, "answer": {"text": "billing"}}], "default": {"text": "Yes"}}

PREDICATE = {"type": "predicate", "instructions": "The customer is angry.", "name": "angry"}
CHOICE = {
    "type": "choice",
    "instructions": "Which queue?",
    "choices": [{"value": "technical", "description": "Outages"}, {"value": "billing"}, {"value": True}],
}
SCORE = {
    "type": "score",
    "name": "urgency",
    "instructions": [{"type": "input_text", "text": "How urgent?"}, {"type": "input_json", "data": {"scale": 2}}],
    "levels": [{"label": "low"}, {"label": "Yes"}, {"label": "Yes, now", "description": "on fire"}],
}


@pytest.fixture(scope="module")
def client(serving):
    with serving(script=BILLING) as server, OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
        yield client


def test_the_sdk_reads_every_kind_of_answer(client: OpenAI):
    decision = client.decisions.create(model="tiny", input="I was charged twice!", questions=[PREDICATE, CHOICE, SCORE])
    predicate, choice, score = decision.answers
    assert predicate.type == "predicate"
    assert (predicate.name, predicate.probability > 0.5) == ("angry", True)
    assert choice.type == "choice"
    assert (choice.name, choice.choice) == (None, "billing")
    assert [one.value for one in choice.probabilities] == ["technical", "billing", True]
    assert sum(one.probability for one in choice.probabilities) == pytest.approx(1)
    assert choice.confidence == max(one.probability for one in choice.probabilities)
    assert score.type == "score"
    assert [(one.label, one.value) for one in score.probabilities] == [("low", 0), ("Yes", 1), ("Yes, now", 2)]
    assert score.score == pytest.approx(sum(one.value * one.probability for one in score.probabilities))
    usage = decision.usage
    assert usage.input_tokens == usage.total_tokens > 0
    # The questions are about one input, which is computed once.
    assert usage.input_tokens_details.cached_tokens > 0
    assert usage.output_tokens == 0


def test_the_model_reads_input_question_and_descriptions(server):
    seen: list[str] = []

    async def spy(tokens, following):
        seen.append(bytes(token for token in tokens if token < 256).decode())
        return await weigh(tokens, following)

    server.post("/v1/tokenize", {"model": "tools", "prompt": "x"})
    place = next(one for one in server.services.scheduler._places.values() if one.model.name.short == "tools:latest")
    runner = place.runner
    weigh, runner.weigh = runner.weigh, spy
    try:
        items = [
            {"role": "developer", "content": "Be strict."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look it up."}]},
            {"type": "function_call", "call_id": "c1", "name": "find", "arguments": '{"what": "it"}'},
            {"type": "custom_tool_call", "call_id": "c2", "name": "run", "input": "ls"},
            {"type": "function_call_output", "call_id": "c1", "output": "found"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "listed"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Done."}]},
        ]
        answer = server.post("/v1/decisions", {"model": "tools", "input": items, "questions": [SCORE]})
    finally:
        del runner.weigh
    assert answer.status == 200, answer.body
    prompt = seen[0]
    told = ("Be strict.", "Look it up.", "find", "ls", "found", "listed", "Done.", "How urgent?", '{"scale":2}')
    assert [text for text in told if text not in prompt] == []
    assert "- Yes, now: on fire" in prompt


def test_a_text_and_a_boolean_of_the_same_letters_are_two_choices(client: OpenAI):
    question = {"type": "choice", "instructions": "Which?", "choices": [{"value": "true"}, {"value": True}]}
    [answer] = client.decisions.create(model="tiny", input="x", questions=[question]).answers
    assert answer.type == "choice"
    assert [one.value for one in answer.probabilities] == ["true", True]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]}]}, None),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input[0].call_id"),
        ({"questions": []}, "questions"),
        ({"questions": [{"type": "guess", "instructions": "x"}]}, "questions[0].type"),
        ({"questions": [{**CHOICE, "choices": [{"value": "a"}]}]}, "questions[0].choices"),
        ({"questions": [{**CHOICE, "choices": [{"value": "a"}, {"value": "a"}]}]}, "questions[0].choices"),
        ({"questions": [{**CHOICE, "choices": [{"value": "a"}, {"value": 5}]}]}, "questions[0].choices[1].value"),
        ({"questions": [{**SCORE, "levels": [{"label": ""}, {"label": "b"}]}]}, "questions[0].levels[0].label"),
        ({"input": "x" * 9000}, "input"),
        ({"model": "embedder"}, "model"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(client: OpenAI, changes, param):
    body = {"model": "tiny", "input": "x", "questions": [PREDICATE], **changes}
    with pytest.raises(BadRequestError) as refused:
        client.decisions.create(**body)
    assert refused.value.param == (param or "input[0].content[0].image_url")


def test_an_engine_that_does_not_score_says_so(serving):
    with serving(script={"models": [{"match": "*", "without": ["score"]}]}) as server:
        answer = server.post("/v1/decisions", {"model": "tiny", "input": "x", "questions": [PREDICATE]})
    assert (answer.status, answer.error["param"]) == (400, "questions")
