"""A soak of the cpu engine: 32 clients with random lengths, cancels and disconnects, for as long as is said.

    python bench/soak_cpu.py MODEL.gguf SECONDS

Ends with an error unless: every block of the cache is back at the end, and there is no thread more than at the begin;
each seeded answer that was asked for again was the same as the first time, whatever ran beside it; and, in a run of
five minutes or more, memory grew by less than 64 MB in the second half (the runtime keeps something for each new shape
of a step until it has met them all).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from puna.engine.cpu.client import CpuEngine
from puna.engine.runner import End, LoadOptions, ModelFiles, Prompt, Runner, Sampling, Token
from puna.settings import Settings

CLIENTS = 32
SETTLED = 300.0
PROMPTS = 200
"""Different requests. Each comes again and again, so that it meets every kind of company, cold and cached."""


@dataclass
class Soak:
    runner: Runner
    until: float
    counts: Counter[str] = field(default_factory=Counter)
    answers: dict[int, tuple[int, ...]] = field(default_factory=dict)
    memory: list[tuple[float, int]] = field(default_factory=list)

    def request(self, which: int) -> tuple[Prompt, Sampling]:
        source = random.Random(which)
        shared = [source.randrange(10, 300) for _ in range(64)] if which % 3 else list(range(10, 106))
        prompt = [*shared, *(source.randrange(10, 300) for _ in range(source.randrange(1, 400)))]
        return Prompt(tuple(prompt)), Sampling(max_tokens=source.randrange(1, 120), seed=which)

    async def client(self, number: int) -> None:
        source = random.Random(-number)
        while time.monotonic() < self.until:
            which = source.randrange(PROMPTS)
            leaves = source.choice([None, None, None, 0, 1, source.randrange(1, 60)])
            await self.ask(which, leaves)

    async def ask(self, which: int, leaves: int | None) -> None:
        prompt, sampling = self.request(which)
        tokens: list[int] = []
        steps = self.runner.generate(prompt, sampling)
        async with contextlib.aclosing(steps):  # type: ignore[type-var]
            async for step in steps:
                if isinstance(step, End):
                    self.counts["answers"] += 1
                    self.counts["tokens"] += step.completion_tokens
                    self.counts["cached"] += step.cached_tokens
                    if self.answers.setdefault(which, tuple(tokens)) != tuple(tokens):
                        self.counts["mixed up"] += 1
                    return
                if not isinstance(step, Token):
                    continue
                tokens.append(step.id)
                if leaves is not None and len(tokens) > leaves:
                    self.counts["left"] += 1
                    if tuple(tokens) != self.answers.get(which, tuple(tokens))[: len(tokens)]:
                        self.counts["mixed up"] += 1
                    return

    async def watch(self) -> None:
        process = psutil.Process(self.runner.info.pid)
        while time.monotonic() < self.until:
            self.memory.append((time.monotonic(), process.memory_info().rss))
            await asyncio.sleep(1)


async def touch(runner: Runner) -> None:
    """Write to every block of the cache: its memory is taken when it is first used, and that is no leak."""

    async def fill(number: int) -> None:
        prompt = tuple(random.Random(number).choices(range(10, 300), k=runner.info.num_ctx - 1))
        async for _ in runner.generate(Prompt(prompt), Sampling(max_tokens=1, seed=1)):
            pass

    await asyncio.gather(*(fill(number) for number in range(runner.info.slots)))


async def run(model: Path, seconds: float) -> int:
    with tempfile.TemporaryDirectory() as store:
        engine = CpuEngine(Settings(models=Path(store)))
        files = ModelFiles(model, "0" * 64, "llama", "")
        runner = await engine.start(files, LoadOptions(num_ctx=1024, slots=16))
        await touch(runner)
        process = psutil.Process(runner.info.pid)
        threads, begun = process.num_threads(), time.monotonic()
        soak = Soak(runner, begun + seconds)
        await asyncio.gather(soak.watch(), *(soak.client(number) for number in range(CLIENTS)))
        busy = await runner.busy()
        free, capacity = await runner.room()  # type: ignore[attr-defined]
        more = process.num_threads() - threads
        await runner.close()
    half = [rss for at, rss in soak.memory if at - begun > seconds / 2]
    growth = (max(half[-10:]) - half[0]) / 1e6
    print(dict(soak.counts))
    memory = f"memory grew by {growth:.1f} MB in the second half"
    print(f"busy {busy}, {free} of {capacity} blocks free, {more} threads more than {threads}, {memory}")
    settled = seconds < SETTLED or growth < 64
    good = busy == 0 and free == capacity and more <= 0 and not soak.counts["mixed up"] and settled
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("seconds", type=float)
    said = parser.parse_args()
    return asyncio.run(run(said.model, said.seconds))


if __name__ == "__main__":
    raise SystemExit(main())
