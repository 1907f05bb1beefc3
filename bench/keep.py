"""What keeping prompts on the disk costs a normal request: the same requests to two runners, one of which keeps them.

    python bench/keep.py MODEL.gguf [--engine cpu|llama] [--rounds 12] [--prompt 300] [--answer 48]

The runners take turns, each request a text of its own. "One after the other" leaves no time between two, so that what
is written waits; "with a rest" leaves as long as it takes to be written, and asks while it is. Told are medians of a
request's milliseconds, to its first token and in all, their ratio, and what was written. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import psutil

from puna.engine.cpu.client import CpuEngine
from puna.engine.cpu.loop import REST
from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import LoadOptions, ModelFiles, Prompt, Runner, Sampling, Token
from puna.settings import Settings

ENGINES = {"cpu": CpuEngine, "llama": LlamaEngine}

Times = tuple[float, float]
"""Milliseconds to the first token, and in all."""


async def ask(runner: Runner, prompt: int, answer: int, source: random.Random) -> Times:
    tokens = (1, *(source.randrange(300, 30_000) for _ in range(prompt)))
    began, first = time.perf_counter(), 0.0
    async for step in runner.generate(Prompt(tokens), Sampling(max_tokens=answer, seed=1, ignore_eos=True)):
        if isinstance(step, Token) and not first:
            first = time.perf_counter()
    return 1000 * (first - began), 1000 * (time.perf_counter() - began)


def worked(runner: Runner) -> float:
    """Milliseconds of a processor that its process has used."""
    used = psutil.Process(runner.info.pid).cpu_times()
    return 1000 * float(used.user + used.system)


def on_disk(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def told(name: str, kept: Sequence[Times], not_kept: Sequence[Times]) -> None:
    for what, column in (("first token", 0), ("in all", 1)):
        with_disk, without = (statistics.median(row[column] for row in rows) for rows in (kept, not_kept))
        ratio = with_disk / without
        print(f"{name:22} {what:12} kept {with_disk:8.1f} ms   not kept {without:8.1f} ms   ratio {ratio:.3f}")


async def measure(files: ModelFiles, root: Path, said: argparse.Namespace) -> None:
    source = random.Random(1)
    load = LoadOptions(num_ctx=-(-(said.prompt + said.answer + 1) // 256) * 256, slots=4)
    starters = [
        ENGINES[said.engine].of(Settings(models=root / "models", cache_dir=root / "cache", **changes))
        for changes in ({}, {"cache_disk": 0})
    ]
    runners = [await starter.start(files, load) for starter in starters]
    for runner in runners:
        await ask(runner, said.prompt, said.answer, source)
    for name, rest in (("one after the other", 0.0), ("with a rest", REST + 0.5)):
        before = [worked(runner) for runner in runners]
        rows: tuple[list[Times], list[Times]] = ([], [])
        for round_ in range(said.rounds):
            for which in (0, 1) if round_ % 2 else (1, 0):
                rows[which].append(await ask(runners[which], said.prompt, said.answer, source))
                await asyncio.sleep(rest)
        told(name, *rows)
        kept, not_kept = ((worked(runner) - start) / said.rounds for runner, start in zip(runners, before, strict=True))
        print(f"{name:22} {'processor':12} kept {kept:8.1f} ms   not kept {not_kept:8.1f} ms a request")
    for runner in runners:
        await runner.close()
    print(f"on the disk afterwards: {on_disk(root) >> 20} MiB")
    for starter in starters:
        await starter.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--engine", choices=ENGINES, default="cpu")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--prompt", type=int, default=300)
    parser.add_argument("--answer", type=int, default=48)
    said = parser.parse_args()
    digest = sha256(said.model.read_bytes()).hexdigest()
    files = ModelFiles(weights=said.model.resolve(), digest=digest, architecture="", quantization="")
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(files, Path(directory), said))


if __name__ == "__main__":
    main()
