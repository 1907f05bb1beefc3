"""Compare what a runner takes of memory with what was reckoned from its model's header alone.

    python bench/memory.py MODEL.gguf… [--engine cpu|llama] [--ctx 4096] [--slots 4] [--projector FILE.gguf]

One model at a time is loaded, by one engine after the other, and asked. Counted are the pages of its process that are
its own, what it used of files since it was loaded (weights that llama.cpp has packed anew lie in the page cache too,
where nobody needs them any more), and the whole of its cache, which is filled while tokens come. Linux alone tells.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from puna.engine.cpu.client import CpuEngine
from puna.engine.engine import ModelFacts
from puna.engine.llama.engine import LlamaEngine
from puna.engine.memory import projector_kinds
from puna.engine.runner import LoadOptions, ModelFiles, Prompt, Runner, Sampling
from puna.model.gguf import Header, read_header
from puna.scheduler.facts import encoded, layout
from puna.settings import Settings

ENGINES = {"cpu": CpuEngine, "llama": LlamaEngine}

PROMPT = 150
"""Tokens: more than a batch of either engine on a processor."""

MIB = 1 << 20


@dataclass
class Mapping:
    """Bytes of one mapping of a process. `name`: the file's, if it is one. `reserved`: its addresses are not in use."""

    name: str
    reserved: bool = False
    size: int = 0
    own: int = 0
    present: int = 0
    used: int = 0


_FIELDS = {"Size:": "size", "Anonymous:": "own", "Rss:": "present", "Referenced:": "used"}


def mappings(pid: int) -> list[Mapping]:
    found: list[Mapping] = []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *others = line.split()
        if not first.endswith(":"):
            found.append(Mapping(others[4] if len(others) > 4 else "", reserved=others[0].startswith("---")))
        elif first in _FIELDS:
            setattr(found[-1], _FIELDS[first], int(others[0]) << 10)
    return found


def unfilled(found: list[Mapping], cache: int) -> int:
    """Bytes of the cache that no token has come to yet, where it is a mapping of its own."""
    near = [one for one in found if not one.name and not one.reserved and abs(one.size - cache) < 0.1 * cache + 4 * MIB]
    nearest = min(near, key=lambda one: (abs(one.size - cache), -one.present), default=None)
    return 0 if nearest is None else nearest.size - nearest.present


def taken(pid: int, cache: int) -> int:
    found = mappings(pid)
    files = sum(one.used - min(one.used, one.own) for one in found if one.name)
    return sum(one.own for one in found) + files + unfilled(found, cache)


async def ask(runner: Runner, length: int, source: random.Random) -> None:
    prompt = Prompt(tuple(source.randrange(300, 30_000) for _ in range(length)))
    async for _ in runner.generate(prompt, Sampling(max_tokens=2, seed=1, ignore_eos=True)):
        pass


def forget(pid: int) -> None:
    """What was used until now counts no more."""
    Path(f"/proc/{pid}/clear_refs").write_text("1")


async def compare(name: str, file: Path, header: Header, load: LoadOptions, projectors: tuple[Path, ...]) -> str:
    engine = ENGINES[name](Settings(models=Path("none")))
    heads = [read_header(projector) for projector in projectors]
    facts = ModelFacts(
        architecture=header.architecture,
        types=frozenset(tensor.type.name for tensor in header.tensors),
        metadata=header.metadata,
        layout=layout(header, sum(sizes(projectors)), max(map(encoded, heads), default=0)),
        projectors=len(projectors),
        encoders=frozenset(kind for head in heads for kind in projector_kinds(head)),
    )
    reckoned = engine.memory(facts, load)
    runner = await engine.start(ModelFiles(file, "", header.architecture, "", projectors=projectors), load)
    try:
        source = random.Random(1)
        await ask(runner, min(PROMPT, load.num_ctx // 2), source)
        assert runner.info.pid is not None
        forget(runner.info.pid)
        await ask(runner, min(PROMPT, load.num_ctx // 2), source)
        found = taken(runner.info.pid, reckoned.cache)
    finally:
        await runner.close()
        await engine.close()
    parts = ", ".join(f"{part} {getattr(reckoned, part) >> 20}" for part in ("weights", "cache", "compute"))
    return f"reckoned {reckoned.total >> 20:6} MiB ({parts}), taken {found >> 20:6} MiB: {reckoned.total / found:.2f}"


def sizes(files: tuple[Path, ...]) -> Iterator[int]:
    return (file.stat().st_size for file in files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--ctx", type=int, default=4096)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--projector", type=Path, action="append", default=[])
    said = parser.parse_args()
    load = LoadOptions(num_ctx=said.ctx, slots=said.slots)
    for model in said.models:
        for name in said.engine or ENGINES:
            told = asyncio.run(compare(name, model.resolve(), read_header(model), load, tuple(said.projector)))
            print(f"{model.name:28} {name:6} {said.ctx} x {said.slots}: {told}", flush=True)


if __name__ == "__main__":
    main()
