"""The load client: many streams of chat completions at once, timed at the wire. Knows only HTTP.

One process, one event loop, the same bytes for every server measured. While an answer comes, only its pieces and their
moments are noted; they are read when it has ended. The client runs on the processors of what it measures: what it takes
there is missing from the figures. The sampler's settings are said in each request, so that no server does less for a
token than another because its defaults differ.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools

SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.0, "repeat_penalty": 1.0}

TEXT = re.compile(rb'"content": ?"(?!")')

LIMIT = 600
"""Seconds that an answer may take."""

FEW = 6
"""Tokens of an answer of which only the first counts: a token or two may be control tokens, or half of a character."""

LATE = 5
"""Requests that arrive while others are being answered, one after the other."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One answered request. Seconds since the run began; `tokens` as the server counted them."""

    first: float
    last: float
    began: float
    tokens: int
    prompt_tokens: int

    @property
    def time_to_first(self) -> float:
        return self.first - self.began

    @property
    def rate(self) -> float:
        """Tokens a second after the first one."""
        return (self.tokens - 1) / (self.last - self.first) if self.last > self.first else 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """A running server: a base URL, or a Unix socket. `extra` goes into every request's body."""

    name: str
    model: str
    url: str = "http://engine"
    socket: str | None = None
    pids: tuple[int, ...] = ()
    extra: tuple[tuple[str, object], ...] = ()


class Arrivals(asyncio.Protocol):
    """The pieces of one answer as they come off the wire, with their moments. `spoke` is set by the first text."""

    def __init__(self, spoke: asyncio.Event | None) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._spoke = spoke

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))
        if self._spoke is not None and TEXT.search(data):
            self._spoke.set()
            self._spoke = None

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Answer:
    """Reads the pieces: when text first came, when the choice ended, and the usage."""

    def __init__(self, pieces: list[tuple[float, bytes]]) -> None:
        self.first = self.last = 0.0
        self.usage: dict[str, int] = {}
        self._now = 0.0
        self._rest = b""
        parser = httptools.HttpResponseParser(self)
        for self._now, piece in pieces:
            parser.feed_data(piece)
        self.status = parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            # The role chunk carries no text: only text counts as the first token's arrival. The last may bring none,
            # but the chunk that ends the choice comes with it.
            if TEXT.search(line):
                self.first = self.first or self._now
            if b'"choices":[{' in line:
                self.last = self._now
            if line.startswith(b"data: {") and b'"usage"' in line:
                self.usage = json.loads(line[6:]).get("usage") or self.usage


async def connect(target: Target, spoke: asyncio.Event | None) -> tuple[asyncio.Transport, Arrivals]:
    loop = asyncio.get_running_loop()
    if target.socket is not None:
        return await loop.create_unix_connection(lambda: Arrivals(spoke), target.socket)
    url = urlsplit(target.url)
    return await loop.create_connection(lambda: Arrivals(spoke), url.hostname or "", url.port or 80)


async def one(
    target: Target, prompt: str, tokens: int, seed: int, origin: float, spoke: asyncio.Event | None = None
) -> Stream:
    """Ask once, over a connection of its own, and wait for the stream's end.

    RuntimeError if the server refuses, sends no text, or takes longer than LIMIT.
    """
    body = {
        "model": target.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        **SAMPLING,
        **dict(target.extra),
    }
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {urlsplit(target.url).netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    began = time.perf_counter()
    transport, arrivals = await connect(target, spoke)
    try:
        transport.write(head.encode() + data)
        await asyncio.wait_for(arrivals.over, LIMIT)
    except asyncio.TimeoutError:
        raise RuntimeError(f"{target.name}: no end after {LIMIT} seconds") from None
    finally:
        transport.abort()
    answer = Answer(arrivals.pieces)
    if answer.status != 200:
        raise RuntimeError(f"{target.name}: {answer.status} {arrivals.pieces!r}")
    if not answer.first:
        raise RuntimeError(f"{target.name}: no text came")
    if not answer.usage:
        raise RuntimeError(f"{target.name}: the stream ended before its usage")
    usage = answer.usage
    return Stream(
        answer.first - origin,
        answer.last - origin,
        began - origin,
        usage.get("completion_tokens", 0),
        usage.get("prompt_tokens", 0),
    )


async def many(target: Target, prompts: list[str], tokens: int) -> list[Stream]:
    """All prompts at once."""
    origin = time.perf_counter()
    return list(await asyncio.gather(*(one(target, text, tokens, i + 1, origin) for i, text in enumerate(prompts))))


def total_rate(streams: list[Stream]) -> float:
    """Tokens a second of all streams together, from the first token of any to the last of all."""
    if len(streams) == 1:
        return streams[0].rate
    span = max(s.last for s in streams) - min(s.first for s in streams)
    return sum(s.tokens for s in streams) / span


async def first_among(target: Target, others: list[str], late: list[str], tokens: int) -> float:
    """Median seconds to the first token of requests that arrive, one by one, while `others` are being answered.

    They begin when all others have spoken: before that, what is measured is where in the queue of prompts they stand.
    Between two there is no pause in step with the server's, since each waits for its own last token. RuntimeError if
    the others do not last: `tokens` of each are too few.
    """
    origin = time.perf_counter()
    spoke = [asyncio.Event() for _ in others]
    running = [
        asyncio.ensure_future(one(target, text, tokens, i + 1, origin, spoke[i])) for i, text in enumerate(others)
    ]
    waited: list[asyncio.Future[Any]] = [asyncio.gather(*(event.wait() for event in spoke)), *running]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    firsts = [(await one(target, text, FEW, 98, origin)).time_to_first for text in late]
    if any(task.done() for task in running):
        raise RuntimeError(f"{target.name}: the others ended before the late ones were answered")
    await asyncio.gather(*running)
    return statistics.median(firsts)
