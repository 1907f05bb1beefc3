"""Messages and the images in them: their contract, and what they become. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from puna.errors import InvalidRequest
from puna.server.contract.shapes import Honoured, JsonObject, Shape
from puna.server.media import check_image
from puna.server.sounds import check_sound, sound_kind
from puna.types import AudioPart, ImagePart, Message, Part, Role, TextPart, ToolCall

_ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


class FunctionCallBody(Shape):
    name: Annotated[str, Honoured("The tool that was called.")]
    arguments: Annotated[JsonObject, Honoured("What it was called with.")] = Field(default_factory=dict)
    index: Annotated[int | None, Honoured("As answers give it; the order of the list counts.")] = None


class ToolCallBody(Shape):
    id: Annotated[str, Honoured("What a tool's message may answer by `tool_call_id`.")] = ""
    type: Annotated[str, Honoured("`function`.")] = "function"
    function: Annotated[FunctionCallBody, Honoured("The call.")]


class MessageBody(Shape):
    role: Annotated[str, Honoured("`system`, `user`, `assistant` or `tool`, in any case.")]
    content: Annotated[str, Honoured("The text.")] = ""
    thinking: Annotated[str, Honoured("The thinking of that turn, for templates that want it.")] = ""
    images: Annotated[list[str], Honoured("Base64 of images or sounds; before the text, or each at its `[img]`.")] = (
        Field(default_factory=list)
    )
    tool_calls: Annotated[list[ToolCallBody], Honoured("Calls the model made.")] = Field(default_factory=list)
    tool_name: Annotated[str, Honoured("The tool whose result this is.")] = ""
    tool_call_id: Annotated[str, Honoured("The call that this answers.")] = ""


# ------------------------------------------------------------------------------------------------ what they become


def to_message(body: MessageBody, path: str) -> Message:
    """`path`: of the message in its request, for errors."""
    role = body.role.lower()
    if role not in _ROLES:
        raise InvalidRequest(
            f"invalid role {json.dumps(body.role)}: must be one of system, user, assistant or tool",
            param=f"{path}.role",
        )
    calls = tuple(
        ToolCall(call.id or f"call_{index}", call.function.name, _compact(call.function.arguments))
        for index, call in enumerate(body.tool_calls)
    )
    return Message(
        role=role,
        content=illustrated(body.content, body.images, f"{path}.images"),
        name=body.tool_name or None,
        thinking=body.thinking or None,
        tool_calls=calls,
        tool_call_id=body.tool_call_id or None,
    )


def illustrated(text: str, images: Sequence[str], path: str) -> tuple[Part, ...]:
    """Images stand before the text, as Ollama puts them, but for those that it has a place for: '[img]'.

    `path`: of the list of images, for errors.
    """
    if not images:
        return (TextPart(text),)
    media = [_decoded(image, f"{path}[{index}]") for index, image in enumerate(images)]
    first, *rest = text.split("[img]", len(media))
    before = media[: len(media) - len(rest)]
    placed = [
        part for image, words in zip(media[len(before) :], rest, strict=True) for part in (image, TextPart(words))
    ]
    return tuple(part for part in (*before, TextPart(first), *placed) if part != TextPart(""))


def _decoded(text: str, path: str) -> Part:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"illegal base64 data at input byte {_illegal_byte(text)}"
        raise InvalidRequest(message, param=path, code="invalid_base64") from error
    # Ollama has one field for both; sound is told by its first bytes.
    return AudioPart(check_sound(data, path)) if sound_kind(data) else ImagePart(check_image(data, path))


def _illegal_byte(text: str) -> int:
    legal = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return next((index for index, character in enumerate(text) if character not in legal), len(text))


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
