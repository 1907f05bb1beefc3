"""Messages and tools in the shape that chat templates read; and what is done for templates that cannot. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from puna.chat.facts import CallSyntax, TemplateFacts
from puna.types import AudioPart, ImagePart, JsonObject, JsonValue, Message, TextPart, Tool, ToolCall

MEDIA_MARKER = "<__media__>"
"""Stands in a prompt's text for each image or sound, in order (see `puna.engine.runner.Prompt`)."""


def shaped(messages: Sequence[Message], facts: TemplateFacts) -> tuple[Message, ...]:
    """The messages as this template takes them: one that knows no system gets its text before the first user's."""
    return tuple(messages) if facts.system else _without_system(messages)


def _without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    system = "\n\n".join(message.text for message in messages if message.role == "system")
    others = [message for message in messages if message.role != "system"]
    if not system:
        return tuple(others)
    first = next((place for place, message in enumerate(others) if message.role == "user"), None)
    if first is None:
        return (Message.of("user", system), *others)
    user = others[first]
    others[first] = replace(user, content=(TextPart(f"{system}\n"), *user.content))
    return tuple(others)


def told(messages: Sequence[Message], instructions: str) -> tuple[Message, ...]:
    """The messages with `instructions` at the end of the first system message, which is made if there is none."""
    first = next((place for place, message in enumerate(messages) if message.role == "system"), None)
    if first is None:
        return (Message.of("system", instructions), *messages)
    system = messages[first]
    longer = replace(system, content=(*system.content, TextPart(f"\n{instructions}")))
    return (*messages[:first], longer, *messages[first + 1 :])


def spelled_out(messages: Sequence[Message], syntax: CallSyntax) -> tuple[Message, ...]:
    """Calls and their results as plain text, for a template that has no place for them."""
    turns: list[Message] = []
    for message in messages:
        if message.role != "tool":
            turns.append(_with_calls(message, syntax))
            continue
        result = TextPart(f"<tool_response>\n{message.text}\n</tool_response>")
        if turns and turns[-1].role == "tool":
            turns[-1] = replace(turns[-1], content=(*turns[-1].content, result))
        else:
            turns.append(Message("tool", (result,)))
    return tuple(replace(turn, role="user") if turn.role == "tool" else turn for turn in turns)


def _with_calls(message: Message, syntax: CallSyntax) -> Message:
    calls = tuple(
        TextPart(f"{syntax.before}{call.name}{syntax.between}{_arguments_text(call)}{syntax.after}")
        for call in message.tool_calls
    )
    return replace(message, content=(*message.content, *calls), tool_calls=()) if calls else message


def _arguments_text(call: ToolCall) -> str:
    return json.dumps(arguments_json(call), ensure_ascii=False)


def message_json(message: Message, *, parts: bool = False) -> JsonObject:
    """A message as templates know it. Media stand as `MEDIA_MARKER` in the text."""
    shape: JsonObject = {"role": message.role, "content": _parts(message) if parts else content_text(message)}
    if message.name is not None:
        shape["name"] = message.name
    if message.thinking:
        shape["reasoning_content"] = message.thinking
        shape["thinking"] = message.thinking
    if message.tool_calls:
        shape["tool_calls"] = [_call_json(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        shape["tool_call_id"] = message.tool_call_id
    return shape


def content_text(message: Message) -> str:
    """All parts as one text, a line each."""
    return "\n".join(_part_text(part) for part in message.content)


def _part_text(part: TextPart | ImagePart | AudioPart) -> str:
    return part.text if isinstance(part, TextPart) else MEDIA_MARKER


def _parts(message: Message) -> list[JsonValue]:
    return [{"type": "text", "text": _part_text(part)} for part in message.content]


def _call_json(call: ToolCall) -> JsonObject:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments_json(call)}}


def arguments_json(call: ToolCall) -> JsonValue:
    """A call's arguments as the object that templates walk through; text that is none stays text."""
    if call.kind == "custom":
        return {"input": call.arguments}
    try:
        value: JsonValue = json.loads(call.arguments or "{}")
    except ValueError:
        return call.arguments
    return value if isinstance(value, dict) else call.arguments


def tool_json(tool: Tool) -> JsonObject:
    """A tool as OpenAI writes it. A custom tool is a function of one text."""
    parameters: JsonObject = tool.parameters or {"type": "object", "properties": {}}
    if tool.kind == "custom":
        parameters = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }
