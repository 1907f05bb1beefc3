"""What a user gets who sets nothing: the engine cpu, and sixteen clients at once, none waiting for another."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fakes.house import make_model
from puna.engine.cpu import library
from puna.engine.runner import End, Prefilled, Prompt, Sampling
from puna.model.gguf import read_header
from puna.scheduler.place import Lease
from puna.scheduler.scheduler import Scheduler
from puna.server.engines import engines
from puna.settings import Settings
from puna.types import Options

from .models import Recipe, write_model

SETTINGS = Settings(models=Path("unused"))


async def test_sixteen_clients_run_at_once_with_exact_seeds(tmp_path: Path) -> None:
    assert library.why_not() is None
    path = tmp_path / "small.gguf"
    write_model(path, Recipe())
    model = make_model("m", weights=path, header=read_header(path))
    async with Scheduler(engines(SETTINGS), SETTINGS) as scheduler, AsyncExitStack() as leases:
        entering = (leases.enter_async_context(scheduler.lease(model, Options())) for _ in range(16))
        held: list[Lease] = await asyncio.gather(*entering)
        (runner,) = {id(lease.runner): lease.runner for lease in held}.values()
        assert (runner.info.engine, runner.info.slots, runner.info.seed_exact) == ("cpu", 16, True)
        (loaded,) = scheduler.loaded()
        assert "faster" in loaded.reason

        told: list[tuple[str, int]] = []

        def note(kind: str, number: int) -> None:
            told.append((kind, number))

        async def speak(number: int) -> None:
            sampling = Sampling(max_tokens=300, seed=number, ignore_eos=True)
            async for step in runner.generate(Prompt((1, 5, 6, 7)), sampling):
                if isinstance(step, Prefilled | End):
                    note(type(step).__name__, number)

        await asyncio.gather(*(speak(number) for number in range(16)))
        assert {number for _, number in told[:16]} == set(range(16))
        assert {kind for kind, _ in told[:16]} == {"Prefilled"}, "all had begun before any had ended"
        assert {kind for kind, _ in told[16:]} == {"End"}


@pytest.mark.parametrize("gpu", [0, -1])
async def test_who_says_that_no_gpu_is_to_be_used_has_nothing_loaded_anew(gpu: int, tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    write_model(path, Recipe())
    model = make_model("m", weights=path, header=read_header(path))
    async with Scheduler(engines(SETTINGS), SETTINGS) as scheduler:
        async with scheduler.lease(model, Options()) as first:
            pass
        async with scheduler.lease(model, Options(num_gpu=gpu)) as second:
            assert second.runner is first.runner
