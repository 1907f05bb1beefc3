"""Events to text completions: one object, or the chunks of a stream."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from math import isnan

from puna.errors import EngineError
from puna.server.body import dump_text
from puna.server.contract.report import Report
from puna.server.openai.bodies import CompletionBody
from puna.server.openai.chat import Envelope, bounded, usage_json
from puna.server.openai.frames import frames
from puna.server.streaming import sse_data
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
    TokenLogprob,
    Usage,
)

_OBJECT = "text_completion"


@dataclass(frozen=True, slots=True)
class CompletionStyle:
    """What of a request decides the form of its answer. `choices`: how many there are over all prompts."""

    model: str
    choices: int
    logprobs: bool
    usage: bool

    @classmethod
    def of(cls, body: CompletionBody, prompts: int) -> CompletionStyle:
        stream = body.stream_options
        return cls(
            model=body.model,
            choices=prompts * (body.n or 1),
            logprobs=body.logprobs is not None,
            usage=stream is not None and bool(stream.include_usage),
        )


def token_text(data: bytes) -> str:
    """A token as text. Bytes that are part of a character are written as OpenAI does."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class Logprobs:
    """The legacy columns of one choice: tokens, log-probabilities, alternatives, and where in the text each begins.

    The first token of an echoed prompt has none, since nothing comes before it: it comes as not a number.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def columns(self, entries: Sequence[TokenLogprob]) -> JsonObject:
        """The columns of these entries; offsets go on from call to call."""
        tokens: list[JsonValue] = []
        logprobs: list[JsonValue] = []
        tops: list[JsonValue] = []
        offsets: list[JsonValue] = []
        for entry in entries:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(entry.chosen.data))
            tokens.append(token_text(entry.chosen.data))
            if isnan(entry.chosen.logprob):
                logprobs.append(None)
                tops.append(None)
                continue
            logprobs.append(bounded(entry.chosen.logprob))
            # The chosen token is among them, likely or not, so that there may be one more than was asked for.
            tops.append({token_text(one.data): bounded(one.logprob) for one in (*entry.top, entry.chosen)})
        return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets}


@dataclass(slots=True)
class _Choice:
    text: list[str] = field(default_factory=list)
    entries: list[TokenLogprob] = field(default_factory=list)
    reason: str = ""

    def json(self, index: int, style: CompletionStyle) -> JsonObject:
        logprobs = Logprobs().columns(self.entries) if style.logprobs else None
        return {"text": "".join(self.text), "index": index, "logprobs": logprobs, "finish_reason": self.reason}


async def gather(answer: Answer, style: CompletionStyle, report: Report) -> JsonObject:
    """The whole answer."""
    choices = [_Choice() for _ in range(style.choices)]
    envelope: Envelope | None = None
    usage: Usage | None = None
    async with report.reading(answer) as events:
        async for event in events:
            match event:
                case Started():
                    report.start(event)
                    envelope = Envelope.of("cmpl-", style.model, event)
                case TextDelta() | ThinkingDelta():
                    choices[event.index].text.append(event.text)
                    choices[event.index].entries += event.logprobs
                case Finished():
                    choices[event.index].reason = event.reason
                case Done():
                    usage = event.usage
    if envelope is None or usage is None:
        raise EngineError("the engine gave no whole answer")
    return {
        **envelope.head(_OBJECT),
        "choices": [choice.json(index, style) for index, choice in enumerate(choices)],
        "usage": usage_json(usage),
    }


def stream(answer: Answer, style: CompletionStyle, report: Report) -> AsyncGenerator[bytes, None]:
    """Frames of server-sent events."""
    return frames(answer, lambda started: CompletionChunks(Envelope.of("cmpl-", style.model, started), style), report)


class CompletionChunks:
    """Events to frames."""

    def __init__(self, envelope: Envelope, style: CompletionStyle) -> None:
        self._style = style
        self._head = dump_text(envelope.head(_OBJECT))[:-1]
        self._tail = ',"usage":null' if style.usage else ""
        self._logprobs = [Logprobs() for _ in range(style.choices if style.logprobs else 0)]

    def frame(self, event: Event) -> bytes:
        """The bytes for one event, perhaps none."""
        match event:
            case TextDelta() | ThinkingDelta():
                columns = dump_text(self._logprobs[event.index].columns(event.logprobs)) if self._logprobs else "null"
                return self._chunk(event.index, dump_text(event.text), columns, "null")
            case Finished():
                return self._chunk(event.index, '""', "null", dump_text(event.reason))
            case Done() if self._style.usage:
                return sse_data(f'{self._head},"choices":[],"usage":{dump_text(usage_json(event.usage))}}}')
            case _:
                return b""

    def _chunk(self, index: int, text: str, logprobs: str, reason: str) -> bytes:
        choice = f'{{"text":{text},"index":{index},"logprobs":{logprobs},"finish_reason":{reason}}}'
        return sse_data(f'{self._head},"choices":[{choice}]{self._tail}}}')
