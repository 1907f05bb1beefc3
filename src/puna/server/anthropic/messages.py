"""The messages of a conversation: their contract, and what they become. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from puna.errors import InvalidRequest, Unsupported
from puna.server.anthropic.blocks import (
    AnthropicBlock,
    AssistantBlocks,
    FromBlock,
    HeldElsewhere,
    ImageBlock,
    RedactedThinkingBlock,
    SystemBlocks,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserBlock,
    UserBlocks,
    call_of,
    file_id,
    held_elsewhere,
    readable_parts,
    refuse_hosted,
    remote_url,
    takes_long,
)
from puna.server.contract.shapes import Honoured, Shape
from puna.server.media import check_together
from puna.types import ImagePart, Message, Part, TextPart, ToolCall


class UserTurn(Shape):
    role: Literal["user"]
    content: Annotated[UserBlocks, Honoured("Text, or blocks: text, image, document, search_result, tool_result.")]


class AssistantTurn(Shape):
    role: Literal["assistant"]
    content: Annotated[
        AssistantBlocks,
        Honoured("Text, or blocks: text, thinking, redacted_thinking, tool_use. The last message is gone on with."),
    ]


class SystemTurn(Shape):
    role: Literal["system"]
    content: Annotated[SystemBlocks, Honoured("Instructions, from here on.")]


ConversationTurn: TypeAlias = Annotated[UserTurn | AssistantTurn | SystemTurn, Field(discriminator="role")]

# -------------------------------------------------------------------------------------------------- what they become


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Paths of blocks, and the URL of an image or a document, or the id of a file that is an image or a text."""

    images: list[tuple[str, str]] = field(default_factory=list)
    image_files: list[tuple[str, str]] = field(default_factory=list)
    text_files: list[tuple[str, str]] = field(default_factory=list)
    documents: list[tuple[str, str]] = field(default_factory=list)


def elsewhere(conversation: Sequence[ConversationTurn]) -> Elsewhere:
    """What must be fetched before the conversation is converted."""
    found = Elsewhere()
    for index, message in enumerate(conversation):
        if isinstance(message, UserTurn) and isinstance(message.content, list):
            for path, block in held_elsewhere(message.content, f"messages[{index}].content"):
                if (url := remote_url(block)) is not None:
                    places = found.images if isinstance(block, ImageBlock) else found.documents
                    places.append((f"{path}.source.url", url))
                elif (id_ := file_id(block)) is not None:
                    files = found.image_files if isinstance(block, ImageBlock) else found.text_files
                    files.append((f"{path}.source.file_id", id_))
    return found


def has_media(conversation: Sequence[ConversationTurn]) -> bool:
    """Whether some block takes time to read."""
    return any(
        takes_long(block)
        for message in conversation
        if isinstance(message, UserTurn) and isinstance(message.content, list)
        for block in message.content
    )


@dataclass(frozen=True, slots=True)
class HouseTurns:
    """The house's messages, and what this request calls each of them and its parts."""

    messages: tuple[Message, ...]
    names: dict[str, str]


def to_turns(
    system: SystemBlocks | None, conversation: Sequence[ConversationTurn], fetched: HeldElsewhere
) -> HouseTurns:
    """The conversation as the house has it: turns of one role are one message, results of calls are their own."""
    turns = _Turns()
    if system is not None:
        turns.add(Message("system"), "system", _texts(system, "system"))
    calls: dict[str, str] = {}
    for index, message in enumerate(conversation):
        path = f"messages[{index}]"
        match message:
            case SystemTurn():
                turns.add(Message("system"), path, _texts(message.content, f"{path}.content"))
            case AssistantTurn():
                turn, parts = _assistant(message.content, f"{path}.content")
                calls.update({call.id: call.name for call in turn.tool_calls})
                turns.add(turn, path, parts)
            case UserTurn(content=str(text)):
                turns.add(Message("user"), path, [FromBlock(TextPart(text), f"{path}.content")])
            case UserTurn(content=list(blocks)):
                _add_user(turns, blocks, path, fetched, calls)
    messages = turns.messages()
    check_together(messages, "messages")
    return HouseTurns(messages, turns.names)


@dataclass(slots=True)
class _Turn:
    """A message under way, and all that is together in it. `last`: what it is besides, as the last one said."""

    last: Message
    parts: list[Part] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)

    def whole(self) -> Message:
        return replace(
            self.last,
            content=tuple(self.parts),
            thinking="\n".join(self.thoughts) or None,
            tool_calls=tuple(self.calls),
        )


@dataclass(slots=True)
class _Turns:
    turns: list[_Turn] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def messages(self) -> tuple[Message, ...]:
        return tuple(turn.whole() for turn in self.turns)

    def add(self, message: Message, path: str, parts: Sequence[FromBlock]) -> None:
        """`message`, which has no parts yet, with these; one with the message before it, if both are of one speaker."""
        before = self.turns[-1] if self.turns else None
        if before is not None and before.last.role == message.role and message.role in {"user", "assistant"}:
            turn = before
            turn.last = message
        else:
            turn = _Turn(message)
            self.turns.append(turn)
        at = len(self.turns) - 1
        for place, part in enumerate(parts, len(turn.parts)):
            self.names[f"messages[{at}].content[{place}]"] = part.path
        self.names[f"messages[{at}]"] = path
        self.names[f"messages[{at}].content"] = path if path == "system" else f"{path}.content"
        turn.parts += (part.part for part in parts)
        turn.thoughts += [message.thinking] if message.thinking else []
        turn.calls += message.tool_calls


def _texts(content: SystemBlocks, path: str) -> list[FromBlock]:
    if isinstance(content, str):
        return [FromBlock(TextPart(content), path)]
    return [FromBlock(TextPart(block.text), f"{path}[{at}]") for at, block in enumerate(content)]


def _assistant(content: AssistantBlocks, path: str) -> tuple[Message, list[FromBlock]]:
    if isinstance(content, str):
        return Message("assistant"), [FromBlock(TextPart(content), path)]
    parts: list[FromBlock] = []
    thoughts: list[str] = []
    calls = []
    for at, block in enumerate(content):
        match block:
            case TextBlock():
                parts.append(FromBlock(TextPart(block.text), f"{path}[{at}]"))
            case ThinkingBlock():
                thoughts += [block.thinking] if block.thinking else []
            case ToolUseBlock():
                calls.append(call_of(block))
            case RedactedThinkingBlock():
                pass
            case AnthropicBlock():
                raise refuse_hosted(block, f"{path}[{at}]")
    return Message("assistant", thinking="\n".join(thoughts) or None, tool_calls=tuple(calls)), parts


def _add_user(turns: _Turns, blocks: list[UserBlock], path: str, fetched: HeldElsewhere, calls: dict[str, str]) -> None:
    """Results of calls come first, as templates want them; what is seen in them, and the rest, follows."""
    rest: list[FromBlock] = []
    for at, block in enumerate(blocks):
        here = f"{path}.content[{at}]"
        match block:
            case ToolResultBlock():
                result, text, seen = _result(block, here, fetched, calls)
                turns.add(result, here, [FromBlock(TextPart(text), f"{here}.content")])
                rest += seen
            case AnthropicBlock():
                raise refuse_hosted(block, here)
            case _:
                rest += readable_parts(block, here, fetched)
    if rest or not any(isinstance(block, ToolResultBlock) for block in blocks):
        turns.add(Message("user"), path, rest)


def _result(
    block: ToolResultBlock, path: str, fetched: HeldElsewhere, calls: dict[str, str]
) -> tuple[Message, str, list[FromBlock]]:
    """A call's result, to be filled with its text; its text; its images."""
    name = calls.get(block.tool_use_id)
    if name is None:
        raise InvalidRequest(
            f"Invalid '{path}.tool_use_id': no earlier message has a tool_use block '{block.tool_use_id[:100]}'.",
            param=f"{path}.tool_use_id",
        )
    parts = list(_result_parts(block, f"{path}.content", fetched))
    seen = [part for part in parts if isinstance(part.part, ImagePart)]
    text = "\n".join(part.part.text for part in parts if isinstance(part.part, TextPart))
    if seen and not text:
        text = "The result is the image that follows." if len(seen) == 1 else "The result is the images that follow."
    if block.is_error:
        text = f"Error: {text}"
    return Message("tool", name=name, tool_call_id=block.tool_use_id), text, seen


def _result_parts(block: ToolResultBlock, path: str, fetched: HeldElsewhere) -> Iterator[FromBlock]:
    if isinstance(block.content, str):
        yield FromBlock(TextPart(block.content), path)
        return
    for at, inner in enumerate(block.content or []):
        if isinstance(inner, AnthropicBlock):
            raise refuse_hosted(inner, f"{path}[{at}]")
        yield from readable_parts(inner, f"{path}[{at}]", fetched)


def goes_on(conversation: Sequence[ConversationTurn]) -> bool:
    """Whether the last message is an answer's beginning. Unsupported when it is one with calls."""
    last = conversation[-1]
    if not isinstance(last, AssistantTurn):
        return False
    if isinstance(last.content, list) and any(isinstance(block, ToolUseBlock) for block in last.content):
        raise Unsupported(
            "A last message of the assistant is gone on with: that cannot be done with one that has tool_use blocks.",
            param=f"messages[{len(conversation) - 1}].content",
        )
    return True
