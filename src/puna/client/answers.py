"""What models answer, as a server sends it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from puna.client.fields import integer_of, object_of, objects_of, text_of
from puna.client.response import Response
from puna.settings import IDENTITY

if TYPE_CHECKING:
    from puna.types import JsonObject, JsonValue


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts in tokens, durations in nanoseconds."""

    total_ns: int
    load_ns: int
    prompt_tokens: int
    prompt_ns: int
    tokens: int
    decode_ns: int

    @classmethod
    def read(cls, item: JsonObject) -> Stats:
        return cls(
            total_ns=integer_of(item, "total_duration") or 0,
            load_ns=integer_of(item, "load_duration") or 0,
            prompt_tokens=integer_of(item, "prompt_eval_count") or 0,
            prompt_ns=integer_of(item, "prompt_eval_duration") or 0,
            tokens=integer_of(item, "eval_count") or 0,
            decode_ns=integer_of(item, "eval_duration") or 0,
        )


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A tool call that the model made. `arguments`: JSON text."""

    name: str
    arguments: str

    @classmethod
    def read(cls, function: JsonObject) -> MadeCall:
        return cls(text_of(function, "name"), json.dumps(function.get("arguments"), ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a streamed answer; the last has `stats`."""

    text: str
    thinking: str
    calls: tuple[MadeCall, ...] = ()
    stats: Stats | None = None

    @classmethod
    def generated(cls, item: JsonObject) -> Chunk:
        """A line of `/api/generate`."""
        return cls._read(item, text_of(item, "response"), item)

    @classmethod
    def chatted(cls, item: JsonObject) -> Chunk:
        """A line of `/api/chat`."""
        message = object_of(item, "message")
        return cls._read(item, text_of(message, "content"), message)

    @classmethod
    def _read(cls, item: JsonObject, text: str, holder: JsonObject) -> Chunk:
        calls = tuple(MadeCall.read(object_of(call, "function")) for call in objects_of(holder, "tool_calls"))
        return cls(text, text_of(holder, "thinking"), calls, Stats.read(item) if item.get("done") else None)


@dataclass(frozen=True, slots=True)
class AnswerStream:
    """A streamed answer. `notices`: what the server reports about the request before it answers."""

    chunks: AsyncIterator[Chunk]
    notices: tuple[str, ...]


def notices(response: Response) -> tuple[str, ...]:
    told = []
    if ignored := response.headers.get("x-puna-ignored"):
        told.append(f"no effect: {ignored}")
    if truncated := response.headers.get("x-puna-truncated"):
        told.append(f"{truncated} earlier message(s) did not fit into the context and were left out")
    return tuple(told)


@dataclass(frozen=True, slots=True)
class LineAnswer:
    """What a route answered, an error too. `retry_after`: seconds, where asking again is worth while.

    `reported`: the headers that say what of the request had no effect.
    """

    status: int
    request_id: str
    reported: JsonObject
    retry_after: float | None
    body: JsonValue

    @classmethod
    def read(cls, response: Response, body: JsonValue) -> LineAnswer:
        headers = response.headers
        wait = headers.get("retry-after", "1")
        again = headers.get("x-should-retry") == "true"
        return cls(
            response.status,
            headers.get("x-request-id", ""),
            {name: text for name, text in headers.items() if name.startswith("x-puna-") and name != IDENTITY},
            (float(wait) if wait.isdigit() else 1.0) if again else None,
            body,
        )


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vector of one text. `truncated`: the text was cut to what fits."""

    vector: tuple[float, ...]
    truncated: bool
