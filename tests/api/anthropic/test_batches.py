"""Batches of messages, by Anthropic's own client."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse
from openai import OpenAI
from pydantic import TypeAdapter

from fakes.waiting import until


def asking(custom_id: str, text: str = "Hi", **params: Any) -> Any:
    known = {"model": "tiny", "max_tokens": 50, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "params": known | params}


def ended(client: Anthropic, batch: MessageBatch) -> MessageBatch:
    batches = client.messages.batches
    until(lambda: batches.retrieve(batch.id).processing_status == "ended", 60, "the end of a batch")
    return batches.retrieve(batch.id)


def results(client: Anthropic, batch: MessageBatch) -> dict[str, Any]:
    found = list(client.messages.batches.results(batch.id))
    for one in found:
        TypeAdapter(MessageBatchIndividualResponse).validate_python(one.to_dict(mode="json"))
    assert len({one.custom_id for one in found}) == len(found)
    return {one.custom_id: one.result for one in found}


def test_a_batch_of_several_models_lives(client: Anthropic) -> None:
    requests = [asking("a"), asking("b", "THINK", model="thinker"), asking("c", temperature=9), asking("d", model="no")]
    batch = client.messages.batches.create(requests=requests)
    TypeAdapter(MessageBatch).validate_python(batch.to_dict(mode="json"))
    assert (batch.processing_status, batch.type, batch.results_url) == ("in_progress", "message_batch", None)
    assert batch.request_counts.processing == 4
    batch = ended(client, batch)
    counts = batch.request_counts
    assert (counts.succeeded, counts.errored, counts.processing, counts.canceled) == (2, 2, 0, 0)
    assert batch.ended_at is not None
    found = results(client, batch)
    assert found["a"].message.content[0].text == "Hello there, friend."
    assert [block.type for block in found["b"].message.content] == ["thinking", "text"]
    assert "temperature" in found["c"].error.error.message
    assert found["d"].error.error.type == "not_found_error"


def test_cancelled_and_deleted(client: Anthropic) -> None:
    batches = client.messages.batches
    batch = batches.create(requests=[asking(f"r{index}", "FOREVER", max_tokens=4000) for index in range(30)])
    with pytest.raises(anthropic.BadRequestError, match="has not ended"):
        batches.delete(batch.id)
    assert batches.cancel(batch.id).processing_status == "canceling"
    batch = ended(client, batch)
    counts = batch.request_counts
    assert counts.canceled > 0
    assert counts.canceled + counts.succeeded + counts.errored == 30
    assert batch.cancel_initiated_at is not None
    assert "canceled" in {result.type for result in results(client, batch).values()}
    with pytest.raises(anthropic.BadRequestError, match="has ended"):
        batches.cancel(batch.id)
    assert batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        batches.retrieve(batch.id)


def test_pages_and_other_dialects(client: Anthropic, openai: OpenAI) -> None:
    made = [client.messages.batches.create(requests=[asking("a")]).id for _ in range(3)]
    listed = [batch.id for batch in client.messages.batches.list(limit=2)]
    assert listed[:3] == made[::-1]
    before = client.messages.batches.list(limit=1, before_id=made[0])
    assert ([batch.id for batch in before.data], before.has_more) == ([made[1]], True)
    assert not {batch.id for batch in openai.batches.list()} & set(made)
    with pytest.raises(Exception, match="No such Batch"):
        openai.batches.retrieve(made[0])


def test_what_had_no_effect_is_told_in_the_results(client: Anthropic) -> None:
    raw = client.messages.batches.with_raw_response.create(
        requests=[asking("a", frobnicate=1), asking("b", temperature=0), asking("c")],
        extra_headers={"anthropic-beta": "context-1m-2025-08-07"},
    )
    assert raw.headers["x-puna-ignored"] == "anthropic-beta.context-1m-2025-08-07"
    batch = ended(client, raw.parse())
    told = {one.custom_id: one.to_dict().get("headers") for one in client.messages.batches.results(batch.id)}
    assert told == {"a": {"x-puna-ignored": "frobnicate"}, "b": {"x-puna-nonstandard": "temperature"}, "c": None}


@pytest.mark.parametrize("cursor", ["after_id", "before_id"])
@pytest.mark.parametrize("path", ["messages/batches", "files"])
def test_a_cursor_that_is_gone_is_named_as_it_was_sent(server: Any, path: str, cursor: str) -> None:
    answer = server.get(f"/v1/{path}?{cursor}=gone", headers={"anthropic-version": "2023-06-01"})
    assert (answer.status, answer.error["details"]["param"]) == (404, cursor)
    assert answer.error["message"].startswith(f"'{cursor}': there is no ")


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([], "'requests': empty array"),
        ([asking("a"), asking("a")], "'a' is there more than once"),
        ([asking("a b")], "'requests[0].custom_id'"),
        ([asking("a", stream=True)], "'requests[0].params.stream'"),
        ([{"custom_id": "a", "params": {}}], "'requests[0].params.model'"),
        ([{"custom_id": "a"}], "'requests[0].params'"),
    ],
)
def test_what_cannot_be_a_batch(server: Any, requests: Any, words: str) -> None:
    answer = server.post("/v1/messages/batches", {"requests": requests})
    assert (answer.status, answer.json["type"]) == (400, "error")
    assert words in answer.error["message"]


def test_another_key_sees_none_of_it(serving: Any) -> None:
    with serving(api_keys=("mine", "yours")) as own:
        mine, yours = (Anthropic(base_url=own.url, api_key=key, max_retries=0) for key in ("mine", "yours"))
        batch = ended(mine, mine.messages.batches.create(requests=[asking("a")]))
        assert results(mine, batch).keys() == {"a"}
        assert yours.messages.batches.list().data == []
        for call in (yours.messages.batches.retrieve, yours.messages.batches.cancel, yours.messages.batches.delete):
            with pytest.raises(anthropic.NotFoundError):
                call(batch.id)
        answer = own.get(f"/v1/messages/batches/{batch.id}/results", headers={"x-api-key": "yours"})
        assert answer.status == 404
