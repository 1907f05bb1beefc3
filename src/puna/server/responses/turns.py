"""Items to messages. Pure: references are resolved, and images fetched, before.

A model's turn is one message: its thought, its text, its calls, in this order. Here they are items of their own, so
each item joins the message before it where the order allows, and begins another where it does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from puna.errors import InvalidRequest, Unsupported
from puna.server.media import check_together
from puna.server.responses.items import (
    CompactionItem,
    CustomCallItem,
    CustomOutputItem,
    FunctionCallItem,
    FunctionOutputItem,
    InputItem,
    MessageItem,
    ReasoningItem,
)
from puna.server.responses.pieces import (
    Brought,
    ItemContent,
    Named,
    ToolOutput,
    is_slow,
    named_files,
    remote_urls,
    to_parts,
)
from puna.server.responses.thought import opened
from puna.server.responses.tools import spaced
from puna.template.shaping import unreadable
from puna.types import Message, Part, TextPart, ToolCall


@dataclass(frozen=True, slots=True)
class Placed:
    """An item, and where the request has it: `input[3]`, or `previous_response_id` for all that this brings."""

    item: InputItem
    path: str


@dataclass(frozen=True, slots=True)
class Turns:
    """Messages, what the request calls each of them, and the paths of what had no effect."""

    messages: tuple[Message, ...]
    names: dict[str, str]
    ignored: tuple[str, ...]


def _media_in(items: Sequence[Placed]) -> Iterator[tuple[ItemContent | ToolOutput, str]]:
    """Contents that may hold images and files, and where they are."""
    for placed in items:
        match placed.item:
            case MessageItem(role="user", content=content):
                yield content, f"{placed.path}.content"
            case FunctionOutputItem(output=output) | CustomOutputItem(output=output):
                yield output, f"{placed.path}.output"


def remote_images_of(items: Sequence[Placed]) -> list[tuple[str, str]]:
    """Paths and URLs of images that must be fetched."""
    return [found for content, path in _media_in(items) for found in remote_urls(content, path)]


def files_of(items: Sequence[Placed]) -> list[Named]:
    """Files that are to be read from what is kept, or fetched."""
    return [found for content, path in _media_in(items) for found in named_files(content, path)]


def take_time(items: Sequence[Placed]) -> bool:
    """Whether some part takes time to read."""
    return any(is_slow(content) for content, _ in _media_in(items))


def to_turns(instructions: str | None, items: Sequence[Placed], brought: Brought) -> Turns:
    making = _Making(brought)
    if instructions is not None:
        making.add(Message.of("system", instructions), "instructions")
    for placed in items:
        making.take(placed)
    making.close()
    check_together(making.messages, "input")
    return Turns(tuple(making.messages), making.names, tuple(making.ignored))


@dataclass(slots=True)
class _Turn:
    """A model's turn as it is put together."""

    path: str
    thinking: str | None = None
    content: tuple[Part, ...] = ()
    calls: list[ToolCall] = field(default_factory=list)


@dataclass(slots=True)
class _Making:
    brought: Brought
    messages: list[Message] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    calls: dict[str, str] = field(default_factory=dict)
    turn: _Turn | None = None

    def add(self, message: Message, path: str) -> None:
        self.names[f"messages[{len(self.messages)}]"] = path
        self.messages.append(message)

    def close(self) -> None:
        """The model's turn is whole."""
        turn, self.turn = self.turn, None
        if turn is not None:
            message = Message("assistant", turn.content, thinking=turn.thinking, tool_calls=tuple(turn.calls))
            self.add(message, turn.path)

    def take(self, placed: Placed) -> None:
        path = placed.path
        match placed.item:
            case MessageItem(role="assistant") as item:
                turn = self._open(path, after_content=False)
                parts = to_parts(item.content, f"{path}.content", self.brought, media_at="only a user sends these")
                turn.content = parts or (TextPart(""),)
            case MessageItem() as item:
                self.close()
                user = item.role == "user"
                why = "" if user else "only a user sends these"
                parts = to_parts(item.content, f"{path}.content", self.brought, media_at=why)
                self.add(Message("user" if user else "system", parts), path)
            case ReasoningItem() as item:
                thought = self._thought(item, path)
                if thought:
                    self._open(path, after_content=False, after_thought=False).thinking = thought
            case FunctionCallItem() as item:
                # Clients send an empty text for no arguments.
                name = spaced(item.namespace, item.name)
                call = ToolCall(item.call_id, name, item.arguments if item.arguments.strip() else "{}")
                if unreadable(call):
                    self.ignored.append(f"{path}.arguments")
                self._call(call, path)
            case CustomCallItem() as item:
                self._call(ToolCall(item.call_id, spaced(item.namespace, item.name), item.input, "custom"), path)
            case FunctionOutputItem() | CustomOutputItem() as item:
                self.close()
                self.add(self._result(item, path), path)
            case CompactionItem() as item:
                self.close()
                summary = opened(item.encrypted_content)
                if summary is None:
                    param = f"{path}.encrypted_content"
                    raise Unsupported(f"Invalid '{param}': this server did not make it.", param=param)
                self.add(Message.of("system", summary), path)
            case other:
                raise AssertionError(other)

    def _open(self, path: str, *, after_content: bool = True, after_thought: bool = True) -> _Turn:
        """The turn that goes on, or a new one: what may stand `after_…` what."""
        turn = self.turn
        if turn is not None and (
            (not after_content and (turn.content or turn.calls)) or (not after_thought and turn.thinking is not None)
        ):
            self.close()
        if self.turn is None:
            self.turn = _Turn(path)
        return self.turn

    def _call(self, call: ToolCall, path: str) -> None:
        self._open(path).calls.append(call)
        self.calls[call.id] = call.name

    def _thought(self, item: ReasoningItem, path: str) -> str | None:
        if item.content:
            return "\n".join(part.text for part in item.content)
        if item.encrypted_content is not None:
            thought = opened(item.encrypted_content)
            if thought is not None:
                return thought
            self.ignored.append(f"{path}.encrypted_content")
        return "\n\n".join(part.text for part in item.summary or [])

    def _result(self, item: FunctionOutputItem | CustomOutputItem, path: str) -> Message:
        name = self.calls.get(item.call_id)
        if name is None:
            raise InvalidRequest(
                f"No tool call found for function call output with call_id {item.call_id[:100]}.",
                param=f"{path}.call_id",
            )
        parts = to_parts(item.output, f"{path}.output", self.brought)
        return Message("tool", parts, name=name, tool_call_id=item.call_id)
