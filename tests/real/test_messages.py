"""Messages of a real model, through Anthropic's client: they mean what the same chat means."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from .conftest import Program

ASKS: Any = {"model": "smollm2", "max_tokens": 12, "extra_body": {"temperature": 0}}
FACTS = "You know these facts. " + " ".join(f"Number {number} is called N{number}." for number in range(12))
QUESTION: Any = {"role": "user", "content": "What is number 7 called?"}
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(program: Program) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=program.url, api_key="unused", max_retries=0)


@pytest.mark.timeout(300)
def test_a_message_is_the_same_chat(client: anthropic.Anthropic, program: Program) -> None:
    """Its text, its tokens, and what of it was cached when it is asked again."""
    marked: Any = [{"type": "text", "text": FACTS, "cache_control": {"type": "ephemeral"}}]
    first = client.messages.create(system=marked, messages=[QUESTION], **ASKS)
    system: Any = {"role": "system", "content": FACTS}
    chat = program.client.chat.completions.create(messages=[system, QUESTION], **ASKS)
    assert first.content[0].to_dict()["text"] == chat.choices[0].message.content
    assert chat.usage
    counted = client.messages.count_tokens(model="smollm2", system=marked, messages=[QUESTION]).input_tokens
    assert counted == chat.usage.prompt_tokens
    with client.messages.stream(system=marked, messages=[QUESTION], **ASKS) as stream:
        again = stream.get_final_message()
    assert again.content[0].to_dict() == first.content[0].to_dict()
    for usage in (first.usage, again.usage):
        read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
        assert read is not None
        assert written is not None
        assert usage.input_tokens + read + written == counted
    assert again.usage.cache_read_input_tokens
    assert again.usage.cache_read_input_tokens > counted // 2


@pytest.mark.timeout(300)
def test_a_tool_is_called_and_an_answer_goes_on(client: anthropic.Anthropic) -> None:
    asked: Any = {"role": "user", "content": "Weather in Oslo?"}
    choice: Any = {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
    made = client.messages.create(messages=[asked], tools=[WEATHER], tool_choice=choice, **ASKS | {"max_tokens": 80})
    (call,) = [block for block in made.content if block.type == "tool_use"]
    assert made.stop_reason == "tool_use"
    assert call.input.keys() == {"city", "unit"}
    assert call.input["unit"] in {"C", "F"}
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny, 20"}
    turns: Any = [asked, {"role": "assistant", "content": made.content}, {"role": "user", "content": [result]}]
    form: Any = {
        "format": {"type": "json_schema", "schema": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 3}}
    }
    shaped = client.messages.create(messages=turns, output_config=form, **ASKS)
    assert set(json.loads(str(shaped.content[0].to_dict()["text"]))) <= {1, 2}
