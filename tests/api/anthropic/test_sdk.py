"""Anthropic's client for Python: its typed calls and helpers, as its users make them."""

from __future__ import annotations

import base64
import json
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message, ModelInfo, RawMessageStreamEvent
from openai import OpenAI
from pydantic import BaseModel, TypeAdapter

from .test_contract import png

USER: Any = {"role": "user", "content": "Hi"}
TOOL: Any = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


def strictly(shape: Any, value: Any) -> None:
    """Every key that the client's type requires is there, of its type."""
    TypeAdapter(shape).validate_python(value)


def ask(client: Anthropic, text: Any, model: str = "tiny", **more: Any) -> Message:
    return client.messages.create(
        model=model, max_tokens=more.pop("max_tokens", 500), messages=[{"role": "user", "content": text}], **more
    )


def test_a_message(client: Anthropic) -> None:
    message = ask(client, "Hi")
    assert [block.to_dict() for block in message.content] == [
        {"type": "text", "text": "Hello there, friend.", "citations": None}
    ]
    assert (message.role, message.type, message.model, message.stop_reason) == (
        "assistant",
        "message",
        "tiny",
        "end_turn",
    )
    assert message.id.startswith("msg_")
    assert message._request_id is not None
    assert message._request_id.startswith("req_")
    assert message.usage.output_tokens == 5
    strictly(Message, message.to_dict(mode="json"))


def test_a_stream_is_the_message(client: Anthropic) -> None:
    whole = ask(client, "THINK", "thinker")
    with client.messages.stream(
        model="thinker", max_tokens=500, messages=[{"role": "user", "content": "THINK"}]
    ) as stream:
        assert "".join(stream.text_stream) == "Forty-two."
        final = stream.get_final_message()
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in whole.content]
    assert final.content[0].type == "thinking"
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)


def test_raw_events_are_typed(client: Anthropic) -> None:
    names = []
    for event in client.messages.create(
        model="tools", max_tokens=500, messages=[{"role": "user", "content": "CALL TWO"}], tools=[TOOL], stream=True
    ):
        strictly(RawMessageStreamEvent, event.to_dict(mode="json"))
        names.append(event.type)
    assert names[0] == "message_start"
    assert names[-2:] == ["message_delta", "message_stop"]
    assert names.count("content_block_start") == names.count("content_block_stop") == 2


async def test_the_asynchronous_client(server: Any) -> None:
    async with (
        AsyncAnthropic(base_url=server.url, api_key="x") as client,
        client.messages.stream(model="tiny", max_tokens=50, messages=[USER]) as stream,
    ):
        assert [text async for text in stream.text_stream] == ["Hello", " there", ",", " friend", "."]


def test_a_tool_loop(client: Anthropic) -> None:
    asked = [{"role": "user", "content": "CALL"}]
    message = ask(client, "CALL", "tools", tools=[TOOL])
    assert message.stop_reason == "tool_use"
    (call,) = [block for block in message.content if block.type == "tool_use"]
    assert (call.name, call.input, call.id[:6]) == ("get_weather", {"city": "Paris"}, "toolu_")
    turns: Any = [
        *asked,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "RESULT: sun"}]},
    ]
    final = client.messages.create(model="tools", max_tokens=50, messages=turns, tools=[TOOL])
    assert (final.content[0].to_dict()["text"], final.stop_reason) == ("It is sunny.", "end_turn")


def test_the_tool_runner(client: Anthropic) -> None:
    asked: list[str] = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return "RESULT: sun"

    runner = client.beta.messages.tool_runner(
        model="tools", max_tokens=500, messages=[{"role": "user", "content": "CALL TWO"}], tools=[get_weather]
    )
    final = runner.until_done()
    assert asked == ["Paris", "Oslo"]
    assert final.content[0].to_dict()["text"] == "It is sunny."


class Found(BaseModel):
    ok: bool


def test_parsed_output(client: Anthropic) -> None:
    parsed = client.messages.parse(
        model="tiny", max_tokens=50, messages=[{"role": "user", "content": "JSON"}], output_format=Found
    )
    assert parsed.parsed_output == Found(ok=True)


def test_tokens_are_counted_as_they_are_read(client: Anthropic) -> None:
    system, tools = "Be brief.", [TOOL]
    counted = client.messages.count_tokens(model="tools", messages=[USER], system=system, tools=tools)
    usage = ask(client, "Hi", "tools", system=system, tools=tools).usage
    assert usage.cache_read_input_tokens is not None
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_what_was_cached_is_told(client: Anthropic) -> None:
    marked: Any = [{"type": "text", "text": "A long text to keep. " * 5, "cache_control": {"type": "ephemeral"}}]
    first, second = (ask(client, "Kept?", "begins", system=marked).usage for _ in range(2))
    assert first.cache_creation_input_tokens
    assert second.cache_read_input_tokens
    assert first.cache_creation_input_tokens > 100
    assert second.cache_read_input_tokens > 100
    assert first.input_tokens == second.input_tokens == 0
    unmarked = ask(client, "Kept", "begins", system="A long text to keep. " * 5).usage
    assert unmarked.cache_creation_input_tokens == 0
    assert unmarked.cache_read_input_tokens
    assert unmarked.input_tokens > 0


def test_a_prompt_that_is_only_computed(client: Anthropic) -> None:
    marked: Any = [{"type": "text", "text": "Another text to keep. " * 5, "cache_control": {"type": "ephemeral"}}]
    warmed = ask(client, "Warm?", "begins", system=marked, max_tokens=0)
    assert (warmed.content, warmed.stop_reason, warmed.usage.output_tokens) == ([], "max_tokens", 0)
    assert warmed.usage.cache_creation_input_tokens
    usage = ask(client, "Warm?", "begins", system=marked).usage
    assert usage.cache_read_input_tokens
    assert usage.cache_read_input_tokens > 100


def test_models_are_paged_both_ways(client: Anthropic, openai: OpenAI) -> None:
    pages = client.models.list(limit=2)
    ids = [model.id for model in pages]
    assert ids == [model.id for model in openai.models.list()]
    assert {"tiny:latest", "vision:latest"} <= set(ids)
    first = client.models.list(limit=2)
    assert (first.has_more, first.first_id, first.last_id) == (True, ids[0], ids[1])
    before = client.models.list(limit=2, before_id=ids[3])
    assert [model.id for model in before.data] == ids[1:3]
    after = client.models.list(limit=2, after_id=ids[-3])
    assert ([model.id for model in after.data], after.has_more) == (ids[-2:], False)
    for model in first.data:
        strictly(ModelInfo, model.to_dict(mode="json"))
    assert client.models.retrieve("tiny").max_input_tokens == 4096
    vision = client.models.retrieve("vision").capabilities
    assert vision is not None
    assert vision.image_input.supported


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=1001", "after_id=nope", "after_id=a&before_id=b", "limit=1&limit=2"]
)
def test_pages_that_cannot_be(server: Any, query: str) -> None:
    answer = server.get(f"/v1/models?{query}", headers={"anthropic-version": "2023-06-01"})
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")


def test_errors_are_of_their_classes(client: Anthropic, serving: Any) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        ask(client, "Hi", "nope")
    assert missing.value.body == {
        "type": "error",
        "error": {
            "type": "not_found_error",
            "message": "model 'nope:latest' not found, try pulling it first: puna pull nope:latest",
            "details": {"error_code": "model_not_found", "param": "model"},
        },
        "request_id": missing.value.request_id,
    }
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 20019 tokens > 4096 maximum"):
        ask(client, "x" * 20_000)
    with serving(api_keys=("mine",)) as own:
        with pytest.raises(anthropic.AuthenticationError):
            ask(Anthropic(base_url=own.url, api_key="yours"), "Hi")
        assert ask(Anthropic(base_url=own.url, api_key="mine"), "Hi").stop_reason == "end_turn"
        assert ask(Anthropic(base_url=own.url, api_key=None, auth_token="mine"), "Hi").stop_reason == "end_turn"


def test_a_stream_that_fails_on_its_way(client: Anthropic) -> None:
    with (
        pytest.raises(anthropic.APIStatusError, match="scripted death") as failed,
        client.messages.stream(
            model="tiny", max_tokens=50, messages=[{"role": "user", "content": "DIE LATE"}]
        ) as stream,
    ):
        stream.until_done()
    assert json.loads(json.dumps(failed.value.body))["error"]["type"] == "api_error"


def test_files_by_their_ids(client: Anthropic, openai: OpenAI) -> None:
    text = openai.files.create(file=("notes.txt", b"The sky is green."), purpose="user_data")
    image = openai.files.create(file=("a.png", base64.b64decode(png())), purpose="vision")
    turn: Any = [
        {"type": "text", "text": "PROMPT"},
        {"type": "document", "title": "My notes", "source": {"type": "file", "file_id": text.id}},
        {"type": "image", "source": {"type": "file", "file_id": image.id}},
    ]
    shown = ask(client, turn, "vision").content[0].to_dict()["text"]
    assert "PROMPT\nMy notes:\nThe sky is green." in str(shown)
    assert "<__media__>" in str(shown)
    with pytest.raises(anthropic.BadRequestError, match="none of png, jpeg and webp"):
        ask(client, [{"type": "image", "source": {"type": "file", "file_id": text.id}}], "vision")
