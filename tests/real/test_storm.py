"""Many clients at once, two in five of which go away, while runners are killed and stopped: none is lost or stuck.

`PUNA_TEST_STORM` says how many seconds it goes on; from a minute on there are as many clients as are promised, and two
programs that loop beside them. What was answered, and how soon, is printed (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from fakes.waiting import until

from .conftest import Program, serve

SECONDS = float(os.environ.get("PUNA_TEST_STORM", "12"))
LONG = SECONDS >= 60
CLIENTS, LOOPS = (64, 2) if LONG else (12, 0)
STRIKES = (4.0, 20.0) if LONG else (1.5, 6.0)
"""Seconds from one runner that is killed or stopped to the next."""

CANCELLED = 0.4
STUCK = 600.0
"""Seconds after which a request that has not ended never will: llama.cpp beside programs that loop is slow."""

PROMPTS = ("Count to ten.", "Name three colours.", "Say hello.", "What is water?")
CODES = {"runner_died", "overloaded", "model_load_failed", "model_load_timeout", "engine_error"}
"""What a client may be told while runners are killed."""

LOOP = "print(flush=True)\nwhile True: pass"


@pytest.fixture(scope="module", params=["cpu", "llama"] if LONG else ["cpu"])
def stormy(request: pytest.FixtureRequest, pulled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    directory = tmp_path_factory.mktemp("storm")
    shutil.copytree(pulled, directory / "models")
    # One that is stopped while it loads is given up when it has shown no sign of life for so long.
    limits = {"PUNA_STALL_TIMEOUT": "3s", "PUNA_LOAD_TIMEOUT": "20s", "PUNA_NUM_PARALLEL": "4", "PUNA_SPARE": "0"}
    with serve(directory / "models", directory / "log", PUNA_ENGINE=request.param, **limits) as running:
        yield running


@dataclass
class Storm:
    """`told`: the error codes of the answers that were errors; `took`: seconds of each whole answer."""

    port: int
    random: Random = field(default_factory=lambda: Random(1))
    over: asyncio.Event = field(default_factory=asyncio.Event)
    ends: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    seen: dict[int, psutil.Process] = field(default_factory=dict)
    expected: dict[tuple[str, int], str] = field(default_factory=dict)

    async def client(self) -> None:
        while not self.over.is_set():
            await self.one()

    async def one(self) -> None:
        random = self.random
        path, stream = random.choice(("/v1/chat/completions", "/api/chat")), random.random() < 0.6
        prompt, tokens = random.choice(PROMPTS), random.choice((2, 6, 12))
        leaves = random.uniform(0, 1.5) if random.random() < CANCELLED else None
        began = asyncio.get_running_loop().time()
        status, head, body = await self.ask(path, prompt, tokens, stream=stream, leaves=leaves)
        if status is None:
            self.ends["cancelled"] += 1
            return
        text, error = read_answer(path, body, stream=stream and status == 200)
        if error is not None:
            assert path == "/api/chat" or error in CODES, error
            self.ends["told"] += 1
            self.told[error] += 1
            if status == 503:
                await self.wait(min(float(head["retry-after"]), 5.0))
            return
        assert status == 200, (status, body)
        self.ends["answered"] += 1
        self.took.append(asyncio.get_running_loop().time() - began)
        assert text == self.expected.setdefault((prompt, tokens), text), "every token, each once"

    async def ask(
        self, path: str, prompt: str, tokens: int, *, stream: bool, leaves: float | None = None
    ) -> tuple[int | None, dict[str, str], bytes]:
        """Status, head and body; no status when the client has left after so many seconds."""
        body: dict[str, Any] = {
            "model": "smollm2", "messages": [{"role": "user", "content": prompt}], "stream": stream,
        }  # fmt: skip
        if path == "/api/chat":
            body["options"] = {"num_predict": tokens, "temperature": 0, "seed": 7}
        else:
            body |= {"max_tokens": tokens, "temperature": 0, "seed": 7}
        data = json.dumps(body).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            head = (
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
            )
            writer.write(head.encode() + data)
            try:
                whole = await asyncio.wait_for(reader.read(-1), STUCK if leaves is None else leaves)
            except asyncio.TimeoutError:
                assert leaves is not None, "it is stuck"
                return None, {}, b""
        finally:
            writer.close()
        top, _, rest = whole.partition(b"\r\n\r\n")
        first, *lines = top.decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(first.split()[1]), fields, joined(rest) if "transfer-encoding" in fields else rest

    async def wait(self, seconds: float) -> None:
        """So long, or until the storm is over."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.over.wait(), seconds)

    async def strike(self, program: Program) -> None:
        """Kill or stop a runner now and then."""
        while not self.over.is_set():
            await self.wait(self.random.uniform(*STRIKES))
            runners = program.runners()
            self.seen.update({one.pid: one for one in runners})
            if runners and not self.over.is_set():
                with suppress(psutil.NoSuchProcess):
                    self.random.choice(runners).send_signal(self.random.choice((signal.SIGKILL, signal.SIGSTOP)))
                    self.ends["struck"] += 1

    async def rage(self, program: Program) -> None:
        clients = [asyncio.create_task(self.client()) for _ in range(CLIENTS)]
        striking = asyncio.create_task(self.strike(program))
        await asyncio.wait({*clients, striking}, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        self.over.set()
        await asyncio.gather(*clients, striking)


def joined(chunks: bytes) -> bytes:
    """A body that came in chunks, which have to be whole."""
    body = b""
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        count = int(size, 16)
        body, chunks = body + chunks[:count], chunks[count + 2 :]
        if not count:
            return body
    raise AssertionError("its last chunk is missing")


def read_answer(path: str, body: bytes, *, stream: bool) -> tuple[str, str | None]:
    """The text of an answer that is whole, or the code of an error (the dialect of Ollama has none: its words)."""
    text, ends = "", 0
    lines = body.decode().splitlines() if stream else [body.decode()]
    for line in lines:
        if not line or line.startswith(":"):
            continue
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            ends += 1
            continue
        told = json.loads(data)
        if "error" in told:
            return "", told["error"] if path == "/api/chat" else told["error"]["code"]
        if path == "/api/chat":
            text += told["message"]["content"]
            ends += told["done"]
        elif stream:
            text += "".join(choice["delta"].get("content") or "" for choice in told["choices"])
        else:
            text, ends = told["choices"][0]["message"]["content"], 1
    assert ends == 1, "it ends once"
    return text, None


def at_rest(program: Program) -> bool:
    page = json.loads(_get(program, "/api/ps"))
    return "queue" not in page and not any(one["busy"] for one in page["models"])


def _get(program: Program, path: str) -> bytes:
    import urllib.request

    with urllib.request.urlopen(f"{program.url}{path}", timeout=30) as answer:
        return bytes(answer.read())


def answered(program: Program) -> bool:
    """Whether the model is served: one that was struck often rests for a while."""
    storm = Storm(program.port)
    status, _, _ = asyncio.run(storm.ask("/api/chat", "Say hello.", 2, stream=False))
    return status == 200


@pytest.mark.timeout(300 + 2 * STUCK if LONG else 300)
def test_none_is_lost_or_stuck(stormy: Program) -> None:
    until(lambda: answered(stormy), 90, "the model to be served")
    server = psutil.Process(stormy.process.pid)
    for _ in range(8):
        answered(stormy)
    until(lambda: at_rest(stormy), 30, "a calm")
    files, memory = server.num_fds(), server.memory_info().rss
    storm = Storm(stormy.port)
    with ExitStack() as beside:
        for _ in range(LOOPS):
            loop = beside.enter_context(subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE))
            beside.callback(loop.kill)
        asyncio.run(storm.rage(stormy))
    until(lambda: answered(stormy), 180, "the model to be served again")
    until(lambda: at_rest(stormy), 60, "nothing to be left")
    until(lambda: server.num_fds() <= files + 2, 60, "its descriptors to be closed")
    grown = server.memory_info().rss - memory
    assert storm.ends["answered"] > 0
    assert storm.ends["struck"] > 0
    assert grown < 64 * 2**20, f"{grown} bytes more than before"
    alive = [one.pid for one in storm.seen.values() if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert len(alive) <= 1, "of all that there were, at most the one that is loaded now is left"
    times = sorted(storm.took)
    half, most = statistics.median(times), times[int(len(times) * 0.99)]
    print(
        f"{dict(storm.ends)}, told {dict(storm.told)}; p50 {half:.2f} s, p99 {most:.2f} s ({most / half:.1f} times), "
        f"{grown / 2**20:+.1f} MiB, {server.num_fds() - files:+d} descriptors"
    )
