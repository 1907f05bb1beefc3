"""The `openai` package's own typed calls and helpers on responses and conversations."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai as sdk
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Ok(BaseModel):
    ok: bool


@pytest.fixture
async def async_openai(server) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_create(openai: OpenAI):
    response = openai.responses.create(model="tiny", input="Hi")
    assert response.output_text == "Hello there, friend."
    assert response._request_id


def test_create_as_a_stream(openai: OpenAI):
    with openai.responses.create(model="tiny", input="Hi", stream=True) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "Hello there, friend."


async def test_async_create(async_openai: AsyncOpenAI):
    assert (await async_openai.responses.create(model="tiny", input="Hi")).output_text == "Hello there, friend."
    async with async_openai.responses.stream(model="tiny", input="Hi") as stream:
        assert (await stream.get_final_response()).output_text == "Hello there, friend."


def test_parse(openai: OpenAI):
    assert openai.responses.parse(model="tiny", input="JSON", text_format=Ok).output_parsed == Ok(ok=True)


def test_stream_helper(openai: OpenAI):
    with openai.responses.stream(model="tiny", input="JSON", text_format=Ok) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_parsed == Ok(ok=True)
    assert json.loads(snapshots[-1]) == {"ok": True}


def test_stream_helper_of_a_thought_and_of_calls(openai: OpenAI):
    with openai.responses.stream(model="thinker", input="THINK") as stream:
        assert [item.type for item in stream.get_final_response().output] == ["reasoning", "message"]
    with openai.responses.stream(model="tools", input="CALL TWO", tools=[WEATHER]) as stream:
        calls = stream.get_final_response().output
    assert [json.loads(call.arguments)["city"] for call in calls if call.type == "function_call"] == ["Paris", "Oslo"]


def test_the_tool_loop(openai: OpenAI):
    first = openai.responses.create(model="tools", input="CALL", tools=[WEATHER])
    results: Any = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "RESULT"}
        for item in first.output
        if item.type == "function_call"
    ]
    last = openai.responses.create(model="tools", input=results, tools=[WEATHER], previous_response_id=first.id)
    assert last.output_text == "It is sunny."


def test_stored_responses(openai: OpenAI):
    made = openai.responses.create(model="tiny", input=[{"role": "user", "content": f"{n}"} for n in range(5)])
    assert openai.responses.retrieve(made.id) == made
    items = list(openai.responses.input_items.list(made.id, limit=2, order="asc"))
    assert [item.content[0].text for item in items] == ["0", "1", "2", "3", "4"]  # type: ignore[union-attr]
    openai.responses.delete(made.id)
    with pytest.raises(sdk.NotFoundError):
        openai.responses.retrieve(made.id)


def test_counting_and_compacting(openai: OpenAI):
    assert openai.responses.input_tokens.count(model="tiny", input="Hi").input_tokens == 21
    short = openai.responses.compact(model="tiny", input="Hi")
    assert [item.type for item in short.output] == ["compaction"]
    again: Any = [*(item.model_dump(exclude_none=True) for item in short.output), {"role": "user", "content": "PROMPT"}]
    assert "Hello there, friend." in openai.responses.create(model="tiny", input=again).output_text


def test_conversations(openai: OpenAI):
    made = openai.conversations.create(metadata={"a": "b"}, items=[{"role": "user", "content": "Once"}])
    assert openai.conversations.retrieve(made.id) == made
    assert openai.conversations.update(made.id, metadata={"c": "d"}).metadata == {"c": "d"}
    response = openai.responses.create(model="tiny", input="PROMPT", conversation=made.id)
    assert response.output_text.index("Once") < response.output_text.index("PROMPT")
    assert response.conversation
    assert response.conversation.id == made.id
    more = openai.conversations.items.create(made.id, items=[{"role": "user", "content": "More"}])
    assert len(more.data) == 1
    items = list(openai.conversations.items.list(made.id, limit=2, order="asc"))
    assert [item.role for item in items] == ["user", "user", "assistant", "user"]  # type: ignore[union-attr]
    one = openai.conversations.items.retrieve(items[1].id, conversation_id=made.id)  # type: ignore[arg-type]
    assert one == items[1]
    openai.conversations.items.delete(items[1].id, conversation_id=made.id)  # type: ignore[arg-type]
    assert len(list(openai.conversations.items.list(made.id))) == 3
    assert openai.conversations.delete(made.id).deleted
    with pytest.raises(sdk.NotFoundError):
        openai.conversations.retrieve(made.id)


def test_in_the_background(openai: OpenAI):
    made = openai.responses.create(model="tiny", input="Hi", background=True)
    assert made.status == "queued"
    with openai.responses.retrieve(made.id, stream=True) as stream:
        assert [event.type for event in stream][-1] == "response.completed"
    assert openai.responses.retrieve(made.id).output_text == "Hello there, friend."


def test_a_follower_resumes_where_it_left_off(openai: OpenAI):
    with openai.responses.stream(model="tiny", input="Hi", background=True) as stream:
        first = [next(stream) for _ in range(5)]
    id_ = first[0].response.id  # type: ignore[union-attr]
    with openai.responses.stream(response_id=id_, starting_after=first[-1].sequence_number) as rest:
        numbers = [event.sequence_number for event in rest]
        assert rest.get_final_response().output_text == "Hello there, friend."
    assert numbers == list(range(5, 5 + len(numbers)))


def test_cancelling(openai: OpenAI):
    made = openai.responses.create(model="tiny", input="FOREVER", background=True)
    assert openai.responses.cancel(made.id).status == "cancelled"
    assert openai.responses.cancel(made.id).status == "cancelled"
    assert openai.responses.retrieve(made.id).status == "cancelled"
    with pytest.raises(sdk.BadRequestError):
        openai.responses.cancel(openai.responses.create(model="tiny", input="Hi").id)


def test_errors_by_class(openai: OpenAI):
    with pytest.raises(sdk.NotFoundError) as missing:
        openai.responses.create(model="nope", input="Hi")
    assert missing.value.code == "model_not_found"
    with pytest.raises(sdk.BadRequestError) as gone:
        openai.responses.create(model="tiny", input="Hi", previous_response_id="resp_gone")
    assert (gone.value.code, gone.value.param) == ("previous_response_not_found", "previous_response_id")
