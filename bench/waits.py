"""Measure how llama.cpp's threads wait for each other, alone and beside two programs that loop.

    python bench/waits.py MODEL.gguf [--loads 6]

Each way of waiting is a fresh runner: the library's own (as long as 300,000 looks), Puna's, and sleeping at once
(`OMP_WAIT_POLICY=passive`). In turn, forwards and backwards; told are tokens a second of four streams, of the median
load and of the worst. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from busy import neighbours
from puna.engine.llama.engine import LlamaEngine
from puna.engine.runner import LoadOptions, ModelFiles, Prompt, Runner, Sampling
from puna.settings import Settings

WAYS: Mapping[str, Mapping[str, str]] = {
    "the library's": {"GOMP_SPINCOUNT": "300000"},
    "Puna's": {},
    "asleep at once": {"OMP_WAIT_POLICY": "passive"},
}
STREAMS, TOKENS = 4, 12


async def stream(runner: Runner, number: int) -> None:
    prompt = Prompt((1, *range(300 + number, 320 + number)))
    async for _ in runner.generate(prompt, Sampling(max_tokens=TOKENS, seed=1, ignore_eos=True)):
        pass


async def rate(files: ModelFiles, settings: Settings, way: Mapping[str, str]) -> float:
    """Tokens a second of a runner that is loaded now."""
    os.environ.update(way)
    engine = LlamaEngine.of(settings)
    try:
        runner = await engine.start(files, LoadOptions(num_ctx=512, slots=STREAMS))
        before = time.perf_counter()
        await asyncio.gather(*(stream(runner, number) for number in range(STREAMS)))
        taken = time.perf_counter() - before
        await runner.close()
        return STREAMS * TOKENS / taken
    finally:
        await engine.close()
        for name in way:
            del os.environ[name]


async def measure(files: ModelFiles, settings: Settings, loads: int) -> None:
    for beside in (0, 2):
        found: dict[str, list[float]] = {name: [] for name in WAYS}
        for number in range(loads):
            for name in [*WAYS][:: 1 if number % 2 else -1]:
                with neighbours(beside):
                    found[name].append(await rate(files, settings, WAYS[name]))
        own = statistics.median(found["Puna's"])
        for name, rates in found.items():
            print(f"beside {beside} loops, {name:14} median {statistics.median(rates):6.1f} tok/s "
                  f"({own / statistics.median(rates):5.2f}), worst {min(rates):6.1f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--loads", type=int, default=6)
    said = parser.parse_args()
    digest = sha256(said.model.read_bytes()).hexdigest()
    files = ModelFiles(weights=said.model.resolve(), digest=digest, architecture="", quantization="")
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(models=Path(directory) / "models", cache_dir=Path(directory) / "cache")
        asyncio.run(measure(files, settings, said.loads))


if __name__ == "__main__":
    main()
