"""Same seed, same answer: cold, from the cache, over a cache that generation filled, alone and in company.

On the first layers of a real model: in each of them a sum is made as in all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.runners import Start, starting
from puna.engine.runner import End, Prompt, Runner, Sampling, Token
from real.conftest import RUNS

WORDS = [
    "the",
    "a",
    "of",
    "cat",
    "dog",
    "runs",
    "tree",
    "house",
    "blue",
    "12",
    "x",
    "+",
    "=",
    "{",
    "}",
    "hello",
    "world",
    "sing",
    "moon",
    "river",
    "code",
    "python",
]
SLOTS = 4
SEEDED = Sampling(max_tokens=24, seed=42, temperature=0.8, logprobs=5)
"""With the log-probabilities of the likeliest: they show a difference that does not change a token."""


def words(source: random.Random, count: int) -> str:
    return " ".join(source.choice(WORDS) for _ in range(count))


async def prompt(runner: Runner, text: str) -> Prompt:
    chat = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    return Prompt(tuple(await runner.tokenize(chat, special=True, bos=True)))


async def answer(runner: Runner, prompt: Prompt, sampling: Sampling = SEEDED) -> tuple[tuple[Token, ...], int]:
    """Tokens, and how many of the prompt came from the cache."""
    tokens: list[Token] = []
    async for step in runner.generate(prompt, sampling):
        if isinstance(step, End):
            return tuple(tokens), step.cached_tokens
        if isinstance(step, Token):
            tokens.append(step)
    raise AssertionError("no end")


async def noise(runner: Runner, seed: int, over: asyncio.Event) -> None:
    """A client that asks until it is `over`, at random lengths, and now and then goes away."""
    source = random.Random(seed)
    while not over.is_set():
        asked = await prompt(runner, words(source, source.randint(1, 30)))
        sampling = Sampling(max_tokens=source.randint(1, 24), seed=source.randint(0, 999), temperature=1.0)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(answer(runner, asked, sampling), source.choice([0.1, 30, 30]))


@pytest.fixture
async def start(shallow_gguf: Path) -> AsyncIterator[Start]:
    async with starting(shallow_gguf) as start:
        yield start


@contextlib.asynccontextmanager
async def company(runner: Runner, clients: int) -> AsyncIterator[None]:
    over = asyncio.Event()
    tasks = [asyncio.create_task(noise(runner, seed, over)) for seed in range(clients)]
    try:
        yield
    finally:
        assert not any(task.done() for task in tasks), "a client failed"
        over.set()
        for task in tasks:
            task.cancel()  # which `wait_for` may lose, before Python 3.12
        await asyncio.wait(tasks)


# The longer prompt passes 256 places of cache, where this engine sums otherwise, and more than one batch.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("length", [10, 330])
async def test_every_time(start: Start, length: int) -> None:
    runner = await start(num_ctx=1024, slots=SLOTS)
    assert runner.info.seed_exact
    asked = await prompt(runner, "Tell me a story about " + words(random.Random(1), length))
    first, cached = await answer(runner, asked)
    assert cached == 0
    answers, hits = [], []
    for _ in range(3):
        told, cached = await answer(runner, asked)
        answers.append(told)
        hits.append(cached)
    assert all(hits), "nothing came from the cache"
    # As many as there are places: the places are always full, and nobody stands in line for long.
    async with company(runner, SLOTS):
        answers += [(await answer(runner, asked))[0] for _ in range(RUNS)]
    assert answers.count(first) == 3 + RUNS, [answers.index(one) for one in answers if one != first]
    other, _ = await answer(runner, asked, replace(SEEDED, seed=43))
    assert [token.id for token in other] != [token.id for token in first]


@pytest.mark.timeout(900)
async def test_a_conversation_over_its_own_cache_is_as_if_cold(start: Start) -> None:
    runner = await start(num_ctx=1024, slots=1)
    asked = await prompt(runner, "Tell me a story about " + words(random.Random(2), 330))
    told, _ = await answer(runner, asked)
    turn = "<|im_end|>\n<|im_start|>user\nGo on<|im_end|>\n<|im_start|>assistant\n"
    more = await runner.tokenize(turn, special=True, bos=False)
    second = Prompt((*asked.tokens, *(token.id for token in told), *more))
    warm, cached = await answer(runner, second)
    assert cached >= len(asked.tokens)
    await answer(runner, await prompt(runner, "Something else"))
    cold, cached = await answer(runner, second)
    assert cached < 10
    assert cold == warm
