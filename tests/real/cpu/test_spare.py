"""The child that is kept ready for the next model: taken, replaced, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from fakes.waiting import until
from puna.engine.cpu import recruit
from puna.engine.cpu.client import CpuEngine
from puna.engine.cpu.recruit import Spare
from puna.engine.runner import LoadOptions, Runner
from puna.settings import Settings

from .models import Recipe, write_model
from .running import answer, files

LOAD = LoadOptions(num_ctx=128, slots=2, num_thread=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.gguf"
    write_model(path, Recipe())
    return path


@asynccontextmanager
async def engine_of(store: Path, **settings: bool) -> AsyncIterator[CpuEngine]:
    engine = CpuEngine(Settings(models=store, **settings))
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def loaded(engine: CpuEngine, model: Path) -> AsyncIterator[Runner]:
    runner = await engine.start(files(model), LOAD)
    try:
        yield runner
    finally:
        await runner.close()


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


async def test_the_next_model_takes_it_and_answers_as_from_a_new_one(model: Path, tmp_path: Path) -> None:
    async with engine_of(tmp_path) as engine:
        before = children()
        async with loaded(engine, model) as runner:
            new = (await answer(runner, range(10, 30))).tokens
        await engine.prepare()
        await engine.prepare()
        (spare,) = children() - before
        async with loaded(engine, model) as runner:
            assert runner.info.pid == spare
            assert (await answer(runner, range(10, 30))).tokens == new
            async with loaded(engine, model) as other:
                assert other.info.pid != spare
        assert children() <= before


async def test_the_end_of_the_engine_ends_it(model: Path, tmp_path: Path) -> None:
    before = children()
    async with engine_of(tmp_path) as engine:
        await engine.prepare()
        (pid,) = children() - before
        directory = Path(f"/proc/{pid}/cwd").resolve() if Path("/proc").is_dir() else None
    assert children() <= before
    assert directory is None or not directory.exists()


async def test_one_that_has_died_is_replaced(model: Path, tmp_path: Path) -> None:
    async with engine_of(tmp_path) as engine:
        before = children()
        await engine.prepare()
        (spare,) = children() - before
        os.kill(spare, signal.SIGKILL)
        until(lambda: not running(spare), 10, "its end")
        async with loaded(engine, model) as runner:
            assert runner.info.pid != spare


async def test_one_of_another_environment_is_not_taken(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_of(tmp_path) as engine:
        before = children()
        await engine.prepare()
        (spare,) = children() - before
        monkeypatch.setenv("PUNA_CPU_VARIANT", "portable")
        async with loaded(engine, model) as runner:
            assert runner.info.version == "portable"
        assert children() <= before
        await engine.prepare()
        (spare,) = children() - before
        monkeypatch.delenv("PUNA_CPU_VARIANT")
        await engine.prepare()
        (other,) = children() - before
        assert other != spare


async def test_it_is_not_kept_where_it_is_not_wanted(tmp_path: Path) -> None:
    before = children()
    async with engine_of(tmp_path, spare=False) as engine:
        await engine.prepare()
        assert children() <= before


async def test_it_is_not_kept_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recruit, "ROOM", 1 << 60)
    before = children()
    spare = Spare("puna.engine.cpu.child")
    await spare.fill()
    assert children() <= before
    await spare.close()


async def test_a_server_that_goes_takes_it_along(tmp_path: Path) -> None:
    """Killed, so that nothing in it can tidy up."""
    code = (
        "import asyncio, psutil\n"
        "from puna.engine.cpu.recruit import Spare\n"
        "async def main():\n"
        "    await Spare('puna.engine.cpu.child').fill()\n"
        "    print(psutil.Process().children()[0].pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert server.stdout is not None
    spare = int(await server.stdout.readline())
    server.kill()
    await server.wait()
    until(lambda: not running(spare), 10, "its end")
