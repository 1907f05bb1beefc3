"""Children that are stopped before they are what they are to run, and those that say much, or nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fakes.waiting import turns_until
from puna import children
from puna.children import HeardChild, spawned
from puna.engine.process import ChildProcess, private_directory

SAY = [sys.executable, "-c", "import sys; sys.stderr.write('said')"]
needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork here")


def stop_here() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each child is stopped between its fork and its exec."""
    usual: Callable[..., Any] = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **options: usual(*words, preexec_fn=stop_here, **options))
    monkeypatch.setattr(children, "COPY_SECONDS", 0.2)


@needs_fork
@pytest.mark.usefixtures("stopped")
def test_a_copy_that_is_stopped_is_ended() -> None:
    child = spawned(SAY, stderr=subprocess.DEVNULL)
    assert child.wait() == -signal.SIGKILL


@needs_fork
@pytest.mark.usefixtures("stopped")
async def test_meanwhile_the_loop_goes_on() -> None:
    starting, looks = asyncio.create_task(ChildProcess.start(SAY, private_directory())), 0

    def begun() -> bool:
        nonlocal looks
        looks += 1
        return starting.done()

    await turns_until(begun, 20, "the start")
    assert looks > 10
    child = await starting
    assert "SIGKILL" in await child.died
    await child.close()


@needs_fork
@pytest.mark.usefixtures("stopped")
async def test_a_start_that_nobody_waits_for_any_more_leaves_nothing() -> None:
    own = psutil.Process()
    others = set(own.children())
    starting = asyncio.create_task(ChildProcess.start(SAY, directory := private_directory()))
    await turns_until(lambda: {*own.children()} - others, 20, "a copy")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not directory.exists()
    await turns_until(lambda: not {*own.children()} - others, 20, "its end")


async def test_all_that_it_says_is_heard_before_its_end(tmp_path: Path) -> None:
    heard: list[bytes] = []
    code = "import sys; print('x' * 300000); sys.stdout.flush(); sys.stderr.write('y'); sys.exit(3)"
    child = await HeardChild.start(
        [sys.executable, "-c", code], heard.append, environment=dict(os.environ), directory=tmp_path, both=True
    )
    assert await child.ended == 3
    assert b"".join(heard).split() == [b"x" * 300000, b"y"]
    child.kill_all()
    child.terminate()


async def test_a_start_that_fails_in_any_way_is_told() -> None:
    """The thread that it fails in is nobody's: whoever waits for the start would wait without end."""
    for arguments, kind in ((["/nowhere"], OSError), ([sys.executable, "\0"], ValueError)):
        with pytest.raises(kind):
            await asyncio.wait_for(HeardChild.start(arguments, lambda data: None, environment={}), 20)


async def test_the_end_of_its_stdin_is_told_it() -> None:
    child = await HeardChild.start([sys.executable, "-c", "input()"], lambda data: None, environment=dict(os.environ))
    child.close_stdin()
    assert await child.ended == 1
