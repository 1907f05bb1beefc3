"""The load client: many streams of chat completions at once, timed at the wire. Knows only HTTP.

One process, one event loop, raw aiohttp: the same client and the same bytes for every server measured. The sampler's
settings are said in each request, so that no server does less for a token than another because its defaults differ.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import dataclass

import aiohttp

SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.0, "repeat_penalty": 1.0}

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


def session(target: Target) -> aiohttp.ClientSession:
    connector: aiohttp.BaseConnector
    if target.socket is not None:
        connector = aiohttp.UnixConnector(target.socket, limit=0, force_close=True)
    else:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600))


async def one(
    http: aiohttp.ClientSession,
    target: Target,
    prompt: str,
    tokens: int,
    seed: int,
    origin: float,
    spoke: asyncio.Event | None = None,
) -> Stream:
    """Ask once and read the stream to its end; `spoke` is set by its first token.

    RuntimeError if the server refuses or sends no token.
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
    began = time.perf_counter() - origin
    first = last = 0.0
    usage: dict[str, int] = {}
    async with http.post(f"{target.url}/v1/chat/completions", json=body) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{target.name}: {answer.status} {await answer.text()}")
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            now = time.perf_counter() - origin
            # The role chunk and the final ones carry no text: only text counts as a token's arrival.
            if b'"content":"' in line.replace(b": ", b":") and b'"content":""' not in line.replace(b": ", b":"):
                first = first or now
                last = now
                if spoke is not None:
                    spoke.set()
            if b'"usage"' in line:
                usage = json.loads(line[6:]).get("usage") or usage
    if not first:
        raise RuntimeError(f"{target.name}: no text came")
    return Stream(first, last, began, usage.get("completion_tokens", 0), usage.get("prompt_tokens", 0))


async def many(target: Target, prompts: list[str], tokens: int) -> list[Stream]:
    """All prompts at once."""
    async with session(target) as http:
        origin = time.perf_counter()
        return list(
            await asyncio.gather(*(one(http, target, text, tokens, i + 1, origin) for i, text in enumerate(prompts)))
        )


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
    async with session(target) as http:
        origin = time.perf_counter()
        spoke = [asyncio.Event() for _ in others]
        running = [
            asyncio.ensure_future(one(http, target, text, tokens, i + 1, origin, spoke[i]))
            for i, text in enumerate(others)
        ]
        all_spoke = asyncio.gather(*(event.wait() for event in spoke))
        await asyncio.wait({all_spoke, *running}, return_when=asyncio.FIRST_COMPLETED)
        firsts = [(await one(http, target, text, 2, 98, origin)).time_to_first for text in late]
        if any(task.done() for task in running):
            raise RuntimeError(f"{target.name}: the others ended before the late ones were answered")
        await asyncio.gather(*running)
    return statistics.median(firsts)
