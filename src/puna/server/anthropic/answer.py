"""Events to a message: the events of a stream, strictly one block after the other, and the whole object they make."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import AsyncGenerator
from typing import cast

from pydantic_core import from_json

from puna.errors import EngineError, PunaError
from puna.server.anthropic.convert import Style
from puna.server.body import dump_line, dump_string, dump_text, one_line
from puna.server.contract.report import Report
from puna.server.errors import anthropic_error
from puna.server.streaming import Framing
from puna.strictjson import strict_json
from puna.types import (
    Answer,
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
    Usage,
)

PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def framing(request_id: str) -> Framing:
    """How the stream of this request is framed: its silence is filled with pings, beside a comment on how it stands."""
    return Framing(
        media_type="text/event-stream; charset=utf-8",
        comment=lambda text: f": {text}\n\n".encode("utf-8", "replace") + PING,
        error=lambda error: _error_frame(error, request_id),
    )


def _error_frame(error: PunaError, request_id: str) -> bytes:
    return b"event: error\ndata: " + dump_line(anthropic_error(error, request_id)) + b"\n"


def usage_json(usage: Usage, *, marked: bool) -> JsonObject:
    """`marked`: something in the prompt was to be cached: then all that was computed of it is said to be written."""
    fresh = usage.prompt - usage.cached
    written = fresh if marked else 0
    return {
        "input_tokens": fresh - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
        "service_tier": "standard",
    }


def signature(thought: str) -> str:
    """What stands for a thought's origin: clients give it back with the thought."""
    return base64.b64encode(hashlib.sha256(thought.encode()).digest()).decode()


def stop_reason(finished: Finished, style: Style) -> str:
    match finished.reason:
        case "tool_calls":
            return "tool_use"
        case "length":
            full = len(finished.tokens) < style.limit
            return "model_context_window_exceeded" if full else "max_tokens"
        case "stop":
            return "stop_sequence" if finished.stop in style.stops else "end_turn"


class MessageEvents:
    """Events of an answer to those of a message, as JSON texts that a stream frames."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._index = -1
        self._open: str | None = None
        self._head = ""
        self._thought: list[str] = []
        self._finished: Finished | None = None

    def told(self, event: Event) -> list[tuple[str, str]]:
        """(name, JSON text) of each event of the message that this one makes, in order."""
        match event:
            case TextDelta():
                return self._text(event.text)
            case ThinkingDelta():
                return self._thinking(event.text)
            case ToolCallStart():
                call: JsonObject = {"type": "tool_use", "id": _call_id(event.id), "name": event.name, "input": {}}
                return [*self._close(), self._start("tool_use", call)]
            case ToolCallDelta():
                return [self._delta("input_json_delta", "partial_json", event.arguments)] if event.arguments else []
            case Started():
                return [_event("message_start", {"message": self._message(event)})]
            case Finished():
                self._finished = event
                return self._close()
            case Done():
                return [_event("message_delta", self._ending(event.usage)), _event("message_stop", {})]

    def _message(self, started: Started) -> JsonObject:
        # What of the prompt was cached is not known yet: the last event corrects it.
        usage = usage_json(Usage(prompt=len(started.prompt_tokens)), marked=self._style.marked)
        return {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": self._style.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": usage,
        }

    def _text(self, text: str) -> list[tuple[str, str]]:
        if not text:
            return []
        if self._open == "text":
            return [self._delta("text_delta", "text", text)]
        begun = self._start_after("text", {"type": "text", "text": "", "citations": None})
        return [*begun, self._delta("text_delta", "text", text)]

    def _thinking(self, text: str) -> list[tuple[str, str]]:
        if not text:
            return []
        begun: list[tuple[str, str]] = []
        if self._open != "thinking":
            begun = self._start_after("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        self._thought.append(text)
        return [*begun, *([self._delta("thinking_delta", "thinking", text)] if self._style.thoughts else [])]

    def _start_after(self, kind: str, block: JsonObject) -> list[tuple[str, str]]:
        """The start of a block, after the end of the one before it."""
        return [*self._close(), self._start(kind, block)]

    def _start(self, kind: str, block: JsonObject) -> tuple[str, str]:
        self._index += 1
        self._open = kind
        self._head = f'{{"type":"content_block_delta","index":{self._index},"delta":{{"type":'
        return _event("content_block_start", {"index": self._index, "content_block": block})

    def _delta(self, kind: str, key: str, text: str) -> tuple[str, str]:
        return "content_block_delta", f'{self._head}"{kind}","{key}":{dump_string(text)}}}}}'

    def _close(self) -> list[tuple[str, str]]:
        if self._open is None:
            return []
        ended: list[tuple[str, str]] = []
        if self._open == "thinking":
            ended.append(self._delta("signature_delta", "signature", signature("".join(self._thought))))
            self._thought = []
        self._open = None
        return [*ended, _event("content_block_stop", {"index": self._index})]

    def _ending(self, usage: Usage) -> JsonObject:
        finished = self._finished
        if finished is None:
            raise EngineError("the engine gave no whole answer")
        reason = stop_reason(finished, self._style)
        delta: JsonObject = {
            "stop_reason": reason,
            "stop_sequence": finished.stop if reason == "stop_sequence" else None,
            "stop_details": None,
        }
        if finished.parse_error is not None:
            delta["tool_call_parse_error"] = finished.parse_error
        return {"delta": delta, "usage": usage_json(usage, marked=self._style.marked)}


def _call_id(id_: str) -> str:
    return f"toolu_{id_.removeprefix('call_')}"


def _event(name: str, fields: JsonObject) -> tuple[str, str]:
    return name, dump_text({"type": name, **fields})


async def stream(answer: Answer, style: Style, report: Report) -> AsyncGenerator[bytes, None]:
    """Frames of server-sent events."""
    events = MessageEvents(style)
    async with report.reading(answer) as arriving:
        async for event in arriving:
            comment = report.start(event) if isinstance(event, Started) else b""
            frame = comment + b"".join(
                f"event: {name}\ndata: {one_line(text)}\n\n".encode("utf-8", "replace")
                for name, text in events.told(event)
            )
            if isinstance(event, Started):
                frame += PING
            if frame:
                yield frame


async def gather(answer: Answer, style: Style, report: Report) -> JsonObject:
    """The whole message: what the events of its stream come to."""
    events = MessageEvents(style)
    message = _Message()
    async with report.reading(answer) as arriving:
        async for event in arriving:
            if isinstance(event, Started):
                report.start(event)
            for name, text in events.told(event):
                message.take(name, from_json(text))
    return message.whole()


class _Message:
    """A message that its events make, one after the other."""

    def __init__(self) -> None:
        self._message: JsonObject = {}
        self._blocks: list[JsonObject] = []
        self._texts: list[dict[str, list[str]]] = []
        self._over = False

    def take(self, name: str, event: JsonObject) -> None:
        match name:
            case "message_start":
                self._message = cast("JsonObject", event["message"])
            case "content_block_start":
                self._blocks.append(cast("JsonObject", event["content_block"]))
                self._texts.append({})
            case "content_block_delta":
                for key, text in cast("JsonObject", event["delta"]).items():
                    if key != "type":
                        self._texts[-1].setdefault(key, []).append(cast("str", text))
            case "message_delta":
                self._message |= {**cast("JsonObject", event["delta"]), "usage": event["usage"]}
            case "message_stop":
                self._over = True

    def whole(self) -> JsonObject:
        if not self._over:
            raise EngineError("the engine gave no whole answer")
        content: list[JsonValue] = []
        for block, texts in zip(self._blocks, self._texts, strict=True):
            said = {key: "".join(pieces) for key, pieces in texts.items()}
            arguments = said.pop("partial_json", None)
            content.append({**block, **said, **({} if arguments is None else {"input": _input(arguments)})})
        return {**self._message, "content": content}


def _input(arguments: str) -> JsonValue:
    """The arguments of a call; of one that was cut, as far as they came."""
    try:
        value = strict_json(arguments, partial=True)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
