"""Conversations on llama.cpp survive: more of them than there are slots, and a restart, with the very same answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.gguf_files import write_tiny_llama
from fakes.llama_server import write_binary
from fakes.waiting import idle_within, turns_until
from puna.engine.llama.engine import LlamaEngine, LlamaServerEngine
from puna.engine.runner import End, LoadOptions, ModelFiles, Prompt, Runner, Sampling, Token
from puna.settings import Settings

SLOTS, TALKS = 2, 8


@contextlib.asynccontextmanager
async def started(model: Path, cache: Path | None) -> AsyncIterator[Runner]:
    engine = LlamaEngine(Settings(models=Path("none"), cache_dir=cache))
    files = ModelFiles(model, "0" * 64, "llama", "Q4_1")
    runner = await engine.start(files, LoadOptions(num_ctx=512, slots=SLOTS))
    try:
        yield runner
    finally:
        await runner.close()


async def answer(runner: Runner, tokens: list[int]) -> tuple[list[int], int]:
    """Ids, and how many tokens of the prompt were not computed."""
    ids: list[int] = []
    async for step in runner.generate(Prompt(tuple(tokens)), Sampling(max_tokens=6, seed=42, ignore_eos=True)):
        if isinstance(step, End):
            return ids, step.cached_tokens
        if isinstance(step, Token):
            ids.append(step.id)
    raise AssertionError("no end")


def words(source: random.Random, count: int) -> list[int]:
    return [source.randrange(100, 40_000) for _ in range(count)]


@pytest.mark.timeout(300)
async def test_eight_conversations_on_two_slots_and_after_a_restart(smollm2_gguf: Path, tmp_path: Path) -> None:
    """Each begins like all others, as with one system message. Later turns compute their new tokens and 32 more at
    most; the answers are those that are computed without anything saved.
    """
    source, cache = random.Random(3), tmp_path / "cache"
    system = words(source, 60)
    talks = [[1, *system, *words(source, 40)] for _ in range(TALKS)]
    known, last = [0] * TALKS, [list[int]() for _ in range(TALKS)]
    async with started(smollm2_gguf, cache) as runner:
        assert runner.info.seed_exact
        for _ in range(2):
            for number, talk in enumerate(talks):
                last[number], cached = await answer(runner, talk)
                assert cached >= max(known[number] - 32, 60 if number else 0)
                known[number] = len(talk) + len(last[number])
                talk += [*last[number], *words(source, 8)]
    after: dict[int, list[int]] = {}
    async with started(smollm2_gguf, cache) as runner:
        for number in (0, 5, 7):
            after[number], cached = await answer(runner, talks[number])
            assert cached >= known[number] - 32
    async with started(smollm2_gguf, None) as runner:
        before = talks[0][: known[0] - len(last[0])]
        assert (await answer(runner, before))[0] == last[0]
        assert (await answer(runner, talks[5]))[0] == after[5]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "tiny.gguf")


async def test_a_damaged_file_costs_only_time(tiny: Path, tmp_path: Path) -> None:
    """The engine would end over it."""
    talk = [65 + number % 26 for number in range(80)]
    async with started(tiny, tmp_path / "cache") as runner:
        said, _ = await answer(runner, talk)
    (path,) = tmp_path.rglob("*.guest")
    path.write_bytes(path.read_bytes()[:1000])
    async with started(tiny, tmp_path / "cache") as runner:
        assert await answer(runner, talk) == (said, 0)


async def test_a_kill_loses_nothing_that_was_said_before_a_rest(tiny: Path, tmp_path: Path) -> None:
    talk = [65 + number % 26 for number in range(80)]
    async with started(tiny, tmp_path / "cache") as runner:
        said, _ = await answer(runner, talk)
        # The record is written when the engine's file is whole.
        await turns_until(lambda: whole(tmp_path / "cache"), 20, "what is saved ahead")
        assert runner.info.pid is not None
        os.kill(runner.info.pid, signal.SIGKILL)
        await runner.died
    async with started(tiny, tmp_path / "cache") as runner:
        assert (await answer(runner, [*talk, *said, 65]))[1] >= len(talk) + len(said) - 1


def whole(cache: Path) -> bool:
    return any(not path.suffix for path in cache.glob("prompts/*/*"))


async def test_the_native_binary_is_told_too(tiny: Path, tmp_path: Path) -> None:
    settings = Settings(models=Path("none"), llama_server=write_binary(tmp_path), cache_dir=tmp_path / "cache")
    talk = [65 + number % 26 for number in range(80)]
    for cached in (0, 79):
        engine = LlamaServerEngine(settings)
        runner = await engine.start(ModelFiles(tiny, "0" * 64, "llama", "F32"), LoadOptions(num_ctx=512, slots=1))
        assert (await answer(runner, talk))[1] == cached
        await runner.close()


async def test_many_at_once_that_come_and_go_are_all_answered(tiny: Path, tmp_path: Path) -> None:
    """Each alone on its slot while that is saved, restored and used; who goes away leaves it free."""
    talks = [[65 + (number * place) % 57 for place in range(60 + number)] for number in range(12)]
    async with started(tiny, tmp_path / "cache") as runner:
        alone = [(await answer(runner, talk))[0] for talk in talks]
        for _ in range(3):
            leaving = [asyncio.create_task(answer(runner, talk)) for talk in talks]
            staying = [asyncio.create_task(answer(runner, talk)) for talk in talks]
            await asyncio.wait(staying, return_when=asyncio.FIRST_COMPLETED)
            for task in leaving[::2]:
                task.cancel()
            answers = await asyncio.gather(*leaving, *staying, return_exceptions=True)
            for number, got in enumerate(answers):
                if not isinstance(got, asyncio.CancelledError):
                    assert not isinstance(got, BaseException), got
                    assert got[0] == alone[number % len(talks)]
        assert await idle_within(runner.busy, 20)
    assert len([*tmp_path.rglob("*.guest")]) >= 2
