"""An answer's events as those of a response: each with its number, every item begun before its parts and ended after
them, in the one right order. Pure.

The same events make the object that a request without a stream is answered with, so both say the same.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from puna.errors import PunaError
from puna.server.body import dump_text, one_line
from puna.server.openai.chat import logprob_entries
from puna.server.responses.ids import ResponseIds
from puna.server.responses.objects import PREFIXES, Draft, Status
from puna.server.responses.thought import sealed
from puna.types import (
    Done,
    Event,
    Finished,
    JsonObject,
    JsonValue,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallStart,
)

ResponseEvent: TypeAlias = JsonObject
"""One event of a response, with its `type` and `sequence_number`."""

ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
"""Events after which a response has no other."""

_PAD = 32
"""Obfuscated deltas differ in length by multiples of this."""


@dataclass(frozen=True, slots=True)
class Manner:
    """What of a request decides how it is told.

    `summary`: the thought as its summary. `sealed`: with what lets a client keep it. `logprobs`: with each text.
    `namespaces`: of a tool that the model calls so, the namespace and the name that the request has.
    """

    summary: bool = False
    sealed: bool = False
    logprobs: bool = False
    obfuscated: bool = False
    background: bool = False
    namespaces: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def sse(told: ResponseEvent) -> bytes:
    """One server-sent event, named."""
    return f"event: {told['type']}\ndata: {one_line(dump_text(told))}\n\n".encode("utf-8", "replace")


def error_told(error: PunaError, number: int) -> ResponseEvent:
    """A fault that is no response's end: the server's own end, for one."""
    return {
        "type": "error",
        "sequence_number": number,
        "code": error.code or error.type,
        "message": error.message,
        "param": error.param,
    }


@dataclass(slots=True)
class _Item:
    """An item that is being told. `fields`: what it says besides id, type, status and what grows."""

    kind: str
    id: str
    index: int
    fields: JsonObject = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    logprobs: list[JsonValue] = field(default_factory=list)


class Telling:
    """Tells one response. After `end`, `fail` or `cancel` it says nothing more."""

    def __init__(self, draft: Draft, ids: ResponseIds, manner: Manner, *, now: Callable[[], float] = time.time) -> None:
        self._draft = draft
        self._ids = ids
        self._manner = manner
        self._now = now
        self._number = 0
        self._output: list[JsonValue] = []
        self._item: _Item | None = None
        self._calls: dict[int, _Item] = {}
        self._finished: Finished | None = None
        self.response = draft.json("queued" if manner.background else "in_progress")
        """The object as it was last told."""

    @property
    def output(self) -> list[JsonObject]:
        """Its items that are whole."""
        return cast("list[JsonObject]", self._output)

    def begin(self) -> list[ResponseEvent]:
        """What comes before anything is known."""
        told = [self._whole("response.created")]
        if self._manner.background:
            told.append(self._whole("response.queued"))
        return told

    def tell(self, event: Event) -> list[ResponseEvent]:
        """The events for one of the answer's. Its last has none: the response is whole then, and its `end` is due."""
        match event:
            case TextDelta():
                return self._text(event)
            case ThinkingDelta():
                return self._thought(event)
            case ToolCallStart():
                return self._call(event)
            case ToolCallDelta():
                return self._arguments(event)
            case Started():
                self.response = self._draft.json("in_progress")
                return [self._whole("response.in_progress")]
            case Finished():
                self._finished = event
                return self._last(event)
            case Done():
                self._settle(event)
                return []

    def end(self) -> ResponseEvent:
        """The last event of one that is whole."""
        return self._whole(f"response.{self.response['status']}")

    def fail(self, error: PunaError) -> list[ResponseEvent]:
        """It ends by an error: what it had is part of it."""
        told = self._close("incomplete")
        self.response = self._draft.json("failed", self._output, error=error)
        return [*told, self._whole("response.failed")]

    def cancel(self) -> list[ResponseEvent]:
        """It ends because it was asked to. OpenAI has no event of that name: the object's status says it."""
        told = self._close("incomplete")
        self.response = self._draft.json("cancelled", self._output)
        return [*told, self._whole("response.incomplete")]

    # ------------------------------------------------------------------------------------------------------- events

    def number(self) -> int:
        """Of the next event."""
        number, self._number = self._number, self._number + 1
        return number

    def _told(self, type_: str, **more: JsonValue) -> ResponseEvent:
        return {"type": type_, "sequence_number": self.number(), **more}

    def _whole(self, type_: str) -> ResponseEvent:
        return self._told(type_, response=self.response)

    def _delta(self, type_: str, item: _Item, delta: str, **more: JsonValue) -> ResponseEvent:
        told = self._told(type_, item_id=item.id, output_index=item.index, delta=delta, **more)
        if self._manner.obfuscated:
            told["obfuscation"] = secrets.token_urlsafe(_PAD)[: _PAD - len(delta.encode()) % _PAD]
        return told

    def _at(self, type_: str, item: _Item, **more: JsonValue) -> ResponseEvent:
        return self._told(type_, item_id=item.id, output_index=item.index, **more)

    # -------------------------------------------------------------------------------------------------------- items

    def _open(self, kind: str, **fields: JsonValue) -> tuple[_Item, list[ResponseEvent]]:
        """A new item, after the one before it was ended."""
        told = self._close("completed")
        item = self._item = _Item(kind, self._ids.next(PREFIXES[kind]), len(self._output), fields)
        told.append(self._told("response.output_item.added", output_index=item.index, item=self._json(item)))
        return item, told

    def _json(self, item: _Item, status: str = "in_progress") -> JsonObject:
        """The item with what it has so far; of one in progress, nothing that grows."""
        begun = status == "in_progress"
        text = "" if begun else "".join(item.text)
        grown: JsonObject
        match item.kind:
            case "message":
                grown = {"content": [] if begun else [self._part(item, text)]}
            case "reasoning":
                part: list[JsonValue] = [] if begun else [self._part(item, text)]
                grown = {"summary": part} if self._manner.summary else {"summary": [], "content": part}
                if self._manner.sealed:
                    grown["encrypted_content"] = None if begun else sealed(text)
            case "function_call":
                grown = {"arguments": text}
            case _:
                grown = {"input": text}
        return {"id": item.id, "type": item.kind, "status": status, **item.fields, **grown}

    def _part(self, item: _Item, text: str) -> JsonObject:
        if item.kind == "message":
            return {"type": "output_text", "text": text, "annotations": [], "logprobs": item.logprobs if text else []}
        return {"type": "summary_text" if self._manner.summary else "reasoning_text", "text": text}

    def _close(self, status: str) -> list[ResponseEvent]:
        """The current item ends."""
        item, self._item = self._item, None
        if item is None:
            return []
        text = "".join(item.text)
        told: list[ResponseEvent] = []
        match item.kind:
            case "message":
                told = [
                    self._at("response.output_text.done", item, content_index=0, text=text, logprobs=item.logprobs),
                    self._at("response.content_part.done", item, content_index=0, part=self._part(item, text)),
                ]
            case "reasoning" if self._manner.summary:
                told = [
                    self._at("response.reasoning_summary_text.done", item, summary_index=0, text=text),
                    self._at(
                        "response.reasoning_summary_part.done", item, summary_index=0, part=self._part(item, text)
                    ),
                ]
            case "reasoning":
                told = [
                    self._at("response.reasoning_text.done", item, content_index=0, text=text),
                    self._at("response.content_part.done", item, content_index=0, part=self._part(item, text)),
                ]
            case "function_call":
                name = item.fields["name"]
                told = [self._at("response.function_call_arguments.done", item, name=name, arguments=text)]
            case _:
                told = [self._at("response.custom_tool_call_input.done", item, input=text)]
        whole = self._json(item, status)
        self._output.append(whole)
        told.append(self._told("response.output_item.done", output_index=item.index, item=whole))
        return told

    def _message(self) -> tuple[_Item, list[ResponseEvent]]:
        """The message that text goes to."""
        if self._item is not None and self._item.kind == "message":
            return self._item, []
        item, told = self._open("message", role="assistant")
        told.append(self._at("response.content_part.added", item, content_index=0, part=self._part(item, "")))
        return item, told

    def _text(self, event: TextDelta) -> list[ResponseEvent]:
        entries = logprob_entries(event.logprobs) if self._manner.logprobs else []
        if not event.text and not entries:
            return []
        item, told = self._message()
        item.text.append(event.text)
        item.logprobs += entries
        told.append(self._delta("response.output_text.delta", item, event.text, content_index=0, logprobs=entries))
        return told

    def _thought(self, event: ThinkingDelta) -> list[ResponseEvent]:
        if not event.text:
            return []
        item, told = self._item, cast("list[ResponseEvent]", [])
        summary = self._manner.summary
        where: dict[str, JsonValue] = {"summary_index" if summary else "content_index": 0}
        if item is None or item.kind != "reasoning":
            item, told = self._open("reasoning")
            part = "reasoning_summary_part" if summary else "content_part"
            told.append(self._at(f"response.{part}.added", item, **where, part=self._part(item, "")))
        item.text.append(event.text)
        kind = "reasoning_summary_text" if summary else "reasoning_text"
        told.append(self._delta(f"response.{kind}.delta", item, event.text, **where))
        return told

    def _call(self, event: ToolCallStart) -> list[ResponseEvent]:
        kind = "custom_tool_call" if event.kind == "custom" else "function_call"
        space, name = self._manner.namespaces.get(event.name, ("", event.name))
        within: JsonObject = {"namespace": space} if space else {}
        # An id of our own: the same one when the response is made anew.
        item, told = self._open(kind, call_id=self._ids.next("call"), name=name, **within)
        self._calls[event.call] = item
        return told

    def _arguments(self, event: ToolCallDelta) -> list[ResponseEvent]:
        item = self._calls[event.call]
        item.text.append(event.arguments)
        kind = "custom_tool_call_input" if item.kind == "custom_tool_call" else "function_call_arguments"
        return [self._delta(f"response.{kind}.delta", item, event.arguments)]

    def _last(self, event: Finished) -> list[ResponseEvent]:
        """The choice has ended: an answer that says nothing is a message of nothing."""
        told: list[ResponseEvent] = []
        if not self._output and self._item is None and event.reason != "length":
            told = self._message()[1]
        if event.parse_error is not None:
            # Of a call that was cut, or of one that could not be read and is text.
            if self._item is None:
                told += self._message()[1]
            assert self._item is not None
            self._item.fields["tool_call_parse_error"] = event.parse_error
        return told + self._close("incomplete" if event.reason == "length" else "completed")

    def _settle(self, event: Done) -> None:
        status: Status = "completed"
        if self._finished is not None and self._finished.reason == "length":
            status = "incomplete"
        completed = int(self._now()) if status == "completed" else None
        self.response = self._draft.json(status, self._output, usage=event.usage, completed=completed)
