"""Measure conversations that outlive their runner: the first token of the next turn, cold, warm and after a restart.

    python bench/survive.py MODEL.gguf [--engine cpu|llama] [--talks 8] [--turns 10]

Talks are interleaved: each has its turns one by one, with all others between. Told are the tokens that later turns
computed beyond their new ones (the promise is 32 at most), and milliseconds to the first token. After that the runner
is closed and another started, and each talk goes on for a turn. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from puna.engine.cpu.client import CpuEngine
from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import End, LoadOptions, ModelFiles, Prompt, Runner, Sampling, Token
from puna.settings import Settings

ENGINES = {"cpu": CpuEngine, "llama": LlamaEngine}

OPENING, NEW, ANSWER = 200, 40, 24
"""Tokens of the shortest talk's first message, of each later one, and of each answer."""


@dataclass
class Talk:
    """`known`: tokens that were computed for it before."""

    tokens: list[int]
    known: int = 0
    beyond: list[int] = field(default_factory=list)
    first: list[float] = field(default_factory=list)


def words(source: random.Random, count: int) -> list[int]:
    return [source.randrange(300, 30_000) for _ in range(count)]


async def turn(runner: Runner, talk: Talk, source: random.Random) -> None:
    said: list[int] = []
    before = time.perf_counter()
    first = 0.0
    sampling = Sampling(max_tokens=ANSWER, seed=1, ignore_eos=True)
    async for step in runner.generate(Prompt(tuple(talk.tokens)), sampling):
        if isinstance(step, Token):
            first = first or time.perf_counter() - before
            said.append(step.id)
        elif isinstance(step, End):
            talk.beyond.append(talk.known - step.cached_tokens)
    talk.first.append(1000 * first)
    talk.known = len(talk.tokens) + len(said)
    talk.tokens += [*said, *words(source, NEW)]


def told(name: str, talks: Sequence[Talk], turns: slice) -> None:
    first = [value for talk in talks for value in talk.first[turns]]
    beyond = [value for talk in talks for value in talk.beyond[turns]]
    print(f"{name:24} first token {statistics.median(first):7.1f} ms (at most {max(first):7.1f}), "
          f"computed again at most {max(beyond):5d} tokens")  # fmt: skip


def on_disk(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


async def measure(files: ModelFiles, root: Path, engine: str, count: int, turns: int) -> None:
    source = random.Random(1)
    talks = [Talk([1, *words(source, OPENING + 5 * number)]) for number in range(count)]
    longest = OPENING + 5 * count + (turns + 2) * (NEW + ANSWER)
    settings = Settings(models=root / "models", cache_dir=root / "cache")
    starter = ENGINES[engine].of(settings)
    load = LoadOptions(num_ctx=-(-longest // 256) * 256, slots=starter.profile.slots)

    async def start() -> Runner:
        before = time.perf_counter()
        runner = await starter.start(files, load)
        print(f"{'':24} loaded in {time.perf_counter() - before:.2f} s")
        return runner

    runner = await start()
    for _ in range(turns):
        for talk in talks:
            await turn(runner, talk, source)
    told("first turns", talks, slice(0, 1))
    told("later turns", talks, slice(1, turns))
    before = time.perf_counter()
    await runner.close()
    print(f"{'':24} closed in {time.perf_counter() - before:.2f} s")
    size = on_disk(root)
    print(f"{'':24} on the disk: {size >> 20} MiB for {sum(talk.known for talk in talks)} tokens")
    runner = await start()
    for talk in talks:
        await turn(runner, talk, source)
    told("after a restart", talks, slice(turns, turns + 1))
    await runner.close()
    await starter.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--engine", choices=ENGINES, default="cpu")
    parser.add_argument("--talks", type=int, default=8)
    parser.add_argument("--turns", type=int, default=10)
    said = parser.parse_args()
    digest = sha256(said.model.read_bytes()).hexdigest()
    files = ModelFiles(weights=said.model.resolve(), digest=digest, architecture="", quantization="")
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(files, Path(directory), said.engine, said.talks, said.turns))


if __name__ == "__main__":
    main()
