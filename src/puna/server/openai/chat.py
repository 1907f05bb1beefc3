"""Events to chat completions: one object, or the chunks of a stream. OpenAI's shapes, every required key included."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from puna.errors import EngineError
from puna.server.body import dump_string, dump_text, one_line
from puna.server.contract.report import Report
from puna.server.openai.bodies import ChatCompletionBody
from puna.server.openai.frames import frames
from puna.server.openai.messages import UserMessage
from puna.server.openai.parts import AudioContentPart
from puna.server.openai.tools import NamedCustom, NamedFunction
from puna.server.streaming import sse_data
from puna.types import (
    Answer,
    Candidate,
    Done,
    Event,
    Finished,
    JsonObject,
    JsonValue,
    Started,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)

UNLIKELY = -9999.0
"""What OpenAI gives for a probability of nothing."""

_PAD = 32
"""Obfuscated chunks differ in length by multiples of this."""


def new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(15)[1:]


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every chunk of an answer says. `tier`: whether the request named a service tier."""

    id: str
    created: int
    model: str
    fingerprint: str
    tier: bool

    @classmethod
    def of(cls, prefix: str, model: str, started: Started, *, tier: bool = False) -> Envelope:
        return cls(new_id(prefix), int(time.time()), model, started.fingerprint, tier)

    def head(self, object_: str) -> JsonObject:
        head: JsonObject = {"id": self.id, "object": object_, "created": self.created, "model": self.model}
        head["system_fingerprint"] = self.fingerprint
        if self.tier:
            head["service_tier"] = "default"
        return head


@dataclass(frozen=True, slots=True)
class ChatStyle:
    """What of a request decides the form of its answer.

    `called`: the finish reason of an answer that calls. A named tool leaves the model no choice: OpenAI then says
    `stop`. `heard`: the request holds a sound.
    """

    model: str
    legacy: bool
    called: Literal["tool_calls", "function_call", "stop"]
    logprobs: bool
    tier: bool
    usage: bool
    obfuscated: bool
    heard: bool

    @classmethod
    def of(cls, body: ChatCompletionBody) -> ChatStyle:
        legacy = body.functions is not None
        named = isinstance(body.tool_choice, NamedFunction | NamedCustom)
        stream = body.stream_options
        return cls(
            model=body.model,
            legacy=legacy,
            called="function_call" if legacy else "stop" if named else "tool_calls",
            logprobs=bool(body.logprobs),
            tier=body.service_tier is not None,
            usage=stream is not None and bool(stream.include_usage),
            obfuscated=stream is not None and bool(stream.include_obfuscation),
            heard=any(
                isinstance(part, AudioContentPart)
                for message in body.messages
                if isinstance(message, UserMessage) and isinstance(message.content, list)
                for part in message.content
            ),
        )

    def reason(self, finished: Finished) -> str:
        return self.called if finished.reason == "tool_calls" else finished.reason


# ------------------------------------------------------------------------------------------------------ shared parts


def usage_json(usage: Usage, *, heard: bool = False) -> JsonObject:
    """`heard`: sounds are among the prompt's tokens; how many of them are, no engine tells, so nothing is said."""
    details: JsonObject = {"cached_tokens": usage.cached}
    if not heard:
        details["audio_tokens"] = 0
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": usage.predicted,
            "rejected_prediction_tokens": usage.unpredicted,
        },
    }


def token_text(data: bytes) -> str:
    """A token's bytes as text; bytes that are part of a character are written `\\xf0`."""
    return data.decode("utf-8", "backslashreplace")


def bounded(logprob: float) -> float:
    return max(logprob, UNLIKELY)


def _candidate(candidate: Candidate) -> JsonObject:
    return {
        "token": token_text(candidate.data),
        "logprob": bounded(candidate.logprob),
        "bytes": list(candidate.data),
    }


def logprob_entries(entries: Sequence[TokenLogprob]) -> list[JsonValue]:
    return [{**_candidate(entry.chosen), "top_logprobs": [_candidate(one) for one in entry.top]} for entry in entries]


# ------------------------------------------------------------------------------------------------------- one object


@dataclass(slots=True)
class _Call:
    start: ToolCallStart
    arguments: list[str] = field(default_factory=list)

    def json(self) -> JsonObject:
        text, name = "".join(self.arguments), self.start.name
        if self.start.kind == "custom":
            return {"id": self.start.id, "type": "custom", "custom": {"name": name, "input": text}}
        return {"id": self.start.id, "type": "function", "function": {"name": name, "arguments": text}}


@dataclass(slots=True)
class _Choice:
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    logprobs: list[JsonValue] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)
    finished: Finished | None = None

    def json(self, index: int, style: ChatStyle) -> JsonObject:
        assert self.finished is not None
        text = "".join(self.text)
        message: JsonObject = {
            "role": "assistant",
            "content": text if text or not self.calls else None,
            "refusal": None,
            "annotations": [],
        }
        if self.thinking:
            message["reasoning_content"] = message["reasoning"] = "".join(self.thinking)
        if self.calls and style.legacy:
            call = self.calls[0]
            message["function_call"] = {"name": call.start.name, "arguments": "".join(call.arguments)}
        elif self.calls:
            message["tool_calls"] = [call.json() for call in self.calls]
        choice: JsonObject = {
            "index": index,
            "message": message,
            "logprobs": {"content": self.logprobs, "refusal": None} if style.logprobs else None,
            "finish_reason": style.reason(self.finished),
        }
        if self.finished.parse_error is not None:
            choice["tool_call_parse_error"] = self.finished.parse_error
        return choice


class Gathered:
    """The events of one answer, put together."""

    def __init__(self, style: ChatStyle, count: int) -> None:
        self._style = style
        self._choices = [_Choice() for _ in range(count)]
        self._envelope: Envelope | None = None
        self._usage: Usage | None = None

    @property
    def envelope(self) -> Envelope:
        """What every part of the answer says. Known once it has started."""
        if self._envelope is None:
            raise EngineError("the engine gave no whole answer")
        return self._envelope

    def take(self, event: Event) -> None:
        match event:
            case Started():
                self._envelope = Envelope.of("chatcmpl-", self._style.model, event, tier=self._style.tier)
            case Done():
                self._usage = event.usage
            case _:
                _collect(self._choices[event.index], event)

    def json(self) -> JsonObject:
        """The whole answer, which has ended."""
        if self._usage is None:
            raise EngineError("the engine gave no whole answer")
        return {
            **self.envelope.head("chat.completion"),
            "choices": [choice.json(index, self._style) for index, choice in enumerate(self._choices)],
            "usage": usage_json(self._usage, heard=self._style.heard),
        }


async def gather(answer: Answer, gathered: Gathered, report: Report) -> JsonObject:
    """The whole answer."""
    async with report.reading(answer) as events:
        async for event in events:
            if isinstance(event, Started):
                report.start(event)
            gathered.take(event)
    return gathered.json()


def _collect(choice: _Choice, event: TextDelta | ThinkingDelta | ToolCallStart | ToolCallDelta | Finished) -> None:
    match event:
        case TextDelta():
            choice.text.append(event.text)
            choice.logprobs += logprob_entries(event.logprobs)
        case ThinkingDelta():
            if event.text:
                choice.thinking.append(event.text)
            choice.logprobs += logprob_entries(event.logprobs)
        case ToolCallStart():
            choice.calls.append(_Call(event))
        case ToolCallDelta():
            choice.calls[event.call].arguments.append(event.arguments)
        case Finished():
            choice.finished = event


# --------------------------------------------------------------------------------------------------------- a stream


def stream(
    answer: Answer, style: ChatStyle, count: int, report: Report, gathered: Gathered | None = None
) -> AsyncGenerator[bytes, None]:
    """Frames of server-sent events. `gathered`: what else takes these events, before they come here."""

    def begin(started: Started) -> ChatChunks:
        if gathered is not None:
            return ChatChunks(gathered.envelope, style, count)
        return ChatChunks(Envelope.of("chatcmpl-", style.model, started, tier=style.tier), style, count)

    return frames(answer, begin, report)


class ChatChunks:
    """Events to frames. What does not change from token to token is written once, at the start."""

    def __init__(self, envelope: Envelope, style: ChatStyle, count: int) -> None:
        self._style = style
        head = dump_text(envelope.head("chat.completion.chunk"))[:-1]
        self._head = head
        self._tail = ',"usage":null' if style.usage else ""
        self._introduced = 0
        self._kinds: dict[tuple[int, int], Literal["function", "custom"]] = {}
        self._text = [f'data: {head},"choices":[{{"index":{index},"delta":{{"content":' for index in range(count)]
        self._plain = not style.obfuscated and not style.logprobs
        self._text_end = f'}},"logprobs":null,"finish_reason":null}}]{self._tail}}}\n\n'

    def frame(self, event: Event) -> bytes:
        """The bytes for one event, perhaps none."""
        if isinstance(event, TextDelta):
            introduction = self._introduce(event.index, "") if event.index >= self._introduced else b""
            if self._plain:
                text = one_line(dump_string(event.text))
                return introduction + f"{self._text[event.index]}{text}{self._text_end}".encode()
            delta = dump_text({"content": event.text})
            return introduction + self._chunk(event.index, delta, logprobs=self._logprobs(event.logprobs))
        match event:
            case ThinkingDelta():
                return self._introduce(event.index, "") + self._thinking(event)
            case ToolCallStart():
                return self._introduce(event.index, None) + self._chunk(event.index, dump_text(self._call_start(event)))
            case ToolCallDelta():
                return self._chunk(event.index, dump_text(self._call_arguments(event)))
            case Finished():
                return self._introduce(event.index, "") + self._finish(event)
            case Done():
                return self._usage(event.usage) if self._style.usage else b""
            case Started():
                return b""

    def _introduce(self, index: int, content: str | None) -> bytes:
        """The role chunk of choice `index`, after those of lower ones: clients number choices as they appear."""
        logprobs = '{"content":[],"refusal":null}' if self._style.logprobs else "null"
        frames = b""
        while self._introduced <= index:
            shown = content if self._introduced == index else ""
            role: JsonObject = {"role": "assistant", "content": shown, "refusal": None}
            frames += self._chunk(self._introduced, dump_text(role), logprobs=logprobs)
            self._introduced += 1
        return frames

    def _chunk(self, index: int, delta: str, *, logprobs: str = "null", reason: str = "null", extra: str = "") -> bytes:
        choice = f'{{"index":{index},"delta":{delta},"logprobs":{logprobs},"finish_reason":{reason}{extra}}}'
        padding = f',"obfuscation":"{_padding(len(delta))}"' if self._style.obfuscated else ""
        return sse_data(f'{self._head},"choices":[{choice}]{self._tail}{padding}}}')

    def _logprobs(self, entries: Sequence[TokenLogprob]) -> str:
        return dump_text({"content": logprob_entries(entries), "refusal": None}) if self._style.logprobs else "null"

    def _thinking(self, event: ThinkingDelta) -> bytes:
        # Clients read one name or the other.
        delta: JsonObject = {"reasoning_content": event.text, "reasoning": event.text} if event.text else {}
        return self._chunk(event.index, dump_text(delta), logprobs=self._logprobs(event.logprobs))

    def _call_start(self, event: ToolCallStart) -> JsonObject:
        self._kinds[event.index, event.call] = event.kind
        if self._style.legacy:
            return {"function_call": {"name": event.name, "arguments": ""}}
        call: JsonObject = {"index": event.call, "id": event.id, "type": event.kind}
        if event.kind == "custom":
            call["custom"] = {"name": event.name, "input": ""}
        else:
            call["function"] = {"name": event.name, "arguments": ""}
        return {"tool_calls": [call]}

    def _call_arguments(self, event: ToolCallDelta) -> JsonObject:
        if self._style.legacy:
            return {"function_call": {"arguments": event.arguments}}
        if self._kinds[event.index, event.call] == "custom":
            return {"tool_calls": [{"index": event.call, "custom": {"input": event.arguments}}]}
        return {"tool_calls": [{"index": event.call, "function": {"arguments": event.arguments}}]}

    def _finish(self, event: Finished) -> bytes:
        error = event.parse_error
        extra = "" if error is None else f',"tool_call_parse_error":{dump_text(error)}'
        return self._chunk(event.index, "{}", reason=dump_text(self._style.reason(event)), extra=extra)

    def _usage(self, usage: Usage) -> bytes:
        return sse_data(f'{self._head},"choices":[],"usage":{dump_text(usage_json(usage, heard=self._style.heard))}}}')


def _padding(length: int) -> str:
    """Random text that rounds a delta's length up, so that an onlooker cannot tell tokens by their size."""
    return secrets.token_urlsafe(_PAD)[: _PAD - length % _PAD]
