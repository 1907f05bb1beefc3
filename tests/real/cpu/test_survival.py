"""Conversations survive: many at once in memory, and all of them a restart, to the bit as if they were computed."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from fakes.waiting import until
from puna.engine.cpu.cache import block_keys
from puna.engine.cpu.loaded import ModelParts, load
from puna.engine.cpu.loop import Generate, Loop, Settle, Settled, Shutdown, Told
from puna.engine.cpu.protocol import Load
from puna.engine.cpu.sampler import Drawn
from puna.engine.runner import End, Sampling
from puna.model.ggml import TensorType

from .models import write_model
from .running import Answered, answer, started
from .test_families import RECIPES

PLACES = 200
"""Tokens of the prompts here: six whole blocks of 32, and more."""


class Engine:
    """What a child runs, in this process and thread."""

    def __init__(self, order: Load) -> None:
        self.parts: ModelParts = load(order)
        self._heard: list[object] = []
        self._loop = Loop(self.parts.model, self.parts.cache, self.parts.limits, self._hear, disk=self.parts.disk)

    def _hear(self, told: Told) -> None:
        self._heard += [event for _, event in told]

    def answer(self, prompt: list[int]) -> tuple[list[int], int]:
        """Ids, and how many tokens of the prompt were not computed."""
        self._heard.clear()
        sampling = Sampling(max_tokens=40, seed=5, ignore_eos=True, temperature=1.0)
        self._loop.put(Generate(1, tuple(prompt), sampling))
        while not any(isinstance(event, End) for event in self._heard):
            self._loop.read(wait=not self._loop.step())
        (cached,) = (event.cached_tokens for event in self._heard if isinstance(event, End))
        return [event.token for event in self._heard if isinstance(event, Drawn)], cached

    def digests(self, text: list[int]) -> list[str]:
        """Of the whole blocks of a text that was asked."""
        cache, model = self.parts.cache, self.parts.model
        found = [cache.find(key) for key in block_keys(text, cache.block_size)]
        return [sha256(model.block(block)).hexdigest() for block in found if block is not None]

    def close(self) -> None:
        self._loop.put(Settle(2))
        while not any(isinstance(event, Settled) for event in self._heard):
            self._loop.read(wait=True)
            self._loop.write_behind()
        self._loop.put(Shutdown())
        self._loop.run()
        if self.parts.disk is not None:
            self.parts.disk.close()
        self.parts.model.close()


def order(model: Path, root: Path | None, **said: object) -> Load:
    plain = Load(str(model), 512, 2, threads=2, step_tokens=None, memory=0, cache_disk=1 << 30, content="a" * 64)
    return replace(plain, cache_dir=str(root or ""), **said)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["llama", "gemma4", "lfm2", "lfm2, a convolution last", "qwen35", "gpt-oss"])
def test_blocks_from_the_disk_hold_what_computing_gives(family: str, tmp_path: Path) -> None:
    """Also of models that have a state beside their blocks: it comes of what these hold."""
    model, root = tmp_path / "model.gguf", tmp_path / "prompts"
    write_model(model, replace(RECIPES[family], kind=TensorType.Q8_0))
    source = random.Random(1)
    prompt = [source.randrange(5, 300) for _ in range(PLACES)]
    first, plain = Engine(order(model, root)), Engine(order(model, None))
    said, cached = first.answer(prompt)
    assert (said, cached) == (plain.answer(prompt)[0], 0)
    first.close()
    turn = [*prompt, *said, *prompt[:9]]
    second, never = Engine(order(model, root)), Engine(order(model, None))
    found, cached = second.answer(turn)
    assert cached == (PLACES + len(said) - 1) // 32 * 32
    assert found == plain.answer(turn)[0] == never.answer(turn)[0]
    assert second.digests(turn) == never.digests(turn) == plain.digests(turn)
    assert len(second.digests(turn)) == len(turn) // 32


def test_what_decides_a_block_s_bytes_decides_where_it_is_found(tmp_path: Path) -> None:
    model, root = tmp_path / "model.gguf", tmp_path / "prompts"
    write_model(model, replace(RECIPES["phi3, long"], kind=TensorType.Q8_0))
    prompt = list(range(5, 5 + PLACES))
    first = Engine(order(model, root))
    first.answer(prompt)
    first.close()
    for said, cached in (({}, 192), ({"content": "b" * 64}, 0), ({"cache_type": "q8_0"}, 0)):
        assert Engine(order(model, root, **said)).answer(prompt)[1] == cached
    # Up to its first context this model turns at other speeds.
    short = Engine(order(model, root, num_ctx=64))
    assert short.answer(prompt[:40])[1] == 0


def test_a_directory_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    write_model(model, replace(RECIPES["llama"], kind=TensorType.Q8_0))
    (tmp_path / "file").touch()
    engine = Engine(order(model, tmp_path / "file" / "prompts"))
    assert "cannot be used" in engine.parts.hello.trouble
    engine.answer([5, 6, 7])


@pytest.mark.timeout(300)
async def test_eight_conversations_interleaved_and_after_a_restart(smollm2_gguf: Path, tmp_path: Path) -> None:
    """Later turns compute their new tokens and at most 32 more; so does the next turn of each after a restart, and
    after the end of a server that was killed: when it had rested all was written.
    """
    source = random.Random(7)
    talks = [[1, *(source.randrange(100, 40_000) for _ in range(60))] for _ in range(8)]
    known = [0] * len(talks)

    def more(number: int, got: Answered) -> None:
        known[number] = len(talks[number]) + len(got.ids)
        talks[number] += [*got.ids, *(source.randrange(100, 40_000) for _ in range(12))]

    cache = {"cache_dir": tmp_path / "cache", "cache_disk": 1 << 30}
    async with started(smollm2_gguf, tmp_path, num_ctx=512, slots=4, **cache) as runner:
        for turn in range(3):
            for number, talk in enumerate(talks):
                got = await answer(runner, talk, max_tokens=6)
                assert (got.end.cached_tokens >= known[number] - 1) if turn else not got.end.cached_tokens
                more(number, got)
    async with started(smollm2_gguf, tmp_path, num_ctx=512, slots=4, **cache) as runner:
        after = []
        for number, talk in enumerate(talks):
            got = await answer(runner, talk, max_tokens=6)
            assert got.end.cached_tokens >= known[number] - 32
            after.append(got.ids)
            more(number, got)
        written = tmp_path / "cache" / "prompts"
        blocks = sum((size - 1) // 32 for size in known)

        def whole() -> int:
            return sum(not path.suffix for path in written.glob("*/*"))  # and no block that is being written

        until(lambda: whole() >= blocks, 30, "what the runner writes when it rests")
        assert runner.info.pid is not None
        os.kill(runner.info.pid, signal.SIGKILL)
    async with started(smollm2_gguf, tmp_path, num_ctx=512, slots=4) as runner:
        for number in range(2):
            cold = await answer(runner, talks[number][: known[number] - 6], max_tokens=6)
            assert (cold.ids, cold.end.cached_tokens) == (after[number], 0)
    async with started(smollm2_gguf, tmp_path, num_ctx=512, slots=4, **cache) as runner:
        got = await answer(runner, talks[3], max_tokens=2)
        assert got.end.cached_tokens >= known[3] - 32
        (tmp_path / "cache").rename(tmp_path / "gone")  # in one step: it writes there meanwhile
        got = await answer(runner, talks[4], max_tokens=2)
        assert got.end.cached_tokens == 0
