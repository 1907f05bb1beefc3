"""Children that are stopped before they are what they are to run, and those that say much, or nothing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
def test_what_else_this_process_starts_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of half a gigabyte takes 40 ms, and an import must not change how others start their programs."""
    usual: Callable[..., Any] = subprocess.Popen
    seen = []

    def popen(*words: Any, **options: Any) -> Any:
        seen.append(subprocess._USE_VFORK)  # type: ignore[attr-defined]
        return usual(*words, **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    before = subprocess._USE_VFORK  # type: ignore[attr-defined]
    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(spawned, SAY, stderr=subprocess.DEVNULL) for _ in range(16)]:
            each.result().wait()
    assert seen == [False] * 16
    assert subprocess._USE_VFORK is before  # type: ignore[attr-defined]


def test_an_answer_is_waited_for_so_long() -> None:
    given, seconds = b"a word", 30.0
    code = "import sys; sys.stdout.write(sys.stdin.read() + '.'); sys.stderr.write('said'); sys.exit(3)"
    ended = children.answered([sys.executable, "-c", code], given, environment=dict(os.environ), seconds=seconds)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, b"a word.", b"said")
    waits = "import time; time.sleep(100)"
    with pytest.raises(subprocess.TimeoutExpired):
        children.answered([sys.executable, "-c", waits], given, environment=dict(os.environ), seconds=0.2)


STARTED_BY_A_COMMAND_OR_A_CHILD = {"children.py", "cli/background.py", "doctor.py", "engine/llama/launch.py"}


def test_the_server_starts_children_in_this_one_way() -> None:
    sources = Path(children.__file__).parent
    starts = {
        file.relative_to(sources).as_posix()
        for file in sources.rglob("*.py")
        if re.search(
            r"subprocess\.(run|call|Popen|check_\w+)\(|create_subprocess|posix_spawn|os\.fork\(", file.read_text()
        )
    }
    assert starts == STARTED_BY_A_COMMAND_OR_A_CHILD


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
    assert await child.died == "something stopped it (SIGSTOP) before it began, and it was ended after 2 s"
    await child.close()


@needs_fork
async def test_one_that_is_killed_once_it_has_begun_is_told_as_killed() -> None:
    child = await ChildProcess.start([sys.executable, "-c", "input()"], private_directory())
    os.kill(child.pid, signal.SIGKILL)
    assert await child.died == "killed by SIGKILL (out of memory?)"
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
