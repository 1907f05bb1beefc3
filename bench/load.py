"""The load client: many streams of chat completions at once, timed at the wire. Knows only HTTP.

One process, one event loop, the same bytes for every server measured. While an answer comes, only its pieces and their
moments are noted; they are read when it has ended. The client runs on the processors of what it measures: what it takes
there is missing from the figures. The sampler's settings are said in each request, so that no server does less for a
token than another because its defaults differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
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

Messages: TypeAlias = list[dict[str, str]]

NOTHING: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True)
class Stream:
    """One answered request. Seconds since the run began; `tokens` as the server counted them."""

    first: float
    last: float
    began: float
    tokens: int
    prompt_tokens: int
    answer: Answer

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
    """Reads the pieces: when text first and last came, how many events brought some, and the usage.

    `last`: when the choice ended, or until then the last text.
    """

    def __init__(self, pieces: list[tuple[float, bytes]]) -> None:
        self.first = self.last = 0.0
        self.usage: dict[str, int] = {}
        self.said: list[bytes] = []
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
                self.said.append(line)
            if b'"choices":[{' in line:
                self.last = self._now
            if line.startswith(b"data: {") and b'"usage"' in line:
                self.usage = json.loads(line[6:]).get("usage") or self.usage

    @property
    def text(self) -> str:
        return "".join(json.loads(line[6:])["choices"][0]["delta"]["content"] for line in self.said)


async def connect(target: Target, spoke: asyncio.Event | None) -> tuple[asyncio.Transport, Arrivals]:
    loop = asyncio.get_running_loop()
    if target.socket is not None:
        return await loop.create_unix_connection(lambda: Arrivals(spoke), target.socket)
    url = urlsplit(target.url)
    return await loop.create_connection(lambda: Arrivals(spoke), url.hostname or "", url.port or 80)


def request(target: Target, prompt: str | Messages, tokens: int, seed: int, said: Mapping[str, object]) -> bytes:
    """The bytes of a streamed chat completion."""
    body = {
        "model": target.model,
        "messages": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt,
        "max_tokens": tokens,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        **SAMPLING,
        **dict(target.extra),
        **said,
    }
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {urlsplit(target.url).netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data


async def one(
    target: Target,
    prompt: str | Messages,
    tokens: int,
    seed: int,
    origin: float,
    spoke: asyncio.Event | None = None,
    said: Mapping[str, object] = NOTHING,
) -> Stream:
    """Ask once, over a connection of its own, and wait for the stream's end. `said`: fields of the body besides.

    RuntimeError if the server refuses, sends no text, or takes longer than LIMIT.
    """
    data = request(target, prompt, tokens, seed, said)
    began = time.perf_counter()
    transport, arrivals = await connect(target, spoke)
    try:
        transport.write(data)
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
        answer,
    )


async def rate_within(target: Target, prompts: list[str], tokens: int, seconds: float) -> float:
    """Events with text a second, of all prompts together: from the first of any on, until all end or time is up.

    RuntimeError if none speaks within LIMIT.
    """
    spoke, up = asyncio.Event(), asyncio.Event()

    async def within(prompt: str, seed: int) -> tuple[Answer, float]:
        """What came of an answer, and when it ended or was left."""
        transport, arrivals = await connect(target, spoke)
        try:
            transport.write(request(target, prompt, tokens, seed, NOTHING))
            await asyncio.wait([arrivals.over, asyncio.ensure_future(up.wait())], return_when=asyncio.FIRST_COMPLETED)
        finally:
            transport.abort()
        answer = Answer(arrivals.pieces)
        return answer, answer.last if arrivals.over.done() else time.perf_counter()

    running = asyncio.gather(*(within(text, i + 1) for i, text in enumerate(prompts)))
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(spoke.wait(), LIMIT)
        await asyncio.wait([running], timeout=seconds)
    up.set()
    spoken = [(answer, end) for answer, end in await running if answer.said]
    if not spoken:
        raise RuntimeError(f"{target.name}: no text came within {LIMIT} seconds")
    events = sum(len(answer.said) for answer, _ in spoken) - 1
    return events / (max(end for _, end in spoken) - min(answer.first for answer, _ in spoken))


async def many(target: Target, prompts: list[str], tokens: int, said: Mapping[str, object] = NOTHING) -> list[Stream]:
    """All prompts at once. `said`: fields of every body besides."""
    origin = time.perf_counter()
    asks = (one(target, text, tokens, i + 1, origin, said=said) for i, text in enumerate(prompts))
    return list(await asyncio.gather(*asks))


async def later_turn(target: Target, questions: list[str], tokens: int) -> Stream:
    """The last of a conversation's turns; each answer before it has `tokens` tokens and is sent back as it came."""
    messages: Messages = []
    for question in questions[:-1]:
        messages.append({"role": "user", "content": question})
        stream = await one(target, messages, tokens, len(messages), time.perf_counter())
        messages.append({"role": "assistant", "content": stream.answer.text})
    return await one(target, [*messages, {"role": "user", "content": questions[-1]}], FEW, 99, time.perf_counter())


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
