"""The cpu engine's child process: how it starts, fails, answers, is cancelled, and dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from puna.engine.cpu.client import CpuEngine, CpuRunner
from puna.engine.cpu.protocol import AskCancel, AskGenerate
from puna.engine.runner import Feature, LoadOptions, ModelFiles, Prefilled, Prompt, Runner, Sampling, Token
from puna.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    LoadFailed,
    LoadTimeout,
    ModelFileError,
    RunnerDied,
    Unsupported,
)
from puna.settings import Settings

from .models import Recipe, write_model
from .running import answer, files, started
from .test_families import RECIPES

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = tuple(range(10, 60))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.gguf"
    write_model(path, Recipe())
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runner]:
    async with started(model, tmp_path_factory.mktemp("store")) as running:
        yield running


async def test_it_says_what_it_is(runner: Runner) -> None:
    info = runner.info
    assert (info.engine, info.num_ctx, info.slots, info.vocabulary) == ("cpu", 512, 17, 320)
    assert info.seed_exact
    assert 2 in info.eos
    assert info.memory > 10_000_000
    assert info.pid != os.getpid()
    assert info.features == {
        Feature.CONSTRAINT, Feature.LOGPROBS, Feature.LOGIT_BIAS, Feature.MIROSTAT, Feature.SCORE, Feature.PREDICTION,
    }  # fmt: skip


async def test_tokens_and_texts(runner: Runner) -> None:
    ids = await runner.tokenize("t5é", special=False, bos=False)
    assert (await runner.detokenize(ids)).decode().endswith("t5é")
    assert await runner.tokenize("</s>", special=True, bos=True) == [1, 2]
    with pytest.raises(InvalidRequest):
        await runner.detokenize([320])


async def test_every_token_comes_alone_with_its_bytes(runner: Runner) -> None:
    got = await answer(runner, PROMPT, max_tokens=40)
    assert len(got.tokens) == got.end.completion_tokens == 40
    assert got.end.reason == "length"
    for token in got.tokens:
        assert token.data == (b"" if token.id < 3 else await runner.detokenize([token.id]))


async def test_a_grammar_holds(runner: Runner) -> None:
    gbnf = 'root ::= "{" pair ("," pair)? "}"\npair ::= "\\"" [a-c] "\\":" [0-9]'
    for seed in range(5):
        got = await answer(runner, PROMPT, gbnf, seed=seed, ignore_eos=False, temperature=2.0)
        assert got.end.reason == "stop"
        assert all(isinstance(value, int) for value in json.loads(got.data).values())


async def test_mistakes_are_told_by_name_and_disturb_nobody(runner: Runner) -> None:
    good = asyncio.create_task(answer(runner, PROMPT))
    with pytest.raises(InvalidRequest) as grammar:
        await answer(runner, PROMPT, "root ::= nothing")
    with pytest.raises(InvalidRequest) as bias:
        await answer(runner, PROMPT, logit_bias=((320, 1.0),))
    with pytest.raises(ContextLengthExceeded) as context:
        await answer(runner, [5] * 600)
    with pytest.raises(Unsupported):
        await runner.embed([1])
    with pytest.raises(Unsupported):
        await anext(runner.generate(Prompt((), ("x", ""), (b"png",)), Sampling(max_tokens=1, seed=1)))
    assert (grammar.value.param, bias.value.param) == ("grammar", "logit_bias")
    assert (context.value.tokens, context.value.limit) == (600, 512)
    assert (await good).ids == (await answer(runner, PROMPT)).ids


async def test_a_scored_text_has_the_log_probabilities_it_was_drawn_with(runner: Runner) -> None:
    got = await answer(runner, PROMPT, logprobs=3)
    scores = (await runner.score([*PROMPT, *got.ids], top=3))[len(PROMPT) - 1 :]
    assert len(scores) == len(got.tokens)
    for token, (logprob, top) in zip(got.tokens, scores, strict=True):
        assert token.logprob == pytest.approx(logprob, abs=0.3)
        assert len(token.top) == len(top) == 3
    assert await runner.score([5], top=2) == []


async def test_what_may_follow_is_weighed_as_it_would_be_scored(runner: Runner) -> None:
    weights = await runner.weigh(PROMPT, (5, 70, 33))
    scored = [(await runner.score([*PROMPT, token], top=0))[-1][0] for token in (5, 70, 33)]
    assert weights.logprobs == tuple(scored)
    assert (await runner.weigh(PROMPT, (5,))).cached == len(PROMPT) - 1


@pytest.mark.parametrize("name", ["lfm2", "qwen35"])
async def test_models_with_states_weigh_the_same_again_and_in_another_order(name: str, tmp_path: Path) -> None:
    """What they look back at beside the cache's blocks goes where the text goes: on, or back to a beginning."""
    write_model(tmp_path / "model.gguf", RECIPES[name])
    texts = [PROMPT, (*PROMPT, 5), (*PROMPT, 5, 70), (*PROMPT, 33), PROMPT[:30]]
    async with started(tmp_path / "model.gguf", tmp_path / "store", slots=4) as states:
        first = [(await states.weigh(text, (5, 70))).logprobs for text in texts]
        again = [(await states.weigh(text, (5, 70))).logprobs for text in reversed(texts)]
        scored = [(await states.score([*text, 70], top=0))[-1][0] for text in texts]
    assert first == list(reversed(again))
    assert [weights[1] for weights in first] == scored


async def test_who_goes_away_is_gone_within_a_step(model: Path, tmp_path: Path) -> None:
    # So small a model has made 400 tokens before a process that is busy looks again: this one goes on for seconds.
    async with started(model, tmp_path, num_ctx=16384) as runner:
        steps = runner.generate(Prompt(PROMPT), Sampling(max_tokens=16000, seed=1, ignore_eos=True))
        assert isinstance(await anext(steps), Prefilled)
        assert isinstance(await anext(steps), Token)
        assert await runner.busy() == 1
        await steps.aclose()  # type: ignore[attr-defined]
        assert await runner.busy() == 0


async def test_work_that_nobody_waits_for_is_told_beside_what_somebody_does(model: Path, tmp_path: Path) -> None:
    """As a cancel leaves it that is not obeyed: the child works on what this side knows nothing of."""
    endless = Sampling(max_tokens=16000, seed=1, ignore_eos=True)
    async with started(model, tmp_path, num_ctx=16384) as runner:
        steps = runner.generate(Prompt(PROMPT), endless)
        assert isinstance(runner, CpuRunner)
        assert isinstance(await anext(steps), Prefilled)
        assert not await runner.strays()
        runner._link.send(AskGenerate(10**6, PROMPT, endless, None))
        assert await runner.strays() == {10**6}
        assert await runner.strays() == {10**6}
        runner._link.send(AskCancel(10**6))
        assert not await runner.strays()
        assert await runner.busy() == 1
        await steps.aclose()  # type: ignore[attr-defined]


async def test_over_the_slots_requests_wait(runner: Runner) -> None:
    answers = await asyncio.gather(*(answer(runner, PROMPT, seed=seed) for seed in range(40)))
    assert all(len(one.tokens) == 24 for one in answers)


async def test_its_death_is_told_to_everyone_with_the_cause(model: Path, tmp_path: Path) -> None:
    async with started(model, tmp_path) as runner:
        steps = runner.generate(Prompt(PROMPT), Sampling(max_tokens=400, seed=1, ignore_eos=True))
        await anext(steps)
        assert runner.info.pid is not None
        os.kill(runner.info.pid, signal.SIGKILL)
        with pytest.raises(RunnerDied, match="SIGKILL"):
            async for _ in steps:
                pass
        with pytest.raises(RunnerDied, match="SIGKILL"):
            await runner.tokenize("x", special=False, bos=False)
        assert "SIGKILL" in await runner.died
        await runner.close()


async def test_closing_ends_the_process(model: Path, tmp_path: Path) -> None:
    async with started(model, tmp_path) as runner:
        process = psutil.Process(runner.info.pid)
    assert not process.is_running()
    assert runner.died.result() == "closed"
    await runner.close()


@pytest.fixture
def damaged(model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(model.read_bytes()[:5000])
    return path


async def test_a_damaged_file_is_told_as_such(damaged: Path, tmp_path: Path) -> None:
    before = _children()
    with pytest.raises((ModelFileError, LoadFailed)):
        async with started(damaged, tmp_path):
            pass
    assert _children() <= before


async def test_a_context_over_the_memory_is_refused_before_anything_runs(model: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="num_ctx"):
        async with started(model, tmp_path, num_ctx=1024, cache_memory=1_000_000):
            pass


async def test_with_little_memory_requests_share_and_it_is_said(model: Path, tmp_path: Path) -> None:
    async with started(model, tmp_path, slots=5_000, memory_limit=500_000_000) as runner:
        assert "share a cache of" in runner.info.reason
        assert len((await answer(runner, PROMPT)).tokens) == 24


@pytest.mark.parametrize("seconds", [0.01, 0.1])
async def test_a_start_given_up_leaves_no_process(seconds: float, model: Path, tmp_path: Path) -> None:
    before = _children()
    start = asyncio.create_task(_start(model, tmp_path))
    await asyncio.wait({start}, timeout=seconds)
    assert not start.done()
    start.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await start
    assert _children() <= before


async def test_a_start_without_a_sign_of_life_is_given_up(model: Path, tmp_path: Path) -> None:
    before = _children()
    start = asyncio.create_task(_start(model, tmp_path, load_timeout=0.3))
    while not (begun := _children() - before) and not start.done():
        await asyncio.wait({start}, timeout=0.01)
    for pid in begun:  # none if it was so slow to begin that it was given up by itself
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(LoadTimeout):
        await start
    assert _children() <= before


@pytest.mark.parametrize("extra", ["adapters", "projectors"])
async def test_what_it_cannot_load_is_refused(extra: str, model: Path, tmp_path: Path) -> None:
    engine = CpuEngine(Settings(models=tmp_path))
    wanted = ModelFiles(model, "0" * 64, "llama", "F32", **{extra: (model,)})  # type: ignore[arg-type]
    with pytest.raises(LoadFailed, match=extra):
        await engine.start(wanted, LoadOptions(num_ctx=64, slots=1))


async def test_settings_without_effect_are_told(model: Path, tmp_path: Path) -> None:
    engine = CpuEngine(Settings(models=tmp_path))
    runner = await engine.start(files(model), LoadOptions(num_ctx=64, slots=1, main_gpu=1), reason="named")
    assert runner.info.reason == "named; without effect here: main_gpu"
    await runner.close()


async def _start(model: Path, store: Path, **settings: float) -> None:
    async with started(model, store, **settings):
        pass


def _children() -> set[int]:
    found = set()
    for child in psutil.Process().children(recursive=True):
        # One of an earlier test may go while it is looked at.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "puna.engine.cpu.child" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found
