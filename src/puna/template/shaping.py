"""Messages and tools in the shape that chat templates read, which is OpenAI's. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from puna.errors import InvalidRequest
from puna.strictjson import strict_json
from puna.template.facts import TemplateFacts, Trust
from puna.types import MEDIA_MARKER, AudioPart, ImagePart, JsonObject, JsonValue, Message, TextPart, Tool, ToolCall

RESERVED = frozenset({"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"})
"""What templates are given by other ways than as arguments."""


@dataclass(frozen=True, slots=True)
class Feed:
    """What a template is run over. `tools` is None where there are none: templates ask `is defined`."""

    messages: Sequence[JsonObject]
    tools: Sequence[JsonObject] | None
    arguments: Mapping[str, JsonValue]


def as_given(
    messages: Sequence[Message],
    tools: Sequence[Tool],
    facts: TemplateFacts,
    arguments: Mapping[str, JsonValue] | None,
) -> Feed:
    """All of it for a template of these `facts`. InvalidRequest for an argument that is none of the caller's."""
    taken = RESERVED & set(arguments or {})
    if taken:
        raise InvalidRequest(f"'{min(taken)}' is no template argument of yours", param="template_arguments")
    return Feed(
        [message_json(message, parts=facts.parts) for message in shaped(messages, facts)],
        [tool_json(tool) for tool in tools] or None,
        arguments or {},
    )


class TakesMessages(Protocol):
    """What a template has that is run over JSON: to be run over messages, too."""

    @property
    def facts(self) -> TemplateFacts: ...

    @property
    def trust(self) -> Trust:
        return "known"

    def render_json(
        self,
        messages: Sequence[JsonObject],
        tools: Sequence[JsonObject] | None,
        *,
        add_generation_prompt: bool,
        arguments: Mapping[str, JsonValue],
    ) -> str: ...

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        add_generation_prompt: bool = True,
        arguments: Mapping[str, JsonValue] | None = None,
    ) -> str:
        """The prompt's text. `arguments` are the template's own variables; a Go template has two of thinking.

        InvalidRequest: the template refuses these messages. ModelFileError: it is broken, or takes too much.
        """
        given = as_given(messages, tools, self.facts, arguments)
        return self.render_json(
            given.messages, given.tools, add_generation_prompt=add_generation_prompt, arguments=given.arguments
        )


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
        value = strict_json(call.arguments.strip() or "{}")
    except ValueError:
        return call.arguments
    return value if isinstance(value, dict) else call.arguments


def unreadable(call: ToolCall) -> bool:
    """Whether its arguments are no object: the model was cut while it wrote them, or they are of another kind."""
    return isinstance(arguments_json(call), str)


def tool_json(tool: Tool) -> JsonObject:
    """A tool as OpenAI writes it. A custom tool is a function of one text."""
    parameters: JsonObject = tool.parameters or {"type": "object", "properties": {}}
    if tool.kind == "custom":
        parameters = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }
