"""A conversation in disguise, so that only what a template writes itself is markup. Pure.

What a caller gives may hold the text of a control token (`<|im_end|>`): as text it must reach the model, never as the
token. A template joins both. So before it runs, one character of each such text is exchanged for one that occurs
nowhere, as many characters as before; afterwards whatever still reads as a control token is the template's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import cast

from puna.model.markup import Markup
from puna.template.shaping import arguments_json
from puna.types import JsonObject, JsonValue, Message, Part, TextPart, Tool, ToolCall


@dataclass(frozen=True, slots=True)
class Written:
    """A prompt's text: `disguised`, and by each character that stands in it for another that other one.

    Control tokens are those of the disguised text; the characters are those of `text`, at the same places.
    `begun`: how many characters at its end begin the answer.
    """

    disguised: str
    meant: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    begun: int = 0

    @property
    def text(self) -> str:
        return self.shown(self.disguised)

    def shown(self, part: str) -> str:
        """A part of the disguised text as it is meant."""
        for other, character in self.meant.items():
            part = part.replace(other, character)
        return part


@dataclass(frozen=True, slots=True)
class Given:
    """All that a caller may have written into a prompt."""

    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    texts: tuple[str, ...] = ()

    def strings(self) -> Iterator[str]:
        for message in self.messages:
            yield from _of_message(message)
        for tool in self.tools:
            yield from (tool.name, tool.description)
            yield from _of_json(tool.parameters)
        yield from _of_json(dict(self.arguments))
        yield from self.texts


class Disguise:
    """Of one conversation: each character that is exchanged has its own other one, out of `unused`."""

    def __init__(self, markup: Markup, unused: Iterator[str]) -> None:
        self._markup = markup
        self._unused = unused
        self._others: dict[str, str] = {}

    @classmethod
    def needed(cls, markup: Markup, given: Given, source: str) -> Disguise | None:
        """None if nothing given could be read as markup. `source`: the template's."""
        if not any(map(markup.touches, given.strings())):
            return None
        return cls(markup, _unused([source, *given.strings(), *markup.ids]))

    def written(self, text: str, begun: int = 0) -> Written:
        """What came of the disguised conversation."""
        for other in self._others.values():
            text = text.replace(_escaped(other), other)
        return Written(text, {other: character for character, other in self._others.items()}, begun)

    def text(self, text: str) -> str:
        return self._markup.hidden(text, self._other)

    def _other(self, character: str) -> str:
        if character not in self._others:
            self._others[character] = next(self._unused)
        return self._others[character]

    def given(self, given: Given) -> Given:
        return Given(
            tuple(self._message(message) for message in given.messages),
            tuple(self._tool(tool) for tool in given.tools),
            cast("JsonObject", self._json(dict(given.arguments))),
            tuple(map(self.text, given.texts)),
        )

    def _message(self, message: Message) -> Message:
        return replace(
            message,
            content=tuple(self._part(part) for part in message.content),
            name=self._maybe(message.name),
            thinking=self._maybe(message.thinking),
            tool_calls=tuple(self._call(call) for call in message.tool_calls),
            tool_call_id=self._maybe(message.tool_call_id),
        )

    def _part(self, part: Part) -> Part:
        return TextPart(self.text(part.text)) if isinstance(part, TextPart) else part

    def _call(self, call: ToolCall) -> ToolCall:
        arguments = call.arguments if call.kind == "custom" else arguments_json(call)
        hidden = self._json(arguments)
        text = hidden if isinstance(hidden, str) else json.dumps(hidden, ensure_ascii=False)
        return replace(call, id=self.text(call.id), name=self.text(call.name), arguments=text)

    def _tool(self, tool: Tool) -> Tool:
        parameters = cast("JsonObject | None", self._json(tool.parameters))
        return replace(tool, name=self.text(tool.name), description=self.text(tool.description), parameters=parameters)

    def _maybe(self, text: str | None) -> str | None:
        return None if text is None else self.text(text)

    def _json(self, value: JsonValue) -> JsonValue:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._json(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self._json(item) for key, item in value.items()}
        return value


def _of_message(message: Message) -> Iterator[str]:
    for part in message.content:
        if isinstance(part, TextPart):
            yield part.text
    yield from (text for text in (message.name, message.thinking, message.tool_call_id) if text)
    for call in message.tool_calls:
        yield from (call.id, call.name, call.arguments)
        if "\\" in call.arguments and call.kind == "function":
            # What is escaped in the JSON text is not in the value.
            yield from _of_json(arguments_json(call))


def _of_json(value: JsonValue) -> Iterator[str]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            yield from item
            waiting += item.values()


_POOL = (range(0xA490, 0xA4C7), range(0x12000, 0x1239A), range(0xF0000, 0xFFFFE))
"""Yi radicals first: they are printed as they are, are neither letters nor white space, and have no case."""


def _escaped(character: str) -> str:
    """As a template may write it in JSON."""
    return json.dumps(character)[1:-1]


def _unused(texts: Iterable[str]) -> Iterator[str]:
    """Characters that are in none of the texts, not even escaped as JSON would."""
    known = list(texts)
    for code in chain.from_iterable(_POOL):
        character = chr(code)
        if not any(character in text or _escaped(character) in text for text in known):
            yield character
