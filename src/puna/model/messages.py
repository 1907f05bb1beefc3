"""Messages that a model carries with it, as Ollama's JSON. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import get_args

from puna.errors import ModelFileError
from puna.types import ImagePart, JsonObject, JsonValue, Message, Part, Role, TextPart, ToolCall


def messages_from_json(value: JsonValue) -> tuple[Message, ...]:
    """ModelFileError when it is no list of messages. Unknown keys are ignored."""
    if not isinstance(value, list):
        raise ModelFileError("the messages of the model are not a list")
    return tuple(_message(item, index) for index, item in enumerate(value))


def messages_to_json(messages: Iterable[Message]) -> list[JsonValue]:
    return [_shape(message) for message in messages]


def _message(value: JsonValue, index: int) -> Message:
    if not isinstance(value, dict):
        raise ModelFileError(f"messages[{index}] is not an object")
    role, content = value.get("role"), value.get("content")
    known: tuple[Role, ...] = get_args(Role)
    found = next((item for item in known if item == role), None)
    if found is None:
        raise ModelFileError(f"messages[{index}].role must be one of {', '.join(known)}")
    if content is not None and not isinstance(content, str):
        raise ModelFileError(f"messages[{index}].content is not text")
    parts: list[Part] = [TextPart(content)] if content else []
    parts.extend(_images(value.get("images"), index))
    return Message(
        found,
        tuple(parts),
        name=_text(value, "tool_name"),
        thinking=_text(value, "thinking"),
        tool_calls=_calls(value.get("tool_calls"), index),
        tool_call_id=_text(value, "tool_call_id"),
    )


def _images(value: JsonValue, index: int) -> list[ImagePart]:
    try:
        return [ImagePart(base64.b64decode(str(item), validate=True)) for item in _list(value)]
    except ValueError as error:
        raise ModelFileError(f"messages[{index}].images: not base64") from error


def _calls(value: JsonValue, index: int) -> tuple[ToolCall, ...]:
    calls: list[ToolCall] = []
    for number, item in enumerate(_list(value)):
        function = item.get("function") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(function, dict) or not _text(function, "name"):
            raise ModelFileError(f"messages[{index}].tool_calls[{number}] names no function")
        arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
        calls.append(ToolCall(_text(item, "id") or f"call_{index}_{number}", _text(function, "name") or "", arguments))
    return tuple(calls)


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _text(shape: JsonObject, key: str) -> str | None:
    value = shape.get(key)
    return value if isinstance(value, str) and value else None


def _shape(message: Message) -> JsonObject:
    shape: JsonObject = {"role": message.role, "content": message.text}
    images: list[JsonValue] = [
        base64.b64encode(part.data).decode() for part in message.content if isinstance(part, ImagePart)
    ]
    calls: list[JsonValue] = [
        {"id": call.id, "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
        for call in message.tool_calls
    ]
    optional: JsonObject = {
        "thinking": message.thinking,
        "images": images,
        "tool_calls": calls,
        "tool_name": message.name,
        "tool_call_id": message.tool_call_id,
    }
    return shape | {key: value for key, value in optional.items() if value}
