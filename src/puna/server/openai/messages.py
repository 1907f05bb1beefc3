"""The messages of a conversation: their contract, and what they become. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from puna.errors import InvalidRequest
from puna.server.contract.shapes import Honoured, JsonValue, Refused, Reported, Shape
from puna.server.kept_files import KeptText
from puna.server.media import check_together
from puna.server.openai import media
from puna.server.openai.parts import (
    AssistantContent,
    FileContentPart,
    ImageContentPart,
    Images,
    TextContent,
    TextContentPart,
    UserContent,
    UserPart,
    image_url,
    image_url_path,
    text_parts,
    user_parts,
)
from puna.template.shaping import unreadable
from puna.types import Message, TextPart, ToolCall

_SPEAKER = Honoured("The speaker's name, given to the model's template.")


class SystemMessage(Shape):
    role: Literal["system", "developer"]
    content: Annotated[TextContent, Honoured("The instructions. A developer message is a system message.")]
    name: Annotated[str | None, _SPEAKER] = None


class UserMessage(Shape):
    role: Literal["user"]
    content: Annotated[UserContent, Honoured("Text, or parts: text, image_url, input_audio, file.")]
    name: Annotated[str | None, _SPEAKER] = None


class CalledFunction(Shape):
    name: Annotated[str, Honoured("Its name.")]
    arguments: Annotated[
        str,
        Honoured(
            "JSON text of an object. Of a call that was cut, its beginning: given to the model as text, and named in "
            "`x-puna-ignored`."
        ),
    ]
    parsed_arguments: Annotated[JsonValue, Reported("What a client read out of `arguments`, which counts.")] = None


class CalledCustom(Shape):
    name: Annotated[str, Honoured("Its name.")]
    input: Annotated[str, Honoured("Free text.")]


class PastFunctionCall(Shape):
    type: Literal["function"]
    id: Annotated[str, Honoured("The call's id, which a tool message answers.")]
    function: Annotated[CalledFunction, Honoured("The call.")]
    index: Annotated[int | None, Honoured("As streams give it; the order of the array counts.")] = None


class PastCustomCall(Shape):
    type: Literal["custom"]
    id: Annotated[str, Honoured("The call's id, which a tool message answers.")]
    custom: Annotated[CalledCustom, Honoured("The call.")]
    index: Annotated[int | None, Honoured("As streams give it; the order of the array counts.")] = None


PastCall: TypeAlias = Annotated[PastFunctionCall | PastCustomCall, Field(discriminator="type")]


class AssistantMessage(Shape):
    role: Literal["assistant"]
    content: Annotated[
        AssistantContent | None, Honoured("May be absent beside tool calls, a function call, a refusal or thinking.")
    ] = None
    refusal: Annotated[str | None, Honoured("A refusal of an earlier turn; given to the model as text.")] = None
    name: Annotated[str | None, _SPEAKER] = None
    tool_calls: Annotated[list[PastCall] | None, Honoured("Calls the model made.")] = None
    function_call: Annotated[CalledFunction | None, Honoured("The deprecated form of one call.")] = None
    reasoning_content: Annotated[str | None, Honoured("The thinking of that turn, for templates that want it.")] = None
    reasoning: Annotated[str | None, Honoured("The same under its other name.")] = None
    parsed: Annotated[JsonValue, Reported("What a client read out of `content`, which counts.")] = None
    audio: Annotated[JsonValue, Refused("No audio of earlier turns is stored here.")] = None
    annotations: Annotated[
        JsonValue, Reported("Annotations of an earlier answer say nothing to the model.", harmless=([],))
    ] = None


class ToolMessage(Shape):
    role: Literal["tool"]
    content: Annotated[TextContent, Honoured("The result.")]
    tool_call_id: Annotated[str, Honoured("The call it answers; must be one of the conversation's.")]
    name: Annotated[str | None, Honoured("The tool's name; found from the call when absent.")] = None


class FunctionMessage(Shape):
    role: Literal["function"]
    content: Annotated[str | None, Honoured("The result.")] = None
    name: Annotated[str, Honoured("The function that gave it.")]


ConversationMessage: TypeAlias = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage, Field(discriminator="role")
]

# -------------------------------------------------------------------------------------------------- what they become


def remote_images(conversation: list[ConversationMessage]) -> list[tuple[str, str]]:
    """Paths and URLs of images that must be fetched."""
    found: list[tuple[str, str]] = []
    for index, message in enumerate(conversation):
        if isinstance(message, UserMessage) and isinstance(message.content, list):
            for at, part in enumerate(message.content):
                if isinstance(part, ImageContentPart) and media.is_remote(image_url(part)):
                    found.append((image_url_path(part, f"messages[{index}].content[{at}]"), image_url(part)))
    return found


def kept_files(conversation: list[ConversationMessage]) -> list[tuple[str, str]]:
    """Paths and ids of files that are to be read from what is kept."""
    return [
        (f"messages[{index}].content[{at}].file.file_id", part.file.file_id)
        for index, message in enumerate(conversation)
        if isinstance(message, UserMessage) and isinstance(message.content, list)
        for at, part in enumerate(message.content)
        if isinstance(part, FileContentPart) and part.file.file_id is not None and part.file.file_data is None
    ]


def with_files(conversation: list[ConversationMessage], texts: Mapping[str, KeptText]) -> list[ConversationMessage]:
    """The conversation with the texts of kept files, by their ids, in the places of these."""

    def read(part: UserPart) -> UserPart:
        if not isinstance(part, FileContentPart) or part.file.file_id is None or part.file.file_data is not None:
            return part
        return TextContentPart(type="text", text=texts[part.file.file_id].named(part.file.filename))

    return [
        message.model_copy(update={"content": [read(part) for part in message.content]})
        if isinstance(message, UserMessage) and isinstance(message.content, list)
        else message
        for message in conversation
    ]


def has_media(conversation: list[ConversationMessage]) -> bool:
    """Whether some part takes time to read."""
    return any(
        not isinstance(part, TextContentPart)
        for message in conversation
        if isinstance(message, UserMessage) and isinstance(message.content, list)
        for part in message.content
    )


def unreadable_arguments(conversation: list[ConversationMessage]) -> list[str]:
    """Paths of past calls' arguments that are no objects: these are text for the model."""
    found: list[str] = []
    for index, message in enumerate(conversation):
        if isinstance(message, AssistantMessage):
            called = [
                (f"tool_calls[{at}].function", call.function)
                for at, call in enumerate(message.tool_calls or [])
                if isinstance(call, PastFunctionCall)
            ]
            if message.function_call is not None:
                called.append(("function_call", message.function_call))
            found += [
                f"messages[{index}].{path}.arguments"
                for path, function in called
                if unreadable(ToolCall("", function.name, function.arguments))
            ]
    return found


def to_messages(conversation: list[ConversationMessage], images: Images) -> tuple[Message, ...]:
    calls: dict[str, str] = {}
    legacy: dict[str, str] = {}
    converted: list[Message] = []
    for index, message in enumerate(conversation):
        path = f"messages[{index}]"
        match message:
            case SystemMessage():
                converted.append(Message("system", text_parts(message.content), name=message.name))
            case UserMessage():
                converted.append(Message("user", user_parts(message.content, path, images), name=message.name))
            case AssistantMessage():
                turn = _assistant(message, index)
                calls.update({call.id: call.name for call in turn.tool_calls})
                if message.function_call is not None:
                    legacy[message.function_call.name] = _legacy_id(index)
                converted.append(turn)
            case ToolMessage():
                converted.append(_tool_result(message, path, calls))
            case FunctionMessage():
                converted.append(_function_result(message, path, legacy))
    check_together(converted, "messages")
    return tuple(converted)


def _assistant(message: AssistantMessage, index: int) -> Message:
    content = () if message.content is None else text_parts(message.content)
    if message.refusal is not None:
        content = (*content, TextPart(message.refusal))
    calls = tuple(_past_call(call) for call in message.tool_calls or [])
    if message.function_call is not None:
        called = message.function_call
        calls = (*calls, ToolCall(_legacy_id(index), called.name, _arguments(called)))
    thinking = message.reasoning_content if message.reasoning_content is not None else message.reasoning
    if not content and not calls and message.content is None and thinking is None:
        raise InvalidRequest(
            f"Missing required parameter: 'messages[{index}].content'. It may be absent only beside tool_calls or "
            "function_call.",
            param=f"messages[{index}].content",
            code="missing_required_parameter",
        )
    return Message("assistant", content, name=message.name, thinking=thinking, tool_calls=calls)


def _legacy_id(index: int) -> str:
    """The deprecated form has no ids: the message's place stands for one."""
    return f"call_function_{index}"


def _past_call(call: PastCall) -> ToolCall:
    if isinstance(call, PastCustomCall):
        return ToolCall(call.id, call.custom.name, call.custom.input, "custom")
    return ToolCall(call.id, call.function.name, _arguments(call.function))


def _arguments(function: CalledFunction) -> str:
    """Clients send an empty text for no arguments."""
    return function.arguments if function.arguments.strip() else "{}"


def _tool_result(message: ToolMessage, path: str, calls: Mapping[str, str]) -> Message:
    name = calls.get(message.tool_call_id)
    if name is None:
        raise InvalidRequest(
            f"Invalid '{path}.tool_call_id': no earlier message has a tool call '{message.tool_call_id[:100]}'.",
            param=f"{path}.tool_call_id",
        )
    return Message("tool", text_parts(message.content), name=name, tool_call_id=message.tool_call_id)


def _function_result(message: FunctionMessage, path: str, calls: Mapping[str, str]) -> Message:
    call = calls.get(message.name)
    if call is None:
        raise InvalidRequest(
            f"Invalid '{path}.name': no earlier message has a function call '{message.name[:100]}'.",
            param=f"{path}.name",
        )
    return Message("tool", (TextPart(message.content or ""),), name=message.name, tool_call_id=call)
