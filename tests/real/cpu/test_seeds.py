"""A seeded request gives the same bytes: alone, among others that come and go, cached, after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from puna.engine.runner import Prompt, Runner, Sampling
from puna.model.ggml import TensorType
from real.conftest import RUNS

from .conftest import InType
from .models import Recipe, write_model
from .running import Answered, answer, started
from .test_families import RECIPES

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRIALS = 24
SHIPPED = ("Q4_1", "Q4_K_M", "Q8_0", "BF16")
SMALL = {
    "Q4_1": Recipe(kind=TensorType.Q4_1),
    "Q4_K": Recipe(kind=TensorType.Q4_K),
    "Q6_K": Recipe(kind=TensorType.Q6_K),
    "Q8_0": Recipe(kind=TensorType.Q8_0),
    "BF16": Recipe(kind=TensorType.BF16),
    "F32": Recipe(),
    "lfm2": replace(RECIPES["lfm2"], kind=TensorType.Q8_0, tied=False),
    "qwen35": replace(RECIPES["qwen35"], kind=TensorType.Q8_0),
}


@pytest.fixture(scope="module", params=[*SHIPPED, *(f"small {name}" for name in SMALL)])
def kind(request: pytest.FixtureRequest) -> str:
    """The shipped model's first layers in four types, and small random ones: of each kind of row, or which do not
    attend in every layer.
    """
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def model(kind: str, shallow_in: InType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if kind in SHIPPED:
        return shallow_in(kind)
    path = tmp_path_factory.mktemp("model") / "small.gguf"
    write_model(path, SMALL[kind.removeprefix("small ")])
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
    return await answer(runner, prompt, temperature=0.9, logprobs=5, max_tokens=16)


async def among_others(runner: Runner, prompt: Sequence[int], source: random.Random) -> Answered:
    """The exact answer while 2 to 16 others come and go."""
    others = [asyncio.create_task(_other(runner, source, prompt)) for _ in range(source.randrange(2, 17))]
    for other in others[: source.randrange(len(others))]:
        if source.random() < 0.3:
            await other
    got = await exact(runner, prompt)
    await asyncio.gather(*others)
    return got


async def _other(runner: Runner, source: random.Random, shared: Sequence[int]) -> None:
    """May share a beginning; may go before its end."""
    begin = shared[: source.choice([0, 0, 0, 40])]
    prompt = [*begin, *text(runner, source.randrange(2, 90), source.randrange(10**9))]
    sampling = Sampling(max_tokens=source.randrange(1, 20), seed=source.randrange(10**9), ignore_eos=True)
    leaves, seen = source.choice([None, None, 1, 5]), 0
    async with contextlib.aclosing(runner.generate(Prompt(tuple(prompt)), sampling)) as steps:  # type: ignore[type-var]
        async for _ in steps:
            seen += 1
            if seen == leaves:
                break


@pytest.mark.timeout(900)
async def test_company_and_cache_change_nothing(runner: Runner, kind: str) -> None:
    """In turn: a new prompt, cold in company and then alone; and always the same one, which is cached by then.

    Of the shipped model, which takes longer for each trial, as many as of all that is tried with a real one.
    """
    same = text(runner, 75, seed=9)
    expected = await exact(runner, same)
    assert expected.end.cached_tokens == 0
    lengths = (75, 33, 34, 65, 130, 200)
    for trial in range(min(RUNS, TRIALS) if kind in SHIPPED else TRIALS):
        source = random.Random(trial)
        if trial % 2:
            got = await among_others(runner, same, source)
            assert got.end.cached_tokens == 74
            assert got.tokens == expected.tokens, f"trial {trial}"
        else:
            prompt = text(runner, lengths[trial // 2 % len(lengths)], seed=1000 + trial)
            got, alone = await among_others(runner, prompt, source), await exact(runner, prompt)
            assert alone.end.cached_tokens == len(prompt) - 1
            assert got.tokens == alone.tokens, f"trial {trial}"
    assert await runner.busy() == 0


async def test_a_restart_changes_nothing(runner: Runner, model: Path, store: Path) -> None:
    prompt = text(runner, 75, seed=10)
    expected = await exact(runner, prompt)
    async with started(model, store, slots=3) as other:
        assert (await exact(other, prompt)).tokens == expected.tokens


async def test_another_seed_is_another_answer(runner: Runner) -> None:
    prompt = text(runner, 75, seed=11)
    said = {"temperature": 20.0, "top_k": 0, "top_p": 1.0}  # the small models are very sure of themselves
    answers = {tuple((await answer(runner, prompt, seed=seed, **said)).ids) for seed in range(8)}
    assert len(answers) == 8


async def test_choices_of_one_prompt_share_it(runner: Runner) -> None:
    prompt = text(runner, 100, seed=12)
    answers = await asyncio.gather(*(answer(runner, prompt, seed=seed) for seed in range(6)))
    assert sorted(one.end.cached_tokens for one in answers) == [0] + [99] * 5
    assert [one.ids for one in answers] == [(await answer(runner, prompt, seed=seed)).ids for seed in range(6)]
