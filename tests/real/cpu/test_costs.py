"""What a loaded model takes is what was reckoned, and not much less."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from puna.engine.cpu.profile import COSTS
from puna.engine.memory import estimate, shape
from puna.engine.runner import LoadOptions
from puna.model.gguf import read_header

from .running import answer, started

RESERVED = 64 << 20


def taken(pid: int) -> int:
    """Bytes of a process's own, but for large rooms that are less than half filled: its cache."""
    found = size = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        match line.split():
            case ["Size:", amount, "kB"]:
                size = int(amount) << 10
            case ["Anonymous:", amount, "kB"] if not RESERVED <= size > 2 * (int(amount) << 10):
                found += int(amount) << 10
    return found


def in_memory_of(file: Path, pid: int) -> int:
    """Bytes of a mapped file that count as the process's memory."""
    found, wanted = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        match line.split(maxsplit=5):
            case [_, _, _, _, _, path]:
                wanted = path == str(file)
            case ["Rss:", amount, "kB"] if wanted:
                found += int(amount) << 10
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process's memory is")
async def test_the_shipped_model_takes_what_is_reckoned(smollm2_gguf: Path, tmp_path: Path) -> None:
    header = read_header(smollm2_gguf)
    layout = shape(
        weights=sum(tensor.size for tensor in header.tensors),
        vocabulary=header.vocabulary_size or 0,
        embedding=header.embedding_length or 0,
        blocks=0,
        heads=1,
        kv_heads=1,
    )
    reckoned = estimate(layout, LoadOptions(num_ctx=1, slots=1), COSTS).total
    async with started(smollm2_gguf, tmp_path, num_ctx=4096, slots=8) as runner:
        await answer(runner, range(100, 1300), max_tokens=4)
        assert runner.info.pid is not None
        # Of the file, whose tensors were packed elsewhere, hardly anything counts, and what is told has none of it.
        assert in_memory_of(smollm2_gguf, runner.info.pid) < smollm2_gguf.stat().st_size / 3
        assert runner.info.memory < reckoned + RESERVED
        assert taken(runner.info.pid) <= reckoned <= 1.25 * taken(runner.info.pid)
