"""A seeded request gives the same bytes: alone, among others that come and go, cached, after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from puna.engine.runner import Prompt, Runner, Sampling
from puna.model.ggml import TensorType

from .models import Recipe, write_model
from .running import Answered, answer, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRIALS = 24
KINDS = ("real", "Q4_1", "Q4_K", "Q8_0", "BF16", "F32")


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, and small ones of other types."""
    if request.param == "real":
        shipped: Path = request.getfixturevalue("smollm2_gguf")
        return shipped
    path = tmp_path_factory.mktemp("model") / f"{request.param}.gguf"
    write_model(path, Recipe(kind=TensorType[request.param]))
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(model: Path, store: Path) -> AsyncIterator[Runner]:
    async with started(model, store) as running:
        yield running


def text(runner: Runner, length: int, seed: int) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(10, min(runner.info.vocabulary, 40_000)) for _ in range(length)]


async def exact(runner: Runner, prompt: Sequence[int]) -> Answered:
    """With the log-probabilities of the likeliest: they show a difference that does not change a token."""
    return await answer(runner, prompt, temperature=0.9, logprobs=5)


async def company(runner: Runner, source: random.Random, shared: Sequence[int]) -> None:
    """One other request: waits for a moment, may share a beginning, may go before its end."""
    prompt = [
        *shared[: source.choice([0, 0, 40, 70])],
        *text(runner, source.randrange(2, 120), source.randrange(10**9)),
    ]
    sampling = Sampling(max_tokens=source.randrange(1, 30), seed=source.randrange(10**9), ignore_eos=True)
    leaves, seen = source.choice([None, None, 1, 5]), 0
    async with contextlib.aclosing(runner.generate(Prompt(tuple(prompt)), sampling)) as steps:  # type: ignore[type-var]
        async for _ in steps:
            seen += 1
            if seen == leaves:
                break


@pytest.mark.parametrize("length", [75, 33, 200])
async def test_company_and_cache_change_nothing(runner: Runner, length: int) -> None:
    prompt = text(runner, length, seed=9)
    expected = await exact(runner, prompt)
    cached: set[int] = set()
    trials = TRIALS if length == 75 else 4
    for trial in range(trials):
        source = random.Random(trial)
        others = [asyncio.create_task(company(runner, source, prompt)) for _ in range(source.randrange(2, 17))]
        for other in others[: source.randrange(len(others))]:
            if source.random() < 0.3:
                await other
        got = await exact(runner, prompt)
        assert got.tokens == expected.tokens, f"trial {trial}, {got.end.cached_tokens} tokens cached"
        cached.add(got.end.cached_tokens)
        await asyncio.gather(*others)
    if length == 75:
        assert cached == {0, 64}, "both a cold and a cached prompt were to be met"
    assert await runner.busy() == 0


async def test_a_restart_changes_nothing(runner: Runner, model: Path, store: Path) -> None:
    prompt = text(runner, 75, seed=10)
    expected = await exact(runner, prompt)
    async with started(model, store, slots=3) as other:
        assert (await exact(other, prompt)).tokens == expected.tokens


async def test_another_seed_is_another_answer(runner: Runner) -> None:
    prompt = text(runner, 75, seed=11)
    answers = {
        tuple((await answer(runner, prompt, seed=seed, temperature=1.0, top_k=0, top_p=1.0)).ids) for seed in range(8)
    }
    assert len(answers) == 8


async def test_choices_of_one_prompt_share_it(runner: Runner) -> None:
    prompt = text(runner, 100, seed=12)
    answers = await asyncio.gather(*(answer(runner, prompt, seed=seed) for seed in range(6)))
    assert sorted(one.end.cached_tokens for one in answers) == [0] + [96] * 5
    assert [one.ids for one in answers] == [(await answer(runner, prompt, seed=seed)).ids for seed in range(6)]
